import { describe, expect, it } from 'vitest'
import { type BackupFacts, bodyQueries, type DiskMeasurement, planBackup, planToJson } from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer, simpleFacts } from './facts.js'

const A = '/images/a.qcow2'
const S1 = '/images/a.s1'
const then = domain([disk('vda', A)])

/** cp1 ← cp2 ← cp3, the disk now with an overlay over its image of that time. */
const facts: BackupFacts = {
  domain: domain([disk('vda', S1)]),
  checkpoints: [
    checkpoint('cp1', { domain: then }),
    checkpoint('cp2', { parent: 'cp1', domain: then }),
    checkpoint('cp3', { parent: 'cp2', domain: domain([disk('vda', S1)]) }),
  ],
  chains: new Map([
    [
      'vda',
      [
        layer(S1, ['cp1', bitmap('cp2', { granularity: 4096 }), bitmap('cp3', { granularity: 131072 })]),
        layer(A, ['cp1', bitmap('cp2', { recording: false })]),
      ],
    ],
  ]),
}

function planMeasured(measurement: Partial<DiskMeasurement>) {
  const measurements = new Map([['vda', { dirtyBytes: 65536, violations: [], errors: [], ...measurement }]])
  return planBackup(facts, { incremental: 'cp1', measurements }).disks[0]!
}

describe('bodyQueries', () => {
  it('asks for the union and, per layer, for every newer bitmap that records', () => {
    expect(bodyQueries(facts, planBackup(facts, { incremental: 'cp1' }))).toEqual([
      {
        target: 'vda',
        union: [
          { layer: 0, filename: S1, bitmap: 'cp1' },
          { layer: 1, filename: A, bitmap: 'cp1' },
        ],
        subsets: [
          { checkpoint: 'cp2', layer: 0, filename: S1, older: 'cp1', newer: 'cp2', granularity: 65536 },
          { checkpoint: 'cp3', layer: 0, filename: S1, older: 'cp1', newer: 'cp3', granularity: 131072 },
        ],
      },
    ])
  })

  it('asks nothing of a disk without a merge list, or in use', () => {
    const ask = (given: BackupFacts) => bodyQueries(given, planBackup(given, { incremental: 'cp1' }))
    expect(ask(simpleFacts([layer(A, [])]))).toEqual([])
    expect(ask(simpleFacts([layer(A, ['cp1'], { locked: true })]))).toEqual([])
  })

  it.each([
    ['a circle', { parent: 'cp2' }, { parent: 'cp1' }],
    ['a branch', { parent: 'cp0' }, { parent: 'cp0' }],
    ['a parent that is missing', {}, { parent: 'gone' }],
  ])('asks where the tree leaves the order open (%s) for what is not older by its time', (_, one, other) => {
    const newerAt = (time: number | undefined) => {
      const checkpoints = [
        checkpoint('cp0'),
        checkpoint('cp1', { ...one, creationTime: 100 }),
        checkpoint('cp2', { ...other, creationTime: time }),
      ]
      const given = simpleFacts([layer(A, ['cp0', 'cp1', 'cp2'])], { checkpoints })
      const [query] = bodyQueries(given, planBackup(given, { incremental: 'cp1' }))
      return query!.subsets.some(({ newer }) => newer === 'cp2')
    }
    expect([99, 100, 101, undefined].map(newerAt)).toEqual([false, true, true, true])
  })
})

describe('measurements', () => {
  it('give the dirty bytes', () => {
    expect(planMeasured({})).toMatchObject({ mode: 'incremental', libvirt: 'accept', dirtyBytes: 65536 })
    expect(JSON.stringify(planToJson(planBackup(facts, { incremental: 'cp1' })))).not.toContain('dirty-bytes')
  })

  it('force a full backup that libvirt would not when a newer bitmap has more', () => {
    const violations = [
      { checkpoint: 'cp2', layer: 0, filename: S1, missingBytes: 4096, firstOffset: 1048576 },
    ]
    const plan = planMeasured({ violations })
    expect(plan).toMatchObject({ mode: 'full', libvirt: 'accept', dirtyBytes: 65536 })
    expect(plan.reasons[0]).toMatchObject({
      code: 'bitmap-subset-violated',
      evidence: {
        layer: 0,
        filename: S1,
        bitmap: 'cp1',
        newer: 'cp2',
        missingBytes: 4096,
        firstOffset: 1048576,
      },
    })
    expect(plan.reasons[0]!.message).toContain('0x100000')
  })

  it('say once for each layer that the bitmap lacks something, by the nearest newer one', () => {
    const missing = { layer: 0, filename: S1, missingBytes: 4096, firstOffset: 0 }
    const violations = [
      { ...missing, checkpoint: 'cp2' },
      { ...missing, checkpoint: 'cp3' },
      { ...missing, checkpoint: 'cp2', layer: 1, filename: A },
    ]
    const said = planMeasured({ violations }).reasons.filter(({ code }) => code === 'bitmap-subset-violated')
    expect(said.map(({ evidence }) => evidence)).toMatchObject([
      { layer: 0, newer: 'cp2' },
      { layer: 1, newer: 'cp2' },
    ])
  })

  it('reject a body that QEMU would not load, and leave libvirt its opinion of one that it would', () => {
    const error = { layer: 1, filename: A, bitmap: 'cp2', message: 'table entry 3 is misaligned' }
    const broken = planMeasured({ dirtyBytes: undefined, errors: [error] })
    expect(broken).toMatchObject({ mode: 'full', libvirt: 'reject', merge: [], dirtyBytes: undefined })
    expect(broken.reasons[0]).toMatchObject({ code: 'bitmap-corrupt', evidence: { layer: 1, bitmap: 'cp2' } })
    const read = planMeasured({ errors: [{ ...error, qemuLoads: true }] })
    expect(read).toMatchObject({ mode: 'full', libvirt: 'accept' })
  })

  it('of a disk in use are not believed', () => {
    const inUse = simpleFacts([layer(A, ['cp1'], { locked: true })])
    const measurements = new Map([['vda', { dirtyBytes: 1, violations: [], errors: [] }]])
    expect(planBackup(inUse, { incremental: 'cp1', measurements }).disks[0]!.dirtyBytes).toBeUndefined()
  })
})

