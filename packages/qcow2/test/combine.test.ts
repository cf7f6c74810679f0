// Fixed cases: bitmaps longer than a window (2^21 bits), dense ones, huge sparse ones, mistakes of the caller.
import { buildQcow2, Random } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import {
  type BitmapSource,
  COMBINE_ARENA_BYTES,
  type CombineOptions,
  countDirty,
  createEngine,
  dirtyExtents,
  findBitmap,
  inspectImage,
  memoryStorage,
  openBitmap,
  openImage,
  Qcow2Error,
} from '../src/index.js'
import { bytesIn, collect, memorySource, ruleSource, SECTOR } from './model.js'

const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
const WINDOW_BITS = 2 ** 21

/** Seeded clumps of bits, with long stretches of nothing and of everything. */
function clumps(seed: string, count: number): Uint8Array {
  const random = new Random(seed)
  const bits = new Uint8Array(count)
  for (let at = 0; at < count; ) {
    const length = random.pick([1, 2, 63, 64, 65, 1000, 100_000, WINDOW_BITS])
    if (random.bool()) bits.fill(1, at, at + length)
    at += length
  }
  return bits
}

interface Big {
  readonly granularity: number
  readonly bits: Uint8Array
}

function bigSource({ granularity, bits }: Big, disk: number): BitmapSource {
  const stored = new Uint8Array(Math.ceil(bits.length / 8))
  bits.forEach((bit, i) => {
    stored[i >> 3]! |= bit << (i & 7)
  })
  return ruleSource(
    granularity,
    disk,
    byte => stored[byte]!,
    (offset, length) => {
      const part = stored.subarray(offset, offset + length)
      return part.every(byte => byte === 0) ? 'zeros' : part.every(byte => byte === 0xff) ? 'ones' : 'mixed'
    },
  )
}

/** As model.ts has it, with typed arrays. */
function bigModel(bitmaps: readonly Big[], disk: number, options: CombineOptions): number[] {
  const { operation = 'union', granularity = SECTOR, widenFirst = false } = options
  const sectors = disk / SECTOR
  const widen = (from: Uint8Array): Uint8Array => {
    const shift = Math.log2(granularity / SECTOR)
    const coarse = new Uint8Array(Math.ceil(sectors / 2 ** shift))
    from.forEach((bit, i) => {
      coarse[Math.floor(i / 2 ** shift)]! |= bit
    })
    return from.map((_, i) => coarse[Math.floor(i / 2 ** shift)]!)
  }
  const spread = bitmaps.map(bitmap => {
    const each = bitmap.granularity / SECTOR
    const all = new Uint8Array(sectors).map((_, i) => bitmap.bits[Math.floor(i / each)]!)
    return widenFirst ? widen(all) : all
  })
  const apply = { union: 0b1110, intersection: 0b1000, difference: 0b0010, xor: 0b0110 }[operation]
  const combined = spread.reduce((a, b) => a.map((bit, i) => (apply >> (bit | (b[i]! << 1))) & 1))
  const result = widen(combined)
  const edges: number[] = []
  result.forEach((bit, i) => {
    if (bit !== (result[i - 1] ?? 0)) edges.push(i * SECTOR)
  })
  if (result.at(-1) === 1) edges.push(disk)
  return edges
}

