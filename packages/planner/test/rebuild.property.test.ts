import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type LayerOrder,
  orderQueries,
  orphanBitmaps,
  rebuildCheckpoints,
  sortByInclusion,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer } from './facts.js'

/** Writes that each disk sees, between checkpoints and external snapshots. */
type Step =
  | { readonly kind: 'checkpoint' }
  | { readonly kind: 'write'; readonly disk: number; readonly granule: number }
  | { readonly kind: 'snapshot'; readonly disk: number }

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('checkpoint' as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('write' as const), disk: fc.nat(1), granule: fc.nat(7) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('snapshot' as const), disk: fc.nat(1) }) },
)

/** libvirt's independent bitmaps over such a history: disk → layers, top first → bitmap → dirty granules. */
function play(steps: readonly Step[], names: readonly string[]) {
  const disks = [0, 1].map(() => [new Map<string, Set<number>>()])
  const truth: string[] = []
  for (const each of steps) {
    if (each.kind === 'checkpoint') {
      const name = names[truth.length]
      if (name === undefined) continue
      truth.push(name)
      for (const layers of disks) layers[0]!.set(name, new Set())
    } else if (each.kind === 'write') {
      for (const dirty of disks[each.disk]![0]!.values()) dirty.add(each.granule)
    } else {
      const layers = disks[each.disk]!
      layers.unshift(new Map([...layers[0]!.keys()].map(name => [name, new Set<number>()])))
    }
  }
  return { disks, truth }
}

async function ordersOf(
  facts: BackupFacts,
  names: readonly string[],
  disks: ReturnType<typeof play>['disks'],
) {
  const orders: LayerOrder[] = []
  for (const { target, layer: index, filename, bitmaps } of orderQueries(facts, names)) {
    const sets = disks[target === 'vda' ? 0 : 1]![index]!
    const counted = bitmaps.map(name => ({ name, granules: sets.get(name)!.size }))
    const holds = async (older: string, newer: string) =>
      [...sets.get(newer)!].every(granule => sets.get(older)!.has(granule))
    orders.push({ target, layer: index, filename, unread: [], ...(await sortByInclusion(counted, holds)) })
  }
  return orders
}

const names = fc.constantFrom(
  ['zebra', 'apple', 'mango', 'kiwi', 'fig'],
  ['virtnbdbackup.0', 'virtnbdbackup.1', 'virtnbdbackup.2', 'virtnbdbackup.10', 'virtnbdbackup.11'],
  ['1700000000', '1700000060', '1700000120', '1800000000', '1800000001'],
)

