/** Facts under which an incremental backup would lack changes though each image looks sound by itself. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type BackupRequest,
  type BitmapFacts,
  type CheckpointFacts,
  type LayerFacts,
  planBackup,
  planToBackupXml,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer } from './facts.js'

const A = '/images/a.qcow2'
const over = (...files: string[]) => files.map(source => ({ type: 'file', source, format: 'qcow2' }) as const)
const off = (name: string): BitmapFacts => bitmap(name, { recording: false })
const raw = (name: string): LayerFacts => layer(name, [], { format: 'raw', compat: undefined })

/** The plan of vda, by its mode, libvirt's verdict and its codes; notes in brackets. */
function verdict(facts: BackupFacts, request: Partial<BackupRequest> = {}): readonly string[] {
  const { mode, libvirt, reasons } = planBackup(facts, { incremental: 'cp1', ...request }).disks[0]!
  return [mode, libvirt, ...reasons.map(({ code, severity }) => (severity === 'note' ? `(${code})` : code))]
}

/** vda with a chain, and checkpoints as given. */
function facts(chain: readonly LayerFacts[], checkpoints: readonly CheckpointFacts[]): BackupFacts {
  const [{ filename: top }, ...below] = chain as [LayerFacts, ...LayerFacts[]]
  const vda = disk('vda', top, { backingStore: over(...below.map(({ filename }) => filename)) })
  return { domain: domain([vda]), checkpoints, chains: new Map([['vda', chain]]) }
}

const vdaThen = (...files: readonly [string, ...string[]]) =>
  domain([disk('vda', files[0], { backingStore: over(...files.slice(1)) })])

describe('a raw image below', () => {
  it('cannot have taken the bitmap of the layer that was committed into it', () => {
    const committed = facts(
      [layer('/images/top', ['cp1']), raw('/images/base')],
      [checkpoint('cp1', { domain: vdaThen('/images/mid', '/images/base') })],
    )
    expect(verdict(committed)).toEqual(['full', 'accept', 'bitmap-missing'])
  })

  it('does not make another disk the same one', () => {
    const other = facts(
      [layer('/images/b', ['cp1']), raw('/images/template')],
      [checkpoint('cp1', { domain: vdaThen('/images/a', '/images/template') })],
    )
    expect(verdict(other)).toEqual(['full', 'accept', 'bitmap-missing'])
  })

  it('needs no bitmap where the top of that time is still there', () => {
    const sound = facts(
      [layer('/images/top', ['cp1']), layer('/images/mid', ['cp1']), raw('/images/base')],
      [checkpoint('cp1', { domain: vdaThen('/images/mid', '/images/base') })],
    )
    expect(verdict(sound)).toEqual(['incremental', 'accept'])
  })
})

describe('a chained history whose metadata lacks a checkpoint', () => {
  const known = [
    checkpoint('cp1', { domain: vdaThen(A) }),
    checkpoint('cp3', { parent: 'cp1', domain: vdaThen(A) }),
  ]
  const dialect = 'chained'

  it.each([
    ['disabled', off('cp2')],
    ['recording, since a script went by the metadata', bitmap('cp2')],
  ])('is full: its writes are in its own bitmap alone (%s)', (_, lost) => {
    const given = facts([layer(A, [off('cp1'), lost, 'cp3'])], known)
    expect(verdict(given, { dialect })).toEqual(['full', 'reject', 'bitmap-unaccounted'])
    expect(planBackup(given, { incremental: 'cp1', dialect }).disks[0]!.reasons[0]).toMatchObject({
      evidence: { layer: 0, checkpoint: 'cp1', bitmaps: ['cp2'] },
    })
    // What records until now needs no other.
    expect(verdict(given, { dialect, incremental: 'cp3' })).toEqual(['incremental', 'accept'])
  })

  it('is found from the flags too, and in a layer of the walk alone', () => {
    expect(verdict(facts([layer(A, [off('cp1'), off('cp2'), 'cp3'])], known))).toContain('bitmap-unaccounted')
    const chain = [
      layer('/s1', [off('cp1'), 'cp3']),
      layer(A, ['cp1', off('lost')]),
      layer('/t', [off('own')]),
    ]
    const records = [
      checkpoint('cp1', { domain: vdaThen(A, '/t') }),
      checkpoint('cp3', { parent: 'cp1', domain: vdaThen('/s1', A, '/t') }),
    ]
    expect(verdict(facts(chain, records), { dialect })).toContain('bitmap-unaccounted')
    const without = [chain[0]!, layer(A, ['cp1']), chain[2]!]
    expect(verdict(facts(without, records), { dialect })).toEqual([
      'incremental',
      'reject',
      '(dialect-chained)',
    ])
  })

  it('knows the bitmaps of all checkpoints that there are, also those before', () => {
    const all = ['cp0', 'cp1', 'cp2'].map((name, i) =>
      checkpoint(name, { parent: ['cp0', 'cp1'][i - 1], domain: vdaThen(A) }),
    )
    expect(verdict(facts([layer(A, [off('cp0'), off('cp1'), 'cp2'])], all))[0]).toBe('incremental')
  })
})