describe('bitmaps longer than a window', () => {
  const sectors = WINDOW_BITS + 12_345
  const disk = sectors * SECTOR
  const bitmap = (seed: string, granularityBits: number): Big => ({
    granularity: 2 ** granularityBits,
    bits: clumps(seed, Math.ceil(disk / 2 ** granularityBits)),
  })
  const cases: [string, Big[], CombineOptions][] = [
    ['one', [bitmap('a', 9)], {}],
    ['two of a granularity', [bitmap('a', 9), bitmap('b', 9)], { operation: 'xor' }],
    ['one sector and two', [bitmap('c', 9), bitmap('d', 10)], { operation: 'difference' }],
    ['64 KiB and a sector', [bitmap('e5', 16), bitmap('f5', 9)], { operation: 'intersection' }],
    ['2 GiB and a sector', [bitmap('g', 31), bitmap('h', 9)], { operation: 'xor' }],
    ['to 1 KiB', [bitmap('i', 9), bitmap('j', 16)], { granularity: 2 ** 10 }],
    ['to 64 KiB', [bitmap('k', 9), bitmap('l', 12)], { operation: 'difference', granularity: 2 ** 16 }],
    ['to 2 GiB', [bitmap('m', 9), bitmap('n', 9)], { operation: 'intersection', granularity: 2 ** 31 }],
    [
      'widened',
      [bitmap('o', 9), bitmap('p', 11)],
      { operation: 'xor', granularity: 2 ** 12, widenFirst: true },
    ],
  ]
  it.each(cases)('%s', async (_, bitmaps, options) => {
    const expected = bigModel(bitmaps, disk, options)
    expect(expected.length).toBeGreaterThan(0)
    const sources = bitmaps.map(each => bigSource(each, disk))
    expect(await collect(dirtyExtents(engine, sources, options))).toEqual(expected)
    expect((await countDirty(engine, sources, options)).bytes).toBe(bytesIn(expected))
  })

  it('granules of 4 MiB windows in one coarse bit: 512 B widened to 2 GiB over 5 GiB', async () => {
    const large = 5 * 2 ** 30 + SECTOR
    const lone = (byte: number) => (byte === Math.floor((3 * 2 ** 30) / SECTOR / 8) ? 1 : 0)
    const source = ruleSource(SECTOR, large, lone)
    for (const widenFirst of [false, true]) {
      const options = { operation: 'difference', granularity: 2 ** 31, widenFirst } as const
      expect(await collect(dirtyExtents(engine, [source], options))).toEqual([2 ** 31, 2 ** 32])
    }
  })
})

describe('every second bit', () => {
  const bits = 3 * WINDOW_BITS + 77
  const disk = bits * 4096
  const even = ruleSource(4096, disk, () => 0x55)
  const odd = ruleSource(4096, disk, () => 0xaa)

  it('is an extent each', async () => {
    let next = 0
    for await (const chunk of dirtyExtents(engine, [even])) {
      for (let i = 0; i < chunk.length; i += 2) {
        if (chunk[i] !== next * 8192 || chunk[i + 1] !== next * 8192 + 4096) expect.fail(`extent ${next}`)
        next++
      }
    }
    expect(next).toBe(Math.ceil(bits / 2))
    expect(await countDirty(engine, [odd])).toMatchObject({ granules: Math.floor(bits / 2) })
  })

  it('and all the others are the whole disk', async () => {
    expect(await collect(dirtyExtents(engine, [even, odd]))).toEqual([0, disk])
    expect(await collect(dirtyExtents(engine, [even, odd], { operation: 'intersection' }))).toEqual([])
  })
})

describe('huge and sparse', () => {
  it.each([
    [2 ** 44, 12, 21],
    [2 ** 44, 12, 16],
    [2 ** 41, 9, 9],
  ])('%d bytes at 2^%d, clusters of 2^%d bytes', async (virtualSize, granularityBits, clusterBits) => {
    const l1Size = 2 // Too few for such a disk, but the L1 table would be large; QEMU is not asked here.
    const { bytes } = buildQcow2({
      virtualSize,
      clusterBits,
      l1Size,
      bitmaps: [
        { name: 'zeros', granularityBits },
        { name: 'ones', granularityBits, fill: 'ones' },
        { name: 'more zeros', granularityBits },
      ],
    })
    const image = await inspectImage(memoryStorage(bytes), engine)
    const source = (name: string) => openBitmap(image, findBitmap(image, name), engine)
    const began = performance.now()
    expect(await collect(dirtyExtents(engine, [source('zeros')]))).toEqual([])
    expect(await collect(dirtyExtents(engine, [source('ones')]))).toEqual([0, virtualSize])
    expect(await countDirty(engine, [source('ones'), source('zeros')], { operation: 'difference' })).toEqual({
      granularity: 2 ** granularityBits,
      granules: virtualSize / 2 ** granularityBits,
      bytes: virtualSize,
    })
    expect(
      await collect(dirtyExtents(engine, [source('zeros'), source('more zeros')], { granularity: 2 ** 31 })),
    ).toEqual([])
    expect(performance.now() - began).toBeLessThan(5000)
  })
})