describe('checkpoints made of bitmaps alone', () => {
  it('what is called certain is so, whatever was written when; times rise; all are there once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 40 }),
        names,
        fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
        async (steps, all, keeps) => {
          const { disks, truth } = play(steps, all)
          const known = truth.filter((_, i) => keeps[i])
          const facts: BackupFacts = {
            domain: domain([disk('vda', '/a.0'), disk('vdb', '/b.0')]),
            // As libvirt leaves them when others are deleted: each is told its nearest older one.
            checkpoints: known.map((name, i) =>
              checkpoint(name, { parent: known[i - 1], creationTime: 100 + 10 * i }),
            ),
            chains: new Map(
              disks.map((layers, d) => [
                d === 0 ? 'vda' : 'vdb',
                layers.map((bitmaps, i) =>
                  // The order of a directory says nothing.
                  layer(
                    `/${'ab'[d]}.${i}`,
                    [...bitmaps.keys()].sort().map(name => bitmap(name)),
                  ),
                ),
              ]),
            ),
          }
          const orders = await ordersOf(facts, truth, disks)
          const { checkpoints, left, notes } = rebuildCheckpoints(facts, { orders })
          expect(checkpoints.map(each => each.checkpoint.name).sort()).toEqual([...truth].sort())
          expect(left).toEqual([])
          expect(notes).toEqual([])
          let before = 0
          for (const [i, { checkpoint: made, place, from }] of checkpoints.entries()) {
            expect(made.parent).toBe(checkpoints[i - 1]?.checkpoint.name)
            expect(made.creationTime).toBeGreaterThanOrEqual(before)
            before = made.creationTime!
            expect(from).toBe(known.includes(made.name) ? 'metadata' : 'bitmaps')
            if (place.sure === 'certain') {
              const true_ = truth[truth.indexOf(made.name) - 1]
              // Metadata that keep their parent are certain for what they say, and say what libvirt said.
              if (from === 'bitmaps') expect(made.parent, place.evidence.join()).toBe(true_)
            }
          }
          // Nothing that the bits show is turned round.
          for (const { chains } of orders) {
            for (const classes of chains) {
              for (const [i, older] of classes.entries()) {
                for (const newer of classes[i + 1] ?? []) {
                  for (const name of older) expect(truth.indexOf(name)).toBeLessThan(truth.indexOf(newer))
                }
              }
            }
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  it('names that count are put in order even where no bit was written, and that is likely, not certain', () => {
    const all = ['virtnbdbackup.10', 'virtnbdbackup.9', 'virtnbdbackup.2']
    const { checkpoints } = rebuildCheckpoints({
      domain: domain([disk('vda', '/a')]),
      checkpoints: [],
      chains: new Map([['vda', [layer('/a', all)]]]),
    })
    expect(checkpoints.map(({ checkpoint: { name }, place }) => [name, place.sure])).toEqual([
      ['virtnbdbackup.2', 'likely'],
      ['virtnbdbackup.9', 'likely'],
      ['virtnbdbackup.10', 'likely'],
    ])
  })

  it('bits outweigh names, disks that contradict each other are told, and so is a cleared bitmap', async () => {
    const chains = new Map([
      ['vda', [layer('/a', ['b.1', 'b.2'])]],
      ['vdb', [layer('/b', ['b.1', 'b.2'])]],
    ])
    const facts = { domain: domain([disk('vda', '/a'), disk('vdb', '/b')]), checkpoints: [], chains }
    const order = (target: string, ...classes: string[][]): LayerOrder => ({
      ...{ target, layer: 0, filename: `/${target.at(-1)}`, chains: [classes], apart: [], unread: [] },
    })
    const bits = rebuildCheckpoints(facts, { orders: [order('vda', ['b.2'], ['b.1'])] })
    expect(bits.checkpoints.map(({ checkpoint: { name }, place }) => [name, place.sure])).toEqual([
      // What counts up was made in that order, too: one of them may have been cleared.
      ['b.2', 'guess'],
      ['b.1', 'guess'],
    ])
    const split = rebuildCheckpoints(facts, {
      orders: [order('vda', ['b.2'], ['b.1']), order('vdb', ['b.1'], ['b.2'])],
    })
    expect(split.checkpoints.some(({ place }) => place.sure === 'guess')).toBe(true)
    expect(split.notes.map(({ code }) => code)).toEqual(['order-contradicts'])
    // Neither holds the other.
    const sorted = await sortByInclusion(
      [
        { name: 'b.1', granules: 2 },
        { name: 'b.2', granules: 2 },
      ],
      async () => false,
    )
    expect(sorted.apart).toEqual([{ bitmap: 'b.2', from: 'b.1' }])
    const apart = rebuildCheckpoints(facts, { orders: [{ ...order('vda'), ...sorted }] })
    expect(apart.notes.map(({ code }) => code)).toEqual(['bitmaps-incomparable'])
    expect(apart.checkpoints.every(({ place }) => place.sure === 'likely')).toBe(true)
  })

  it('what bits tell is a guess where the layers tell otherwise: an older one was cleared', () => {
    const layers = [layer('/top', ['x', 'a']), layer('/base', ['x'])]
    const order = (...bitmaps: string[]): LayerOrder => ({
      ...{ target: 'vda', layer: 0, filename: '/top', apart: [], unread: [] },
      chains: [bitmaps.map(name => [name])],
    })
    const places = (chain: readonly (typeof layers)[number][], bits: LayerOrder) => {
      const facts = {
        ...{ domain: domain([disk('vda', '/top'), disk('vdb', '/b')]), checkpoints: [] },
        chains: new Map([
          ['vda', chain],
          // Only what is on one disk is compared.
          ['vdb', [layer('/b', ['a'])]],
        ]),
      }
      const { checkpoints } = rebuildCheckpoints(facts, { orders: [bits] })
      return checkpoints.map(({ checkpoint: { name }, place }) => `${name} ${place.sure}`)
    }
    expect(places(layers, order('x', 'a'))).toEqual(['x certain', 'a certain'])
    expect(places(layers, order('a', 'x'))).toEqual(['a guess', 'x guess'])
    expect(places([layers[0]!], order('a', 'x'))).toEqual(['a certain', 'x certain'])
  })

  it('metadata outweigh bits, parents that are gone are replaced, circles and branches put in a line', () => {
    const chains = new Map([['vda', [layer('/a', ['c1', 'c2', 'c3'])]]])
    const base = { domain: domain([disk('vda', '/a')]), chains }
    const lines = (checkpoints: readonly (readonly [string, string | undefined])[], line = false) =>
      rebuildCheckpoints(
        {
          ...base,
          checkpoints: checkpoints.map(([name, parent], i) =>
            checkpoint(name, { parent, creationTime: i + 1 }),
          ),
        },
        { line },
      ).checkpoints.map(({ checkpoint: { name, parent } }) => [name, parent])
    const straight = [
      ['c1', undefined],
      ['c2', 'c1'],
      ['c3', 'c2'],
    ]
    expect(
      lines([
        ['c1', undefined],
        ['c2', 'gone'],
        ['c3', 'c2'],
      ]),
    ).toEqual(straight)
    expect(
      lines(
        [
          ['c1', 'c3'],
          ['c2', 'c1'],
          ['c3', 'c2'],
        ],
        true,
      ),
    ).toEqual(straight)
    expect(
      lines(
        [
          ['c1', undefined],
          ['c2', 'c1'],
          ['c3', 'c1'],
        ],
        true,
      ),
    ).toEqual(straight)
    // A branch is nobody's fault until somebody says so.
    expect(
      lines([
        ['c1', undefined],
        ['c2', 'c1'],
        ['c3', 'c1'],
      ]),
    ).toEqual([straight[0], straight[1], ['c3', 'c1']])
  })

  it('what is no checkpoint is left alone unless it is asked for', () => {
    const all = ['pbs-incremental-dirty-bitmap', 'libvirt-tmp-activewrite', 'backup-vda', 'a b', 'cp1']
    const facts = {
      domain: domain([disk('vda', '/a')]),
      checkpoints: [],
      chains: new Map([['vda', [layer('/a', all)]]]),
    }
    const plain = rebuildCheckpoints(facts)
    expect(plain.checkpoints.map(each => each.checkpoint.name)).toEqual(['cp1'])
    expect(plain.left.map(({ name, unfit }) => [name, unfit])).toEqual([
      ['pbs-incremental-dirty-bitmap', 'other-tool'],
      ['libvirt-tmp-activewrite', 'temporary'],
      ['backup-vda', 'temporary'],
      ['a b', 'not-a-name'],
    ])
    const asked = rebuildCheckpoints(facts, { adopt: ['backup-vda', 'a b'] })
    expect(asked.checkpoints.map(each => each.checkpoint.name)).toEqual(['backup-vda'])
    expect(orphanBitmaps(facts).length).toBe(5)
  })

  it('an invented time is the earliest that can be; a time in a name counts where it fits', () => {
    const all = ['x1', 'x2', '1700000000', 'x3']
    const facts = {
      domain: domain([disk('vda', '/a')]),
      checkpoints: [
        checkpoint('x2', { creationTime: 1_600_000_000 }),
        checkpoint('x3', { parent: 'x2', creationTime: 1_600_000_000 }),
      ],
      chains: new Map([['vda', [layer('/a', all)]]]),
    }
    const order: LayerOrder = {
      ...{ target: 'vda', layer: 0, filename: '/a', apart: [], unread: [] },
      chains: [[['x1'], ['x2'], ['x3'], ['1700000000']]],
    }
    const times = rebuildCheckpoints(facts, { orders: [order] }).checkpoints.map(each => [
      each.checkpoint.name,
      each.checkpoint.creationTime,
      each.time.sure,
    ])
    expect(times).toEqual([
      ['x1', 1, 'guess'],
      ['x2', 1_600_000_000, 'certain'],
      ['x3', 1_600_000_000, 'certain'],
      ['1700000000', 1_700_000_000, 'likely'],
    ])
  })
})