describe('next best', () => {
  const at = (name: string, parent: string | undefined, disks: readonly string[]) =>
    checkpoint(name, { parent, domain: domain(disks.map(target => disk(target, `/${target}`))) })
  const two = (bitmaps: Readonly<Record<string, readonly string[]>>): BackupFacts => ({
    domain: domain([disk('vda', '/vda'), disk('vdb', '/vdb')]),
    checkpoints: [at('cp1', undefined, ['vda']), at('cp2', 'cp1', ['vda']), at('cp3', 'cp2', ['vda', 'vdb'])],
    chains: new Map(Object.entries(bitmaps).map(([target, names]) => [target, [layer(`/${target}`, names)]])),
  })

  it('is the nearest newer one when a disk came later', () => {
    const plan = planBackup(two({ vda: ['cp1', 'cp2', 'cp3'], vdb: ['cp3'] }), { incremental: 'cp1' })
    expect(plan.nextBest).toEqual({
      ...{ checkpoint: 'cp3', relation: 'newer', distance: 2 },
      ...{ disks: ['vda', 'vdb'], everyDisk: true, dirtyBytes: undefined },
    })
    expect(planToJson(plan)).toMatchObject({ 'next-best': { checkpoint: 'cp3', 'every-disk': true } })
  })

  it('is an older one first', () => {
    const plan = planBackup(two({ vda: ['cp1', 'cp3'], vdb: [] }), { incremental: 'cp2' })
    expect(plan.nextBest).toEqual({
      ...{ checkpoint: 'cp1', relation: 'older', distance: 1 },
      ...{ disks: ['vda'], everyDisk: false, dirtyBytes: undefined },
    })
  })

  it('is one from which every disk is, before a nearer one from which only more are', () => {
    const four: BackupFacts = {
      ...two({ vda: ['cp1', 'cp2', 'cp4'], vdb: ['cp4'] }),
      checkpoints: [
        at('cp1', undefined, ['vda', 'vdb']),
        at('cp2', 'cp1', ['vda', 'vdb']),
        at('cp3', 'cp2', ['vda', 'vdb']),
        at('cp4', 'cp3', ['vda', 'vdb']),
      ],
    }
    expect(planBackup(four, { incremental: 'cp3' }).nextBest).toMatchObject({
      checkpoint: 'cp4',
      relation: 'newer',
    })
    expect(planBackup(four, { incremental: 'cp3', disks: ['vda'] }).nextBest).toMatchObject({
      checkpoint: 'cp2',
    })
  })

  it('is found though a disk cannot be told, and does without one whose bodies are wrong', () => {
    const facts = two({ vda: ['cp1', 'cp3'], vdb: ['cp3'] })
    const unread = { ...facts, chains: new Map([...facts.chains].filter(([target]) => target === 'vda')) }
    expect(planBackup(unread, { incremental: 'cp2' }).nextBest).toMatchObject({
      checkpoint: 'cp1',
      disks: ['vda'],
    })
    const measurement = { dirtyBytes: 4096, violations: [], errors: [] }
    const violated = { checkpoint: 'cp3', layer: 0, filename: '/vda', missingBytes: 1, firstOffset: 0 }
    const otherMeasurements = new Map([
      ['cp1', new Map([['vda', { ...measurement, violations: [violated] }]])],
      [
        'cp3',
        new Map([
          ['vda', measurement],
          ['vdb', measurement],
        ]),
      ],
    ])
    const disks = ['vda']
    expect(planBackup(facts, { incremental: 'cp2', disks, otherMeasurements }).nextBest).toMatchObject({
      ...{ checkpoint: 'cp3', dirtyBytes: 4096 },
    })
  })

  it('is looked for among a year of daily checkpoints in no time, in either dialect', () => {
    const names = Array.from({ length: 400 }, (_, i) => `cp${i}`)
    for (const dialect of ['independent', 'chained'] as const) {
      const bitmaps = names
        .slice(1)
        .map((name, i) => bitmap(name, { recording: dialect === 'independent' || i === 398 }))
      const facts: BackupFacts = {
        domain: domain([disk('vda', '/vda'), disk('vdb', '/vdb')]),
        checkpoints: names.map((name, i) => at(name, names[i - 1], ['vda', 'vdb'])),
        chains: new Map([
          ['vda', [layer('/vda', bitmaps)]],
          ['vdb', [layer('/vdb', bitmaps.slice(350))]],
        ]),
      }
      const plan = planBackup(facts, { incremental: 'cp0' })
      // 0.4 s alone; a cube of 400 would take minutes.
      expect(plan).toMatchObject({
        dialect,
        nextBest: { checkpoint: 'cp351', distance: 351, everyDisk: true },
      })
    }
  })

  it('is not there when nothing is better or needed', () => {
    expect(planBackup(two({ vda: ['cp1'], vdb: [] }), { incremental: 'cp1' }).nextBest).toBeUndefined()
    expect(planBackup(two({ vda: ['cp3'], vdb: ['cp3'] }), { incremental: 'cp3' }).nextBest).toBeUndefined()
  })
})