describe('operands', () => {
  const disk = 64 * 65536
  const one = (bit: number) =>
    memorySource({ granularity: 65536, bits: Array.from({ length: 64 }, (_, i) => i === bit) }, disk)

  it('any number of groups fits the arena', async () => {
    const groups = Array.from({ length: 60 }, (_, i) => [one(i), one(i + 1)])
    expect(await collect(dirtyExtents(engine, groups))).toEqual([0, 61 * 65536])
  })

  it('an empty group is clean', async () => {
    expect(await collect(dirtyExtents(engine, [[one(3)], []]))).toEqual([3 * 65536, 4 * 65536])
    expect(await collect(dirtyExtents(engine, [[one(3)], []], { operation: 'intersection' }))).toEqual([])
  })

  it('one image’s bitmap taken twice, where a coarse window goes back to its start', async () => {
    // Two table windows (4,096 entries of 4,096 bits each), so that going back means reading the table again.
    const bits = 5000 * 4096
    const dirty = [1, 4095, 4096 * 4097 + 5, bits - 1]
    const { bytes } = buildQcow2({
      clusterBits: 9,
      virtualSize: bits * 512,
      bitmaps: [{ name: 'b', granularityBits: 9, dirty }],
    })
    const image = await openImage(memoryStorage(bytes), engine)
    const source = openBitmap(image, findBitmap(image, 'b'), engine)
    const options = { operation: 'xor', granularity: 65536, widenFirst: true } as const
    expect(await collect(dirtyExtents(engine, [source, source], options))).toEqual([])
    expect((await countDirty(engine, [source], options)).granules).toBe(4)
    expect((await countDirty(engine, [source])).granules).toBe(4)
  })

  it('are refused for disks of different sizes, and where there are none', async () => {
    const other = memorySource({ granularity: 65536, bits: [true] }, 512)
    const failure = await collect(dirtyExtents(engine, [one(0), other])).catch(error => error)
    expect(failure).toBeInstanceOf(Qcow2Error)
    expect(failure).toMatchObject({ code: 'disk-size-differs', details: { sizes: [disk, 512] } })
    await expect(collect(dirtyExtents(engine, []))).rejects.toThrow(RangeError)
    await expect(countDirty(engine, [[]])).rejects.toThrow(RangeError)
  })

  it.each([256, 2 ** 32, 3 * 2 ** 20, 65536.5, Number.NaN, 0, -512])(
    'granularity %s is none',
    async granularity => {
      await expect(countDirty(engine, [one(0)], { granularity })).rejects.toThrow(RangeError)
    },
  )

  it('a disk of no bytes has no extents', async () => {
    const none = memorySource({ granularity: 65536, bits: [] }, 0)
    expect(await collect(dirtyExtents(engine, [none]))).toEqual([])
    expect(await countDirty(engine, [none], { granularity: 2 ** 20 })).toMatchObject({
      granules: 0,
      bytes: 0,
    })
  })

  it('gives the arena back when it is left early, throws, or is aborted', async () => {
    const mark = engine.mark()
    const long = ruleSource(512, 2 ** 33, () => 0x55)
    for await (const _ of dirtyExtents(engine, [long, long])) break
    expect(engine.mark()).toBe(mark)
    const broken: BitmapSource = { ...long, readInto: () => Promise.reject(new Error('gone')) }
    await expect(collect(dirtyExtents(engine, [broken]))).rejects.toThrow('gone')
    await expect(countDirty(engine, [broken], { granularity: 2 ** 20 })).rejects.toThrow('gone')
    expect(engine.mark()).toBe(mark)
    const signal = AbortSignal.abort()
    await expect(countDirty(engine, [long], { signal })).rejects.toThrow(/abort/i)
    await expect(collect(dirtyExtents(engine, [long], { signal }))).rejects.toThrow(/abort/i)
    expect(engine.mark()).toBe(mark)
  })

  it('an arena too small is a RangeError', async () => {
    const small = createEngine({ arenaBytes: 65536 })
    await expect(collect(dirtyExtents(small, [one(0)]))).rejects.toThrow(RangeError)
  })
})
