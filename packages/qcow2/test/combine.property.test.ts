import { buildQcow2, type TableEntrySpec } from '@tidemark/testkit'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BitmapOperand,
  COMBINE_ARENA_BYTES,
  type CombineOptions,
  countDirty,
  createEngine,
  dirtyExtents,
  findBitmap,
  memoryStorage,
  openBitmap,
  openImage,
} from '../src/index.js'
import {
  bytesIn,
  bytesOfBits,
  collect,
  extentsOf,
  type ModelBitmap,
  memorySource,
  modelOf,
  type Operation,
  SECTOR,
} from './model.js'

const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })

const operations = fc.constantFrom<Operation>('union', 'intersection', 'difference', 'xor')
const granularityBits = fc.integer({ min: 9, max: 16 })

/** Runs of one value, so that stretches are all clear or all set often enough, down to single bits. */
const bitsOf = (count: number): fc.Arbitrary<boolean[]> =>
  fc
    .array(
      fc.tuple(fc.boolean(), fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 700 }))),
      {
        minLength: 1,
        maxLength: 12,
      },
    )
    .map(runs => {
      const bits = runs.flatMap(([value, length]) => Array.from({ length }, () => value))
      return Array.from({ length: count }, (_, i) => bits[i % bits.length]!)
    })

const bitmapOf = (disk: number): fc.Arbitrary<ModelBitmap> =>
  granularityBits.chain(shift =>
    bitsOf(Math.ceil(disk / 2 ** shift)).map(bits => ({ granularity: 2 ** shift, bits })),
  )

interface Scenario {
  readonly disk: number
  readonly groups: readonly (readonly ModelBitmap[])[]
  readonly options: CombineOptions
}

const scenarios: fc.Arbitrary<Scenario> = fc
  .integer({ min: 1, max: 3000 })
  .map(sectors => sectors * SECTOR)
  .chain(disk =>
    fc.record({
      disk: fc.constant(disk),
      groups: fc.array(fc.array(bitmapOf(disk), { minLength: 1, maxLength: 3 }), {
        minLength: 1,
        maxLength: 4,
      }),
      options: fc.record(
        {
          operation: operations,
          granularity: fc.integer({ min: 9, max: 22 }).map(bits => 2 ** bits),
          widenFirst: fc.boolean(),
        },
        { requiredKeys: [] },
      ),
    }),
  )

async function check(operands: readonly BitmapOperand[], { disk, groups, options }: Scenario): Promise<void> {
  const expected = extentsOf(modelOf(groups, disk, options))
  expect(await collect(dirtyExtents(engine, operands, options))).toEqual(expected)
  const finest = Math.min(...groups.flat().map(bitmap => bitmap.granularity))
  const granularity = Math.max(finest, options.granularity ?? 0)
  const counted = await countDirty(engine, operands, options)
  const granules = expected.reduce(
    (sum, edge, i) => sum + (i % 2 === 0 ? -1 : 1) * Math.ceil(edge / granularity),
    0,
  )
  expect(counted).toEqual({ granularity, granules, bytes: bytesIn(expected) })
  // Whatever was taken from the arena is back: a second run has the same room.
  expect(engine.mark()).toBe(base)
}
const base = engine.mark()

describe('dirtyExtents and countDirty against sets of sectors', () => {
  it('sources in memory, more or less forthcoming', async () => {
    await fc.assert(
      fc.asyncProperty(
        scenarios,
        fc.infiniteStream(fc.boolean()),
        fc.boolean(),
        async (scenario, coins, tail) => {
          const shy = () => coins.next().value as boolean
          const operands = scenario.groups.map((group, i) => {
            const sources = group.map(bitmap => memorySource(bitmap, scenario.disk, { shy, tail }))
            return sources.length === 1 && i % 2 === 0 ? sources[0]! : sources
          })
          await check(operands, scenario)
        },
      ),
      { numRuns: 400 },
    )
  })

  it('one source many times over', async () => {
    await fc.assert(
      fc.asyncProperty(scenarios, async scenario => {
        const [group] = scenario.groups
        const source = memorySource(group![0]!, scenario.disk)
        const groups = scenario.groups.map(() => [group![0]!])
        await check(
          groups.map(() => source),
          { ...scenario, groups },
        )
      }),
      { numRuns: 50 },
    )
  })

  it('bitmaps of images, in zeros, ones and data entries', async () => {
    await fc.assert(
      fc.asyncProperty(
        scenarios,
        fc.integer({ min: 9, max: 10 }),
        fc.boolean(),
        async (scenario, clusterBits, tail) => {
          const { disk, groups } = scenario
          const bitmaps = groups.flat().map(({ granularity, bits }, i) => ({
            name: `b${i}`,
            granularityBits: Math.log2(granularity),
            table: tableOf(bytesOfBits(bits, tail), bits, 2 ** clusterBits),
          }))
          const { bytes } = buildQcow2({ clusterBits, virtualSize: disk, bitmaps })
          const image = await openImage(memoryStorage(bytes), engine)
          let next = 0
          const operands = groups.map(group =>
            group.map(() => openBitmap(image, findBitmap(image, `b${next++}`), engine)),
          )
          await check(operands, scenario)
        },
      ),
      { numRuns: 150 },
    )
  })
})

/** Entries as sparse as they can be. */
function tableOf(stored: Uint8Array, bits: readonly boolean[], clusterSize: number): TableEntrySpec[] {
  return Array.from({ length: Math.ceil(stored.length / clusterSize) }, (_, i) => {
    const covered = bits.slice(i * clusterSize * 8, (i + 1) * clusterSize * 8)
    if (!covered.includes(true)) return 'zeros'
    if (!covered.includes(false)) return 'ones'
    return stored.slice(i * clusterSize, (i + 1) * clusterSize)
  })
}
