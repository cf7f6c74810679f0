import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type BackupRequest,
  type BitmapFacts,
  bodyQueries,
  planBackup,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer, MiB } from './facts.js'

const on = (name: string): BitmapFacts => bitmap(name)
const off = (name: string, change: Partial<BitmapFacts> = {}): BitmapFacts =>
  bitmap(name, { recording: false, ...change })

type Bitmaps = Readonly<Record<string, readonly BitmapFacts[]>>
const checkpointsOf = (names: readonly string[], disks: readonly string[]) =>
  names.map((name, i) =>
    checkpoint(name, {
      parent: names[i - 1],
      creationTime: 1000 + i,
      domain: domain(disks.map(target => disk(target, `/${target}`))),
    }),
  )

/** Disks of one image each, and checkpoints cp1 … cpN in a line. */
function facts(bitmaps: Bitmaps, count: number, change: Partial<BackupFacts> = {}): BackupFacts {
  const targets = Object.keys(bitmaps)
  const names = Array.from({ length: count }, (_, i) => `cp${i + 1}`)
  return {
    domain: domain(targets.map(target => disk(target, `/${target}`))),
    checkpoints: checkpointsOf(names, targets),
    chains: new Map(targets.map(target => [target, [layer(`/${target}`, bitmaps[target]!)]])),
    ...change,
  }
}

/** Target → mode, libvirt, bitmaps to unite, grave codes. */
function verdicts(given: BackupFacts, incremental: string, request: Partial<BackupRequest> = {}) {
  const { disks } = planBackup(given, { incremental, ...request })
  return Object.fromEntries(
    disks.map(({ target, mode, libvirt, merge, reasons }) => [
      target,
      [
        mode,
        libvirt,
        merge.map(({ layer, bitmap }) => `${layer}:${bitmap}`).join(' '),
        ...reasons.filter(({ severity }) => severity !== 'note').map(({ code }) => code),
      ],
    ]),
  )
}

const found = (given: BackupFacts, request: Partial<BackupRequest> = {}) => {
  const { dialect, dialectEvidence } = planBackup(given, { incremental: 'cp1', ...request })
  return [dialect, dialectEvidence.source, dialectEvidence.pattern]
}

describe('the dialect found', () => {
  const chained = [off('cp1'), off('cp2'), on('cp3')]
  const healthy = [on('cp1'), on('cp2'), on('cp3')]

  it.each([
    ['independent', 'none', { vda: [] }],
    ['independent', 'none', { vda: [off('cp1')] }],
    ['independent', 'independent', { vda: healthy }],
    ['chained', 'chained', { vda: chained }],
    ['chained', 'chained', { vda: chained, vdb: [on('cp3')], vdc: [] }],
    // The last checkpoint left vdb out: its own newest goes on recording.
    ['chained', 'chained', { vda: chained, vdb: [off('cp1'), on('cp2')] }],
    // Disabled by hand on one disk, beside one on which it records.
    ['independent', 'independent', { vda: chained, vdb: healthy }],
    ['independent', 'independent', { vda: [off('cp1'), on('cp2'), on('cp3')], vdb: healthy }],
    ['chained', 'mixed', { vda: [off('cp1'), on('cp2'), on('cp3')] }],
    ['chained', 'mixed', { vda: [off('cp1'), on('cp2'), on('cp3')], vdb: [on('cp2'), on('cp3')] }],
    ['independent', 'irregular', { vda: [on('cp1'), off('cp2'), on('cp3')] }],
    ['independent', 'irregular', { vda: [off('cp1'), off('cp2'), off('cp3')] }],
    ['independent', 'irregular', { vda: [on('cp1'), off('cp2'), off('cp3')] }],
    ['independent', 'irregular', { vda: chained, vdb: [off('cp1'), on('cp2'), on('cp3')] }],
  ] as const)('%s (%s): %j', (dialect, pattern, bitmaps) => {
    expect(found(facts(bitmaps as Bitmaps, 3))).toEqual([dialect, 'found', pattern])
  })

  it('looks at disks that were not asked for, and at none that cannot be backed up', () => {
    expect(found(facts({ vda: chained, vdb: healthy }, 3), { disks: ['vda'] })).toEqual([
      ...['independent', 'found', 'independent'],
    ])
    const given = facts({ vda: chained, vdb: healthy }, 3)
    const readonly = given.domain.disks.map(each => ({ ...each, readonly: each.target === 'vdb' }))
    expect(found({ ...given, domain: domain(readonly) })).toEqual(['chained', 'found', 'chained'])
  })

  it('is looked for below an overlay that took over only what records', () => {
    const given = facts({ vda: [] }, 3, {
      chains: new Map([['vda', [layer('/s1', [on('cp3')]), layer('/vda', chained)]]]),
    })
    expect(found(given)).toEqual(['chained', 'found', 'chained'])
    const [only] = planBackup(given, { incremental: 'cp1' }).dialectEvidence.disks
    expect(only).toEqual({
      ...{ target: 'vda', layer: 1, filename: '/vda', pattern: 'chained' },
      ...{ recording: 1, disabled: 2, newest: 'cp3' },
    })
  })

  it('goes by time where the tree is broken, and by nothing where that is not known either', () => {
    const broken = (times: readonly (number | undefined)[]) => {
      const given = facts({ vda: chained }, 3)
      const checkpoints = given.checkpoints.map((each, i) => ({
        ...each,
        parent: 'gone',
        creationTime: times[i],
      }))
      return found({ ...given, checkpoints })
    }
    expect(broken([1, 2, 3])).toEqual(['chained', 'found', 'chained'])
    expect(broken([1, 3, 2])).toEqual(['independent', 'found', 'irregular'])
    expect(broken([1, undefined, 3])).toEqual(['independent', 'found', 'irregular'])
    expect(broken([1, 3, 3])).toEqual(['independent', 'found', 'irregular'])
  })

  it('is the one told, and what the flags say is told besides', () => {
    const given = facts({ vda: chained }, 3)
    expect(found(given, { dialect: 'independent' })).toEqual(['independent', 'told', 'chained'])
    expect(verdicts(given, 'cp1', { dialect: 'independent' })).toEqual({
      vda: ['full', 'reject', '', 'bitmap-disabled'],
    })
    expect(
      planBackup(given, { incremental: 'cp1', dialect: 'independent' }).dialectEvidence.message,
    ).toContain('though by the flags it is chained')
  })
})

