import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type CheckpointFacts,
  type DomainDisk,
  planBackup,
  planToBackupXml,
} from '../src/index.js'
import { checkpoint, disk, domain, layer } from './facts.js'

const A = '/images/a.qcow2'

/** The plan of the one disk now, whose image holds a sound cp1, with the checkpoint as given. */
function planWith(change: Partial<CheckpointFacts>, now: DomainDisk = disk('vda', A)) {
  const facts: BackupFacts = {
    domain: domain([now]),
    checkpoints: [checkpoint('cp1', change)],
    chains: new Map([[now.target, [layer(now.source ?? A, ['cp1'])]]]),
  }
  const { mode, libvirt, reasons } = planBackup(facts, { incremental: 'cp1' }).disks[0]!
  return { mode, libvirt, codes: reasons.map(({ code }) => code), reasons }
}

describe("the checkpoint's list of disks", () => {
  const then = domain([disk('vda', A), disk('vdb', '/images/b.qcow2')])

  it.each([
    ['checkpoint-no', [{ name: 'vda', checkpoint: 'no', bitmap: undefined }]],
    ['checkpoint-no', [{ name: A, checkpoint: 'no', bitmap: undefined }]],
    ['not-listed', [{ name: 'vdb', checkpoint: 'bitmap', bitmap: 'cp1' }]],
  ] as const)('excludes: %s', (why, disks) => {
    const { mode, libvirt, codes, reasons } = planWith({ disks, domain: then })
    expect([mode, libvirt, codes]).toEqual(['full', 'accept', ['disk-excluded']])
    expect(reasons[0]).toMatchObject({ evidence: { why } })
  })

  it('includes by target, by source path, or with no list at all', () => {
    for (const disks of [
      undefined,
      [{ name: 'vda', checkpoint: 'bitmap', bitmap: 'cp1' }],
      [{ name: A, checkpoint: 'bitmap', bitmap: undefined }],
    ] as const) {
      expect(planWith({ disks, domain: then })).toMatchObject({ mode: 'incremental', codes: [] })
    }
  })

  it('leaves a disk out that was read-only then', () => {
    const { mode, reasons } = planWith({ domain: domain([disk('vda', A, { readonly: true })]) })
    expect(mode).toBe('full')
    expect(reasons[0]).toMatchObject({ code: 'disk-excluded', evidence: { why: 'read-only' } })
  })

  it('is all there is without a <domain>', () => {
    expect(planWith({})).toMatchObject({ mode: 'incremental', codes: ['checkpoint-without-domain'] })
    const disks = [{ name: 'vdb', checkpoint: 'bitmap', bitmap: 'cp1' }] as const
    expect(planWith({ disks })).toMatchObject({
      mode: 'full',
      codes: ['disk-excluded', 'checkpoint-without-domain'],
    })
  })

  it('may record another bitmap: the one named after the checkpoint is used all the same', () => {
    const disks = [{ name: 'vda', checkpoint: 'bitmap', bitmap: 'mine' }] as const
    expect(planWith({ disks, domain: then })).toMatchObject({
      mode: 'incremental',
      codes: ['bitmap-name-differs'],
    })
  })
})

describe('the layer that was the top then', () => {
  const S1 = '/images/a.s1'
  const MID = '/images/mid'
  const over = (...files: string[]) =>
    files.map(source => ({ type: 'file', source, format: 'qcow2' }) as const)

  const planChain = (chain: readonly ReturnType<typeof layer>[], then?: ReturnType<typeof disk>) => {
    const facts: BackupFacts = {
      domain: domain([disk('vda', chain[0]!.filename)]),
      checkpoints: [checkpoint('cp1', then ? { domain: domain([then]) } : { domain: undefined })],
      chains: new Map([['vda', chain]]),
    }
    const { mode, libvirt, reasons } = planBackup(facts, { incremental: 'cp1' }).disks[0]!
    const causes = reasons.flatMap(each => (each.code === 'bitmap-missing' ? [each.evidence.cause] : []))
    return [mode, libvirt, ...causes]
  }

  it('has been committed into the one below it, bitmap and all', () => {
    const then = disk('vda', MID, { backingStore: over(A) })
    expect(planChain([layer(S1, ['cp1']), layer(A, ['cp1'])], then)).toEqual(['incremental', 'accept'])
    // A template below it never held the bitmap, and need not.
    const templated = disk('vda', MID, { backingStore: over(A, '/t') })
    expect(planChain([layer(A, ['cp1']), layer('/t', [])], templated)).toEqual(['incremental', 'accept'])
  })

  it('has gone, and the one below it lacks the bitmap: nobody knows where the changes are', () => {
    const then = disk('vda', MID, { backingStore: over(A) })
    expect(planChain([layer(S1, ['cp1']), layer(A, [])], then)).toEqual(['full', 'accept', 'top-then-gone'])
  })

  it('is not known without a <domain>', () => {
    expect(planChain([layer(S1, ['cp1']), layer(A, [])])).toEqual(['full', 'accept', 'top-then-unknown'])
    expect(planChain([layer(S1, ['cp1']), layer(A, ['cp1'])])).toEqual(['incremental', 'accept'])
    const raw = layer('/images/base.raw', [], { format: 'raw', compat: undefined })
    expect(planChain([layer(S1, ['cp1']), raw])).toEqual(['incremental', 'accept'])
  })
})

