import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type BackupRequest, judgeBitmap, planBackup } from '../src/index.js'
import { DiskModel, type Event, type Fault } from './history-model.js'

const anyEvent: fc.Arbitrary<Event> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('write' as const), granule: fc.nat(15) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('checkpoint' as const) }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'checkpoint' as const, excluded: true }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'snapshot' as const }) },
)
const anyJob: fc.Arbitrary<Event> = fc.oneof(
  fc.record({
    kind: fc.constant('commit' as const),
    by: fc.constantFrom('libvirt' as const, 'qemu-img' as const),
  }),
  fc.constant({ kind: 'pull' as const }),
)
const anyDialect = fc.constantFrom('independent' as const, 'chained' as const)
const anyFault = (...kinds: readonly Fault['kind'][]): fc.Arbitrary<Fault> =>
  fc.record({ kind: fc.constantFrom(...kinds), layer: fc.nat(5), bitmap: fc.nat(9) })

/** Every checkpoint that is incremental has all its writes in what is to be united. @returns how many were */
function expectCovered(model: DiskModel, request: Omit<BackupRequest, 'incremental'> = {}): number {
  const facts = model.facts()
  let incremental = 0
  for (const { name } of facts.checkpoints) {
    const [vda] = planBackup(facts, { ...request, incremental: name }).disks
    if (vda!.mode !== 'incremental') continue
    incremental++
    const united = new Set(vda!.merge.flatMap(({ layer, bitmap }) => [...model.bits(layer, bitmap)]))
    const missed = [...model.truth.get(name)!].filter(granule => !united.has(granule))
    expect({ name, missed }).toEqual({ name, missed: [] })
  }
  return incremental
}

describe('a random history of a disk', () => {
  it('is planned incremental from every checkpoint that includes it, in both dialects, where nothing goes wrong', () => {
    fc.assert(
      fc.property(anyDialect, fc.array(anyEvent, { maxLength: 40 }), (dialect, events) => {
        const model = new DiskModel(dialect).run(events)
        const included = model.facts().checkpoints.filter(({ disks }) => disks === undefined).length
        expect(expectCovered(model, { dialect })).toBe(included)
        // Found without being told; one bitmap alone shows no dialect, and none is needed for it.
        expect(expectCovered(model)).toBe(included)
      }),
      { numRuns: 1500 },
    )
  })

  it('upgraded in between: planned from every checkpoint up to the first that records', () => {
    fc.assert(
      fc.property(
        fc.array(anyEvent, { maxLength: 25 }),
        fc.array(anyEvent, { maxLength: 25 }),
        (before, after) => {
          expectCovered(new DiskModel('chained').run([...before, { kind: 'upgrade' }, ...after]))
        },
      ),
      { numRuns: 1500 },
    )
    const upgraded = new DiskModel('chained').run([
      ...[1, 2, 3].flatMap((granule): Event[] => [{ kind: 'checkpoint' }, { kind: 'write', granule }]),
      { kind: 'upgrade' },
      ...[4, 5].flatMap((granule): Event[] => [{ kind: 'checkpoint' }, { kind: 'write', granule }]),
    ])
    expect(expectCovered(upgraded)).toBe(5)
  })

  it('never misses a write, whatever block jobs and faults there are', () => {
    const anything = fc.array(
      fc.oneof({ weight: 8, arbitrary: anyEvent }, { weight: 1, arbitrary: anyJob }),
      {
        maxLength: 40,
      },
    )
    fc.assert(
      fc.property(
        anyDialect,
        anything,
        fc.array(anyFault('remove', 'inconsistent', 'stale', 'forget-checkpoint'), { maxLength: 2 }),
        (dialect, events, faults) => {
          const model = new DiskModel(dialect).run(events)
          for (const fault of faults) model.harm(fault)
          expectCovered(model, { dialect })
        },
      ),
      { numRuns: 4000 },
    )
  })

  it('never misses a write where somebody disabled bitmaps, or enabled them again, and the dialect is told', () => {
    fc.assert(
      fc.property(
        anyDialect,
        fc.array(anyEvent, { maxLength: 30 }),
        anyFault('disable', 'enable', 'remove'),
        (dialect, events, fault) => {
          expectCovered(new DiskModel(dialect).run(events).harm(fault), { dialect })
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('what a walk cannot see', () => {
  const [checkpoint, snapshot]: Event[] = [{ kind: 'checkpoint' }, { kind: 'snapshot' }]
  const write = (granule: number): Event => ({ kind: 'write', granule })

  it.each([
    ['pulled up', { kind: 'pull' }],
    ['committed', { kind: 'commit', by: 'libvirt' }],
  ] as const)("is a layer %s with a disabled bitmap, but for a later record's word", (_, job) => {
    const between = job.kind === 'pull' ? [snapshot!] : []
    const history = [checkpoint!, write(1), snapshot!, write(2), ...between, checkpoint!, write(3), job]
    const facts = new DiskModel('chained').run(history).facts()
    const [vda] = planBackup(facts, { incremental: 'cp1', dialect: 'chained' }).disks
    expect(vda).toMatchObject({
      mode: 'full',
      reasons: expect.arrayContaining([
        expect.objectContaining({ code: 'layer-gone', evidence: { checkpoint: 'cp2', file: '/images/l1' } }),
      ]),
    })
  })
})

describe("libvirt's verdict", () => {
  it('is that of its own rule, whatever the dialect', () => {
    fc.assert(
      fc.property(
        anyDialect,
        fc.array(anyEvent, { maxLength: 30 }),
        fc.array(anyFault('remove', 'inconsistent', 'stale', 'disable', 'enable'), { maxLength: 2 }),
        fc.constantFrom(undefined, 'independent' as const, 'chained' as const),
        (dialect, events, faults, told) => {
          const model = new DiskModel(dialect).run(events)
          for (const fault of faults) model.harm(fault)
          const facts = model.facts()
          for (const { name } of facts.checkpoints) {
            const [vda] = planBackup(facts, { incremental: name, dialect: told }).disks
            const { valid } = judgeBitmap(facts.chains.get('vda')!, name)
            expect([name, vda!.libvirt]).toEqual([name, valid ? 'accept' : 'reject'])
            const apart = (vda!.mode === 'incremental') !== valid
            if (apart) expect(vda!.reasons).not.toEqual([])
          }
        },
      ),
      { numRuns: 1500 },
    )
  })
})