describe('the chained dialect', () => {
  const line = [off('cp1'), off('cp2'), on('cp3')]

  it('unites all later bitmaps, the asked one first; libvirt refuses, and a note says why', () => {
    const given = facts({ vda: line }, 3)
    expect(verdicts(given, 'cp1')).toEqual({ vda: ['incremental', 'reject', '0:cp1 0:cp2 0:cp3'] })
    expect(verdicts(given, 'cp2')).toEqual({ vda: ['incremental', 'reject', '0:cp2 0:cp3'] })
    expect(verdicts(given, 'cp3')).toEqual({ vda: ['incremental', 'accept', '0:cp3'] })
    expect(planBackup(given, { incremental: 'cp1' }).disks[0]!.reasons).toMatchObject([
      { code: 'dialect-chained', severity: 'note', evidence: { bitmaps: ['cp1', 'cp2', 'cp3'] } },
    ])
    expect(planBackup(given, { incremental: 'cp3' }).disks[0]!.reasons).toEqual([])
  })

  it.each([
    ['bitmap-missing', [off('cp1'), on('cp3')]],
    ['bitmap-inconsistent', [off('cp1'), off('cp2', { inconsistent: true }), on('cp3')]],
    ['bitmap-corrupt', [off('cp1'), off('cp2', { corrupt: 'type 7' }), on('cp3')]],
    ['bitmap-corrupt', [off('cp1'), off('cp2', { corrupt: 'past the end', qemuLoads: true }), on('cp3')]],
  ])('is full for %s of a later bitmap, and names it', (code, bitmaps) => {
    const given = facts({ vda: bitmaps }, 3)
    expect(verdicts(given, 'cp1', { dialect: 'chained' })).toEqual({ vda: ['full', 'reject', '', code] })
    const [reason] = planBackup(given, { incremental: 'cp1', dialect: 'chained' }).disks[0]!.reasons
    expect(reason).toMatchObject({ evidence: { bitmap: 'cp2' } })
    // From there on all is well.
    expect(verdicts(given, 'cp3', { dialect: 'chained' }).vda![0]).toBe(
      code === 'bitmap-corrupt' && !bitmaps[1]!.qemuLoads ? 'full' : 'incremental',
    )
  })

  it('is full where the last bitmap records no more, or is stale', () => {
    const given = facts({ vda: [off('cp1'), off('cp2')] }, 2)
    expect(verdicts(given, 'cp1', { dialect: 'chained' })).toEqual({
      vda: ['full', 'reject', '', 'bitmap-disabled'],
    })
    const stale = facts({ vda: [] }, 3, {
      chains: new Map([['vda', [layer('/vda', line, { bitmapsStale: true })]]]),
    })
    expect(verdicts(stale, 'cp1', { dialect: 'chained' })).toEqual({
      vda: ['full', 'reject', '', 'bitmaps-stale'],
    })
  })

  it('skips a checkpoint that left the disk out, and does not believe a bitmap that should not be there', () => {
    const given = facts({ vda: [off('cp1'), on('cp3')] }, 3)
    const without = given.checkpoints.map(each =>
      each.name === 'cp2'
        ? { ...each, disks: [{ name: 'vda', checkpoint: 'no', bitmap: undefined }] as const }
        : each,
    )
    const skipped = { ...given, checkpoints: without }
    expect(verdicts(skipped, 'cp1')).toEqual({ vda: ['incremental', 'reject', '0:cp1 0:cp3'] })
    const odd = { ...skipped, chains: new Map([['vda', [layer('/vda', line)]]]) }
    expect(verdicts(odd, 'cp1')).toEqual({ vda: ['full', 'reject', '', 'disk-excluded'] })
  })

  it.each([
    ['checkpoint-branched', { cp3: 'cp1' }, 'cp1'],
    ['checkpoint-parent-missing', { cp3: 'gone' }, 'cp1'],
    ['checkpoint-cycle', { cp1: 'cp3' }, 'cp1'],
    ['checkpoint-branched', { cp2: undefined }, 'cp1'],
    // Beside the asked one, where nothing comes after it.
    ['checkpoint-parent-missing', { cp2: 'gone' }, 'cp1'],
  ])('is full where what came later is open: %s %j', (code, parents, asked) => {
    const given = facts({ vda: line }, 3)
    const checkpoints = given.checkpoints.map(each => ({
      ...each,
      parent: each.name in parents ? (parents as Record<string, string | undefined>)[each.name] : each.parent,
    }))
    const plan = planBackup({ ...given, checkpoints }, { incremental: asked, dialect: 'chained' }).disks[0]!
    expect([plan.mode, plan.reasons[0]!.code, plan.reasons[0]!.severity]).toEqual(['full', code, 'blocks'])
    // A note, where each bitmap is enough.
    const records = {
      ...given,
      checkpoints,
      chains: new Map([['vda', [layer('/vda', [on('cp1'), on('cp2'), on('cp3')])]]]),
    }
    expect(verdicts(records, asked).vda!.slice(0, 2)).toEqual(['incremental', 'accept'])
  })

  it('skips no checkpoint of other files where its own are not known: the disk may have been copied since', () => {
    const three = facts({ vda: [off('cp1'), on('cp3')] }, 3)
    const [cp1, cp2, cp3] = three.checkpoints
    const elsewhere = { ...cp2!, domain: domain([disk('vda', '/other')]) }
    const away = { ...three, checkpoints: [cp1!, elsewhere, cp3!] }
    expect(verdicts(away, 'cp1').vda!.slice(0, 3)).toEqual(['incremental', 'reject', '0:cp1 0:cp3'])
    const rebuilt = { ...three, checkpoints: [{ ...cp1!, domain: undefined }, elsewhere, cp3!] }
    expect(verdicts(rebuilt, 'cp1').vda).toEqual(['full', 'reject', '', 'disk-source-changed'])
  })

  it('does not mind what was before the asked checkpoint', () => {
    const given = facts({ vda: line }, 3)
    const checkpoints = given.checkpoints.map(each =>
      each.name === 'cp1' ? { ...each, parent: 'cp0' } : each,
    )
    expect(verdicts({ ...given, checkpoints }, 'cp2')).toEqual({
      vda: ['incremental', 'reject', '0:cp2 0:cp3'],
    })
  })

  it('cannot be told while the domain runs', () => {
    const given = facts({ vda: [] }, 3, {
      chains: new Map([['vda', [layer('/vda', line, { locked: true })]]]),
    })
    expect(verdicts(given, 'cp1')).toEqual({ vda: ['unknown', 'unknown', '', 'image-in-use'] })
  })

  it('measures the union, and compares only what recorded together', () => {
    const given = facts({ vda: line }, 3)
    expect(bodyQueries(given, planBackup(given, { incremental: 'cp1' }))).toMatchObject([
      { union: [{ bitmap: 'cp1' }, { bitmap: 'cp2' }, { bitmap: 'cp3' }], subsets: [] },
    ])
    const mixed = facts({ vda: [off('cp1'), on('cp2'), on('cp3')] }, 3)
    expect(bodyQueries(mixed, planBackup(mixed, { incremental: 'cp1' }))).toMatchObject([
      { union: [{ bitmap: 'cp1' }, { bitmap: 'cp2' }], subsets: [{ older: 'cp2', newer: 'cp3' }] },
    ])
  })
})

