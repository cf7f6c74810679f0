import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  completeBackup,
  completeCheckpoint,
  judgeBitmap,
  parseBackup,
  parseCheckpoint,
  parseCheckpointDraft,
  planBackup,
  planToQmp,
  printBackup,
  printCheckpoint,
  redefineCheckpoint,
  XmlError,
} from '../src/index.js'
import { checkpoint, disk, domain } from './facts.js'
import { CASES, casesNote, haveCases, readCase, readChain } from './libvirt-cases.js'

const five = ['a', 'b', 'c', 'd', 'current']
const VALIDATE: readonly (readonly [chain: string, bitmap: string, valid: boolean])[] = [
  ['empty', 'a', false],
  ...five.map(bitmap => ['basic', bitmap, true] as const),
  ...five.map(bitmap => ['snapshots', bitmap, true] as const),
  ...five.map(bitmap => ['synthetic', bitmap, false] as const),
  ['synthetic', 'top-ok', true],
  ['synthetic', 'top-inactive', false],
  ['synthetic', 'top-transient', false],
  ['synthetic', 'top-inactive-transient', false],
]

describe.skipIf(!haveCases)(`libvirt's bitmap validation cases${casesNote}`, () => {
  it('are twenty', () => expect(VALIDATE).toHaveLength(20))

  it.each(VALIDATE)('%s/%s is %s', (chain, bitmap, valid) => {
    expect(judgeBitmap(readChain(chain), bitmap).valid).toBe(valid)
  })
})

const BACKUP = [
  ['empty', 'a', 'empty'],
  ['basic', 'current', 'basic-flat'],
  ['basic', 'd', 'basic-intermediate'],
  ['basic', 'a', 'basic-deep'],
  ['snapshots', 'current', 'snapshots-flat'],
  ['snapshots', 'd', 'snapshots-intermediate'],
  ['snapshots', 'a', 'snapshots-deep'],
] as const

describe.skipIf(!haveCases)(`libvirt's backup merge cases${casesNote}`, () => {
  it.each(BACKUP)('%s/%s gives %s', (name, bitmap, output) => {
    const chain = readChain(name)
    const vda = disk('vda', chain[0]!.filename)
    const began = chain.findLast(({ bitmaps }) => bitmaps.some(({ name }) => name === bitmap)) ?? chain[0]!
    const plan = planBackup(
      {
        domain: domain([vda]),
        // The bitmap began in the deepest layer that has it: these cases ask for the algorithm alone.
        checkpoints: [checkpoint(bitmap, { domain: domain([disk('vda', began.filename)]) })],
        chains: new Map([['vda', chain]]),
      },
      { incremental: bitmap },
    )
    const { actions } = planToQmp(plan, {
      nodeName: (_disk, layer) => (layer === 0 ? 'libvirt-1-format' : `libvirt-${layer + 1}-format`),
      bitmapName: () => 'target-bitmap-name',
    }).arguments
    // libvirt's test has the new bitmap on a node of its own; ours is on the top.
    const onTarget = actions.map(({ type, data }) => ({ type, data: { ...data, node: 'target_node' } }))
    const file = join('backupmerge', `${output}-out.json`)
    const expected = existsSync(join(CASES, 'qemublocktestdata', file))
      ? readCase('qemublocktestdata', file)
      : '[]'
    expect(onTarget).toEqual(JSON.parse(expected))
  })
})

const NAME = '1525889631'
const IN = 'qemudomaincheckpointxml2xmlin'
const OUT = 'qemudomaincheckpointxml2xmlout'