describe('disks that libvirt treats apart', () => {
  it('transient: no backup at all', () => {
    const facts: BackupFacts = {
      domain: domain([disk('vda', A, { transient: true })]),
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', A)]) })],
      chains: new Map([['vda', [layer(A, ['cp1'])]]]),
    }
    const plan = planBackup(facts, { incremental: 'cp1' })
    expect(plan.disks[0]).toMatchObject({
      mode: 'full',
      libvirt: 'reject',
      reasons: [{ code: 'disk-transient' }],
    })
    expect(planToBackupXml(plan, { mode: 'push', suffix: 's' })).toContain("<disk name='vda' backup='no'/>")
  })

  it('a part of a file: not readable by its path', () => {
    const facts: BackupFacts = {
      domain: domain([disk('vda', A, { sliced: true })]),
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', A)]) })],
      chains: new Map(),
    }
    expect(planBackup(facts, { incremental: 'cp1' }).disks[0]).toMatchObject({
      mode: 'unknown',
      reasons: [{ code: 'source-not-readable' }],
    })
  })

  it('under a block job: not known before that ends, and libvirt refuses', () => {
    const mirror = { job: 'copy', ready: undefined, type: 'file', source: '/new/a', format: 'qcow2' }
    expect(planWith({ domain: domain([disk('vda', A)]) }, disk('vda', A, { mirror }))).toMatchObject({
      ...{ mode: 'unknown', libvirt: 'reject', codes: ['disk-mirrored'] },
    })
  })

  it('shareable: others write to it, past its bitmaps', () => {
    expect(planWith({ domain: domain([disk('vda', A)]) }, disk('vda', A, { shareable: true }))).toMatchObject(
      {
        ...{ mode: 'full', libvirt: 'accept', codes: ['disk-shareable'] },
      },
    )
  })

  it('floppies are disks like others', () => {
    const facts: BackupFacts = {
      domain: domain([disk('fda', A, { device: 'floppy' })]),
      checkpoints: [checkpoint('cp1', { domain: domain([disk('fda', A, { device: 'floppy' })]) })],
      chains: new Map([['fda', [layer(A, ['cp1'])]]]),
    }
    expect(planBackup(facts, { incremental: 'cp1' }).disks).toMatchObject([
      { target: 'fda', mode: 'incremental' },
    ])
  })
})

describe('the disk of that time', () => {
  it('was not there', () => {
    const { mode, codes } = planWith({ domain: domain([disk('vdb', '/images/b.qcow2')]) })
    expect([mode, codes]).toEqual(['full', ['disk-not-in-checkpoint']])
  })

  it('was another at the same target', () => {
    const { mode, libvirt, codes, reasons } = planWith({ domain: domain([disk('vda', '/images/old.qcow2')]) })
    expect([mode, libvirt, codes]).toEqual(['full', 'accept', ['disk-source-changed']])
    expect(reasons[0]).toMatchObject({ evidence: { filesThen: ['/images/old.qcow2'], filesNow: [A] } })
  })

  it('was an empty drive', () => {
    expect(planWith({ domain: domain([disk('vda', undefined)]) }).codes).toEqual(['disk-source-changed'])
  })

  it('was the same under another target, whose entry then counts', () => {
    const then = domain([disk('vdc', A), disk('vda', '/images/other.qcow2')])
    const disks = [{ name: 'vdc', checkpoint: 'bitmap', bitmap: 'cp1' }] as const
    expect(planWith({ disks, domain: then })).toMatchObject({
      mode: 'incremental',
      codes: ['disk-target-changed'],
    })
    const no = [{ name: 'vdc', checkpoint: 'no', bitmap: undefined }] as const
    expect(planWith({ disks: no, domain: then })).toMatchObject({
      mode: 'full',
      codes: ['disk-excluded', 'disk-target-changed'],
    })
  })

  it('was the overlay that has been committed into this one', () => {
    const then = disk('vda', '/images/a.s1', { backingStore: [{ type: 'file', source: A, format: 'qcow2' }] })
    expect(planWith({ domain: domain([then]) })).toMatchObject({ mode: 'incremental', codes: [] })
  })

  it('is not another disk that shares its template', () => {
    const base = { type: 'file', source: '/images/template.qcow2', format: 'qcow2' }
    const facts: BackupFacts = {
      domain: domain([disk('vdb', '/images/b.qcow2')]),
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', A, { backingStore: [base] })]) })],
      chains: new Map([['vdb', [layer('/images/b.qcow2', []), layer('/images/template.qcow2', [])]]]),
    }
    const { reasons } = planBackup(facts, { incremental: 'cp1' }).disks[0]!
    expect(reasons.map(({ code, severity }) => [code, severity])).toEqual([
      ['disk-not-in-checkpoint', 'blocks'],
      ['bitmap-missing', 'note'],
    ])
  })

  it('is found by each of two disks that swapped their targets over one template', () => {
    const base = { type: 'file', source: '/images/template.qcow2', format: 'qcow2' }
    const swapped = (target: string, source: string) => disk(target, source, { backingStore: [base] })
    const facts: BackupFacts = {
      domain: domain([swapped('vda', '/images/b'), swapped('vdb', '/images/a')]),
      checkpoints: [
        checkpoint('cp1', { domain: domain([swapped('vda', '/images/a'), swapped('vdb', '/images/b')]) }),
      ],
      chains: new Map([
        ['vda', [layer('/images/b', ['cp1']), layer('/images/template.qcow2', [])]],
        ['vdb', [layer('/images/a', ['cp1']), layer('/images/template.qcow2', [])]],
      ]),
    }
    for (const { mode, reasons } of planBackup(facts, { incremental: 'cp1' }).disks) {
      expect([mode, reasons.map(({ code }) => code)]).toEqual(['incremental', ['disk-target-changed']])
    }
  })

  it('is compared by the names before mapping, spelled as one likes', () => {
    const facts: BackupFacts = {
      domain: domain([disk('vda', '/var/lib//images/./a.qcow2')]),
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', '/var/lib/images/a.qcow2')]) })],
      chains: new Map([
        ['vda', [layer('/mnt/copy/a.qcow2', ['cp1'], { namedAs: '/var/lib//images/./a.qcow2' })]],
      ]),
    }
    expect(planBackup(facts, { incremental: 'cp1' }).disks[0]).toMatchObject({
      mode: 'incremental',
      reasons: [],
    })
  })
})