describe('the chained dialect over external snapshots', () => {
  const record = (...files: readonly string[]) =>
    domain([
      disk('vda', files[0], {
        backingStore: files.slice(1).map(source => ({ type: 'file', source, format: 'qcow2' })),
      }),
    ])
  /** cp1 in base; s1 put on it; cp2 in s1; s2 put on that; cp3 in s2. */
  const given = (
    layers: readonly (readonly BitmapFacts[])[],
    sizes: readonly number[] = [],
  ): BackupFacts => ({
    domain: domain([disk('vda', '/s2')]),
    checkpoints: [
      checkpoint('cp1', { domain: record('/base') }),
      checkpoint('cp2', { parent: 'cp1', domain: record('/s1', '/base') }),
      checkpoint('cp3', { parent: 'cp2', domain: record('/s2', '/s1', '/base') }),
    ],
    chains: new Map([
      [
        'vda',
        ['/s2', '/s1', '/base'].map((file, i) => layer(file, layers[i]!, { virtualSize: sizes[i] ?? MiB })),
      ],
    ]),
  })
  const sound = [[off('cp2'), on('cp3')], [off('cp1'), on('cp2')], [on('cp1')]]

  it('unites each checkpoint over the layers that were the top until the next', () => {
    expect(verdicts(given(sound), 'cp1')).toEqual({
      vda: ['incremental', 'reject', '0:cp2 0:cp3 1:cp1 1:cp2 2:cp1'],
    })
    expect(verdicts(given(sound), 'cp2')).toEqual({ vda: ['incremental', 'reject', '0:cp2 0:cp3 1:cp2'] })
  })

  it.each([
    ['bitmap-missing', [sound[0]!, [on('cp2')], sound[2]!], 'cp1', 1],
    ['bitmap-missing', [[on('cp3')], sound[1]!, sound[2]!], 'cp2', 0],
    ['bitmap-missing', [sound[0]!, sound[1]!, []], 'cp1', 2],
    ['bitmap-disabled', [sound[0]!, sound[1]!, [off('cp1')]], 'cp1', 2],
    ['bitmap-disabled', [sound[0]!, [off('cp1'), off('cp2')], sound[2]!], 'cp2', 1],
    ['bitmap-disabled', [[off('cp2'), off('cp3')], sound[1]!, sound[2]!], 'cp3', 0],
    ['bitmap-gap', [[off('cp1'), off('cp2'), on('cp3')], [on('cp2')], sound[2]!], 'cp1', 1],
  ] as const)('is full for %s in a layer of its span', (code, layers, broken, where) => {
    const plan = planBackup(given(layers), { incremental: 'cp1', dialect: 'chained' }).disks[0]!
    expect([plan.mode, plan.reasons[0]]).toMatchObject([
      'full',
      { code, severity: 'blocks', evidence: { bitmap: broken, layer: where } },
    ])
  })

  it('is full for layers of unequal size, and where the disk went back', () => {
    expect(verdicts(given(sound, [2 * MiB]), 'cp1')).toEqual({
      vda: ['full', 'reject', '', 'layer-size-differs'],
    })
    const back = given([[off('cp1'), on('cp2'), on('cp3')], sound[1]!, sound[2]!])
    const checkpoints = [
      checkpoint('cp1', { domain: record('/s1', '/base') }),
      checkpoint('cp2', { parent: 'cp1', domain: record('/base') }),
    ]
    expect(verdicts({ ...back, checkpoints }, 'cp1', { dialect: 'chained' }).vda).toContain(
      'layer-order-changed',
    )
  })
})