describe.skipIf(!haveCases)(`libvirt's checkpoint XML${casesNote}`, () => {
  it.each(['empty', 'disk-default', 'sample', 'size'])('in: %s', name => {
    const parsed = parseCheckpoint(readCase(IN, `${name}.xml`), { defaultName: NAME })
    const out = parseCheckpoint(readCase(OUT, `${name}.xml`))
    expect(parsed).toMatchObject({ name: out.name, description: out.description })
    for (const { name, checkpoint } of parsed.disks ?? []) {
      expect(out.disks).toContainEqual(expect.objectContaining({ name, checkpoint }))
    }
  })

  it.each(['disk-invalid', 'name-invalid'])('in: %s is refused', name => {
    expect(() => parseCheckpoint(readCase(IN, `${name}.xml`), { defaultName: NAME })).toThrow(XmlError)
  })

  it('needs a name where none is given', () => {
    expect(() => parseCheckpoint(readCase(IN, 'empty.xml'))).toThrow('the checkpoint has no name')
  })

  it.each(haveCases ? readdirSync(join(CASES, OUT)) : [])('out: %s', file => {
    const { name, creationTime, disks } = parseCheckpoint(readCase(OUT, file))
    expect(name).not.toBe('')
    expect(creationTime).toBeGreaterThan(1_500_000_000)
    for (const { checkpoint, bitmap } of disks ?? []) {
      expect(bitmap).toBe(checkpoint === 'bitmap' ? name : undefined)
    }
  })

  it.each(['disk-default', 'empty', 'redefine', 'sample', 'size'])('redefined: %s gives itself', name => {
    const out = readCase(OUT, `${name}.xml`)
    const draft = parseCheckpointDraft(out)
    // The harness gives redefine's <domain>, the others have none; sizes are never read.
    const size = name === 'size' ? 1048576 : undefined
    const redefined = redefineCheckpoint(draft, draft.domain?.uuid)
    const disks = redefined.disks?.map(disk => ({ ...disk, size }))
    expect(printCheckpoint({ ...redefined, disks }, { withDomain: true })).toBe(out)
  })

  // As libvirt's own test runs them: a fixed clock, a parent but for `empty`, and a bitmap for vda.
  const vda = disk('vda', '/tmp/data.img')
  it.each([
    ['empty', 1525889631, [vda], undefined],
    ['disk-default', 1525889631, [vda], '1525111885'],
    ['sample', 1525889631, [vda, disk('vdb', '/tmp/logs.img')], '1525111885'],
    ['size', 1553648510, [vda], '1525111885'],
  ] as const)('made: %s', (name, now, disks, parent) => {
    const draft = parseCheckpointDraft(readCase(IN, `${name}.xml`))
    const made = completeCheckpoint(draft, domain(disks), { now, parent })
    const sized = name === 'size' ? made.disks?.map(entry => ({ ...entry, size: 1048576 })) : made.disks
    expect(printCheckpoint({ ...made, disks: sized })).toBe(readCase(OUT, `${name}.xml`))
  })

  it.each(['disk-invalid', 'name-invalid'])('made: %s is refused', name => {
    expect(() => parseCheckpointDraft(readCase(IN, `${name}.xml`))).toThrow(XmlError)
  })

  it.each(['internal-active-invalid', 'internal-inactive-invalid'])(
    '%s is read, but libvirt skips it',
    name => {
      const xml = readCase(OUT, `${name}.xml`)
      expect(parseCheckpoint(xml).libvirtSkips).toBe('<domaincheckpoint> holds <active>')
      expect(() => parseCheckpointDraft(xml)).toThrow('holds <active>')
    },
  )

  it('reads the embedded domain', () => {
    const { domain } = parseCheckpoint(readCase(OUT, 'redefine.xml'))
    expect(
      domain?.disks.map(({ target, source, format, readonly }) => [target, source, format, readonly]),
    ).toEqual([
      ['hda', '/dev/HostVG/QEMUGuest1', 'raw', false],
      ['hdc', '/dev/HostVG/QEMUGuest2', 'raw', true],
      ['vda', '/tmp/data.img', 'qcow2', false],
      ['vdb', '/tmp/logs.img', 'qcow2', false],
    ])
  })
})

const BACKUP_IN = 'domainbackupxml2xmlin'
const BACKUP_OUT = 'domainbackupxml2xmlout'
const backups = haveCases ? readdirSync(join(CASES, BACKUP_IN)) : []

describe.skipIf(!haveCases)(`libvirt's backup XML${casesNote}`, () => {
  it('are ten', () => expect(backups).toHaveLength(10))

  // As libvirt's own test runs them: each listed disk and vdextradisk, at /fake/NAME.qcow2.
  it.each(backups)('%s', file => {
    const backup = parseBackup(readCase(BACKUP_IN, file))
    const targets = [...backup.disks.map(({ name }) => name), 'vdextradisk']
    const fake = domain(targets.map(target => disk(target, `/fake/${target}.qcow2`)))
    const out = readCase(BACKUP_OUT, file)
    expect(printBackup(completeBackup(backup, fake, { suffix: 'SUFFIX' }))).toBe(out)
    expect(printBackup(completeBackup(parseBackup(out), fake, { suffix: 'OTHER' }))).toBe(out)
  })
})