describe('a file under another name', () => {
  const then = domain([disk('vda', '/links/current')])
  const facts = (fileIds?: ReadonlyMap<string, string>): BackupFacts => ({
    domain: domain([disk('vda', A)]),
    checkpoints: [checkpoint('cp1', { domain: then })],
    chains: new Map([['vda', [layer(A, ['cp1'], { fileId: 'f1' })]]]),
    ...(fileIds === undefined ? {} : { fileIds }),
  })
  const codes = (given: BackupFacts) =>
    planBackup(given, { incremental: 'cp1' }).disks[0]!.reasons.map(({ code }) => code)

  it('is known for the same one by what is under both names now', () => {
    expect(codes(facts(new Map([['/links/current', 'f1']])))).toEqual(['disk-path-changed'])
  })

  it('is another disk where another file, or none, is under the old name', () => {
    expect(codes(facts(new Map([['/links/current', 'f2']])))).toEqual(['disk-source-changed'])
    expect(codes(facts())).toEqual(['disk-source-changed'])
  })
})

describe('a broken tree', () => {
  const then = domain([disk('vda', A)])
  const plan = (checkpoints: readonly CheckpointFacts[]) =>
    planBackup(
      { domain: then, checkpoints, chains: new Map([['vda', [layer(A, ['cp1'])]]]) },
      { incremental: 'cp1' },
    ).disks[0]!

  it.each([
    ['checkpoint-parent-missing', [checkpoint('cp1', { parent: 'cp0', domain: then })]],
    [
      'checkpoint-cycle',
      [
        checkpoint('cp1', { parent: 'cp2', domain: then }),
        checkpoint('cp2', { parent: 'cp1', domain: then }),
      ],
    ],
    [
      'checkpoint-branched',
      [
        checkpoint('cp1', { domain: then }),
        checkpoint('x', { parent: 'cp1' }),
        checkpoint('y', { parent: 'cp1' }),
      ],
    ],
    ['checkpoint-duplicate', [checkpoint('cp1', { domain: then }), checkpoint('cp1')]],
  ])('%s is a note and changes nothing', (code, checkpoints) => {
    const { mode, libvirt, reasons } = plan(checkpoints)
    expect([mode, libvirt]).toEqual(['incremental', 'accept'])
    expect(reasons).toMatchObject([{ code, severity: 'note' }])
  })

  it('elsewhere in the forest is not mentioned', () => {
    const { reasons } = plan([checkpoint('cp1', { domain: then }), checkpoint('far', { parent: 'gone' })])
    expect(reasons).toEqual([])
  })
})

describe('a chain that cannot be read to its end', () => {
  it('is not called another disk: the file in common may be below', () => {
    const problem = { code: 'image-missing', message: 'ENOENT' } as const
    const facts: BackupFacts = {
      domain: domain([disk('vda', '/images/s2')]),
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', A)]) })],
      chains: new Map([['vda', [layer('/images/s2', ['cp1']), layer('/images/s1', [], { problem })]]]),
    }
    const { mode, reasons } = planBackup(facts, { incremental: 'cp1' }).disks[0]!
    expect([mode, reasons.map(({ code }) => code)]).toEqual(['full', ['image-missing']])
  })
})