describe('an upgraded host', () => {
  const given = facts({ vda: [off('cp1'), off('cp2'), on('cp3'), on('cp4')] }, 4)

  it('is planned up to the first bitmap that records, with a reason of its own', () => {
    expect(verdicts(given, 'cp1')).toEqual({ vda: ['incremental', 'reject', '0:cp1 0:cp2 0:cp3'] })
    expect(verdicts(given, 'cp3')).toEqual({ vda: ['incremental', 'accept', '0:cp3'] })
    expect(planBackup(given, { incremental: 'cp1' }).disks[0]!.reasons[0]).toMatchObject({
      ...{ code: 'dialect-mixed', severity: 'note' },
    })
  })

  it('does not need the newer ones', () => {
    const lost = facts({ vda: [off('cp1'), off('cp2'), on('cp3'), on('cp4')] }, 5)
    expect(verdicts(lost, 'cp1').vda![0]).toBe('incremental')
  })

  it('is full where somebody disabled one more', () => {
    const irregular = facts({ vda: [off('cp1'), on('cp2'), off('cp3'), on('cp4')] }, 4)
    expect(verdicts(irregular, 'cp1')).toEqual({ vda: ['full', 'reject', '', 'bitmap-disabled'] })
    expect(verdicts(irregular, 'cp2')).toEqual({ vda: ['incremental', 'accept', '0:cp2'] })
  })

  it('is full where the order is open', () => {
    const checkpoints = given.checkpoints.map(each =>
      each.name === 'cp3' ? { ...each, parent: 'gone' } : each,
    )
    expect(verdicts({ ...given, checkpoints }, 'cp1')).toEqual({
      vda: ['full', 'reject', '', 'checkpoint-parent-missing'],
    })
  })
})