describe('metadata that libvirt leaves out', () => {
  const skipped = checkpoint('cp1', { domain: vdaThen(A), libvirtSkips: '<domaincheckpoint> holds <active>' })

  it('is a checkpoint that libvirt refuses, which a note says; its bitmaps are as good as any', () => {
    const given = facts([layer(A, ['cp1'])], [skipped])
    expect(verdict(given)).toEqual(['incremental', 'reject', '(checkpoint-not-loaded)'])
    const plan = planBackup(given, { incremental: 'cp1' })
    expect(plan.disks[0]!.merge).toHaveLength(1)
    const xml = planToBackupXml(plan, { mode: 'push', suffix: '1', targetDir: '/b' })
    expect(xml).toMatch(/^<!-- vda: full, since libvirt does not load the metadata of the checkpoint\. -->\n/)
    expect(xml).toMatch(/backupmode='full'/)
    expect(xml).not.toContain('incremental')
  })

  it('is refused also where the domain runs or the images cannot be seen', () => {
    expect(verdict(facts([layer(A, ['cp1'], { locked: true })], [skipped]))).toEqual([
      ...['unknown', 'reject', 'image-in-use', '(checkpoint-not-loaded)'],
    ])
    const unseen = { ...facts([layer(A, ['cp1'])], [skipped]), chains: new Map() }
    expect(verdict(unseen).slice(0, 2)).toEqual(['unknown', 'reject'])
  })

  it('does no harm where another file of that name is loaded', () => {
    const both = facts([layer(A, ['cp1'])], [skipped, checkpoint('cp1', { domain: vdaThen(A) })])
    expect(verdict(both)).toEqual(['incremental', 'accept', '(checkpoint-duplicate)'])
  })
})

describe('two files of one checkpoint', () => {
  const included = checkpoint('cp1', { domain: vdaThen('/s1', A) })
  const chain = [layer('/s1', ['cp1']), layer(A, [])]

  it.each([
    [
      'disk-excluded',
      { domain: vdaThen('/s1', A), disks: [{ name: 'vda', checkpoint: 'no', bitmap: undefined }] },
    ],
    ['disk-source-changed', { domain: vdaThen('/other') }],
    ['disk-not-in-checkpoint', { domain: domain([disk('vdz', '/z')]) }],
    ['bitmap-missing', { domain: vdaThen(A) }],
  ] as const)('allow nothing that one of them forbids: %s', (code, change) => {
    for (const checkpoints of [
      [included, checkpoint('cp1', change)],
      [checkpoint('cp1', change), included],
    ]) {
      expect(verdict(facts(chain, checkpoints)).slice(0, 3)).toEqual(['full', 'accept', code])
    }
  })

  it('are as good as one where they agree', () => {
    expect(verdict(facts(chain, [included, included]))).toEqual([
      ...['incremental', 'accept', '(checkpoint-duplicate)'],
    ])
  })
})

describe('a disk that was unplugged for a while', () => {
  const history = (...domains: readonly ReturnType<typeof domain>[]) =>
    domains.map((then, i) =>
      checkpoint(`cp${i + 1}`, { ...(i > 0 ? { parent: `cp${i}` } : {}), domain: then }),
    )
  const gone = domain([disk('vdz', '/z')])

  it('says so by the checkpoints between, though target and file are the same again', () => {
    const given = facts([layer(A, ['cp1', 'cp3'])], history(vdaThen(A), gone, vdaThen(A)))
    expect(verdict(given)).toEqual(['incremental', 'accept', '(disk-was-away)'])
    expect(verdict(given, { incremental: 'cp3' })).toEqual(['incremental', 'accept'])
  })

  it('is told by the nearest, of several branches too, and by none in a circle', () => {
    const names = (...pairs: readonly (readonly [string, string | undefined, boolean])[]) =>
      pairs.map(([name, parent, here]) => checkpoint(name, { parent, domain: here ? vdaThen(A) : gone }))
    const newer = (checkpoints: readonly CheckpointFacts[], incremental = 'cp1') =>
      planBackup(facts([layer(A, ['cp1', 'cp2'])], checkpoints), { incremental }).disks[0]!.reasons.find(
        ({ code }) => code === 'disk-was-away',
      )?.evidence
    const line = names(
      ['cp1', undefined, true],
      ['cp2', 'cp1', true],
      ['cp3', 'cp2', false],
      ['cp4', 'cp3', false],
    )
    expect(newer(line)).toEqual({ checkpoint: 'cp1', newer: 'cp3' })
    expect(newer(line.toReversed(), 'cp2')).toEqual({ checkpoint: 'cp2', newer: 'cp3' })
    const branch = names(['cp1', undefined, true], ['cp2', 'cp1', true], ['cp3', 'cp1', false])
    expect([newer(branch), newer(branch, 'cp2')]).toEqual([{ checkpoint: 'cp1', newer: 'cp3' }, undefined])
    expect(newer(names(['cp1', 'cp3', true], ['cp3', 'cp1', false]))).toBeUndefined()
  })

  it('is full since a checkpoint without it, whatever bitmap it has', () => {
    const given = facts([layer(A, ['cp1', 'cp2'])], history(vdaThen(A), gone))
    expect(verdict(given, { incremental: 'cp2' })).toEqual(['full', 'accept', 'disk-not-in-checkpoint'])
  })
})

describe('docs/planning.md', () => {
  it('has every reason code in its table, and no other', () => {
    const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8')
    const codes = [...read('../src/plan/reasons.ts').matchAll(/^ {2}'([a-z0-9-]+)':/gm)].map(
      ([, code]) => code!,
    )
    const table = /## Reasons\n\n([\s\S]*?)\n\n/.exec(read('../../../docs/planning.md'))![1]!
    const told = table
      .split('\n')
      .slice(2)
      .flatMap(row => [...row.split('|')[1]!.matchAll(/`([a-z0-9-]+)`/g)].map(([, code]) => code!))
    expect(codes.length).toBeGreaterThan(35)
    expect([...told].sort()).toEqual([...codes].sort())
  })
})
