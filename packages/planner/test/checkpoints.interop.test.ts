/** Checkpoints and backups as the real libvirt has them: the same drafts to both, the same answers from both. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { LibvirtLab, needs } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  buildCheckpointTree,
  type CheckpointFacts,
  completeBackup,
  completeCheckpoint,
  type DomainFacts,
  embedDomain,
  PlannerError,
  parseBackup,
  parseCheckpoint,
  parseCheckpointDraft,
  parseDomain,
  printBackup,
  printCheckpoint,
  redefineCheckpoint,
} from '../src/index.js'
import { loadDomain } from '../src/node/index.js'

const peers = needs('libvirt')

describe.skipIf(peers.skip)(`libvirt${peers.label}`, () => {
  let lab: LibvirtLab
  let domain: DomainFacts
  let stored: string
  let serial = 0
  const file = (name: string) => lab.image(name)
  const metadata = () => join(lab.libvirtRoot, 'qemu/checkpoint/d')

  beforeAll(async () => {
    lab = await LibvirtLab.start()
    for (const name of ['a', 'b', 'c']) await lab.createImage(`${name}.qcow2`, '8M')
    await lab.createImage('s.raw', '1M', { format: 'raw' })
    const shared = { source: file('s.raw'), format: 'raw', more: '<shareable/>' }
    await lab.defineDomain({
      name: 'd',
      disks: [
        { target: 'sdb', source: file('b.qcow2') },
        { target: 'sda', source: file('a.qcow2') },
        { target: 'sdc', source: file('c.qcow2'), readonly: true },
        { target: 'sdd', device: 'cdrom' },
        { target: 'sde', ...shared },
        { target: 'sdf', ...shared },
      ],
    })
    stored = await lab.virsh('dumpxml', 'd', '--inactive')
    domain = parseDomain(stored)
  })
  afterAll(() => lab?.stop())

  /** libvirt's print of what it made of a draft, or undefined where it refused. */
  async function theirs(xml: string, name: string, ...flags: string[]): Promise<string | undefined> {
    const path = file(`${serial++}.xml`)
    writeFileSync(path, xml)
    const { status } = await lab.tryVirsh('checkpoint-create', 'd', path, ...flags)
    if (status !== 0) return undefined
    return (await lab.virsh('checkpoint-dumpxml', 'd', name, '--no-domain')).trimEnd()
  }

  function ours(make: () => CheckpointFacts): string | undefined {
    try {
      return printCheckpoint(make()).trimEnd()
    } catch (error) {
      expect(error).toBeInstanceOf(PlannerError)
      return undefined
    }
  }

  const lists = (): readonly string[] => [
    '',
    '<disks/>',
    "<disks><disk name='sda'/></disks>",
    "<disks><disk name='sda'/><disk name='sda'/></disks>",
    `<disks><disk name='${file('a.qcow2')}'/></disks>`,
    `<disks><disk name='sda'/><disk name='${file('a.qcow2')}' checkpoint='no'/></disks>`,
    `<disks><disk name='/${file('a.qcow2')}'/></disks>`,
    `<disks><disk name='${file('s.raw')}' checkpoint='no'/></disks>`,
    "<disks><disk name='sdz' checkpoint='no'/></disks>",
    "<disks><disk name='sdc'/></disks>",
    "<disks><disk name='sdc' checkpoint='no'/></disks>",
    "<disks><disk name='sdd'/></disks>",
    "<disks><disk name='sda' bitmap='other'/></disks>",
    "<disks><disk name='sda' checkpoint='no' bitmap='x'/></disks>",
    "<disks><disk name='sda' size='5'/></disks>",
    "<disks><disk name='sda' checkpoint='maybe'/></disks>",
    "<disks><disk name='a b'/></disks>",
    `<disks>${['a', 'b', 'c', 'd', 'e', 'f', 'g'].map(x => `<disk name='sd${x}' checkpoint='no'/>`).join('')}</disks>`,
    '<foo/>',
    'text',
    '<description><![CDATA[<b>]]> &apos;q&apos; "z" \n\ttwo </description>',
    '<description/>',
  ]

  it('redefines with a <domain> as we do, and refuses what we refuse', async () => {
    for (const list of lists()) {
      const name = `r${serial}`
      const xml = `<domaincheckpoint><name>${name}</name><creationTime>17</creationTime>${list}${stored}</domaincheckpoint>`
      const mine = ours(() => redefineCheckpoint(parseCheckpointDraft(xml), domain.uuid))
      expect(await theirs(xml, name, '--redefine'), list).toBe(mine)
    }
  })

  it('redefines without one as we do', async () => {
    for (const list of lists()) {
      // libvirt lets a disk be listed twice here, which no checkpoint of its own ever has.
      if (list.includes("<disk name='sda'/><disk name='sda'/>")) continue
      const name = `n${serial}`
      const xml = `<domaincheckpoint><name>${name}</name><creationTime>17</creationTime>${list}</domaincheckpoint>`
      const mine = ours(() => redefineCheckpoint(parseCheckpointDraft(xml), domain.uuid))
      expect(await theirs(xml, name, '--redefine'), list).toBe(mine)
    }
  })

  it.each([
    ['', 'a', '<creationTime>1</creationTime>'],
    ['<name>x1</name>', 'x1', ''],
    ['<name> x2 </name>', 'x2', '<creationTime>1</creationTime>'],
    ['<name>.x3</name>', '.x3', '<creationTime>1</creationTime>'],
    ['<name>x4</name>', 'x4', '<creationTime>-1</creationTime>'],
    ['<name>x5</name>', 'x5', '<creationTime>9223372036854775808</creationTime>'],
    ['<name>x6</name><name>x7</name>', 'x6', '<creationTime>1</creationTime>'],
    ['<name>x8</name>', 'x8', '<creationTime>1</creationTime><parent/>'],
    ['<name>x9</name>', 'x9', '<creationTime>1</creationTime>'],
  ])('redefining %s %s %s', async (head, name, tail) => {
    const xml = `<domaincheckpoint>${head}${tail}</domaincheckpoint>`
    expect(await theirs(xml, name, '--redefine')).toBe(
      ours(() => redefineCheckpoint(parseCheckpointDraft(xml), domain.uuid)),
    )
  })

  it('compares the UUID as we do', async () => {
    const uuid = /<uuid>.*<\/uuid>/.exec(stored)![0]
    for (const other of [
      '',
      uuid.toUpperCase().replaceAll('UUID', 'uuid'),
      uuid.replace(/[0-9a-f]{4}</, '0000<'),
    ]) {
      const name = `u${serial}`
      const changed = stored.replace(uuid, other)
      const xml = `<domaincheckpoint><name>${name}</name><creationTime>17</creationTime>${changed}</domaincheckpoint>`
      const mine = ours(() => redefineCheckpoint(parseCheckpointDraft(xml), domain.uuid))
      expect(await theirs(xml, name, '--redefine'), other).toBe(mine)
    }
  })

  it('takes what we print, with the domain and the comment, and gives it back', async () => {
    const { facts, xml } = embedDomain(stored)
    const draft = parseCheckpointDraft('<domaincheckpoint><description>d</description></domaincheckpoint>')
    const disks = draft.disks
    const redefined = redefineCheckpoint(
      { ...draft, disks, name: 'printed', creationTime: 99, domain: facts, domainXml: xml },
      domain.uuid,
    )
    const printed = printCheckpoint(redefined, { withDomain: true, comment: true })
    await lab.redefineCheckpoint('d', printed)
    const given = await lab.virsh('checkpoint-dumpxml', 'd', 'printed', '--security-info')
    expect(parseCheckpoint(given).domain).toEqual(facts)
    expect(printCheckpoint(parseCheckpoint(given))).toBe(printCheckpoint(redefined))
    // What libvirt stores of it is read, and printed again to the letter.
    const onDisk = readFileSync(join(metadata(), 'printed.xml'), 'utf8')
    const body = onDisk.slice(onDisk.indexOf('<domaincheckpoint'))
    expect(printCheckpoint(parseCheckpoint(onDisk), { withDomain: true })).toBe(body)
  })

  describe('a running domain', () => {
    beforeAll(async () => {
      rmSync(metadata(), { recursive: true, force: true })
      await lab.restart()
      await lab.startDomain('d')
    })

    it('gets new checkpoints as we complete them, and none where we refuse', async () => {
      let parent: string | undefined
      for (const list of lists()) {
        const name = `m${serial}`
        const xml = `<domaincheckpoint><name>${name}</name><creationTime>3</creationTime><parent><name>odd</name></parent>${list}</domaincheckpoint>`
        const given = await theirs(xml, name)
        const now = Number(/<creationTime>(\d+)/.exec(given ?? '')?.[1] ?? 0)
        const mine = ours(() => completeCheckpoint(parseCheckpointDraft(xml), domain, { now, parent }))
        expect(given, list).toBe(mine)
        if (given !== undefined) parent = name
      }
      expect(parent).toBeDefined()
    })

    it('names a checkpoint without a name after the time', async () => {
      const disks = "<disks><disk name='sda'/></disks>"
      const path = file('unnamed.xml')
      writeFileSync(path, `<domaincheckpoint>${disks}</domaincheckpoint>`)
      const before = await lab.virsh('checkpoint-list', 'd', '--name')
      await lab.virsh('checkpoint-create', 'd', path)
      const after = (await lab.virsh('checkpoint-list', 'd', '--name')).split('\n')
      const name = after.find(each => each !== '' && !before.split('\n').includes(each))!.trim()
      const given = parseCheckpoint(await lab.virsh('checkpoint-dumpxml', 'd', name))
      expect(given.creationTime).toBe(Number(name))
    })

    const scenes: Readonly<Record<string, readonly string[]>> = {
      chain: ['a', 'b<a', 'c<b'],
      branch: ['a', 'b<a', 'c<a'],
      'branch below': ['a', 'b<a', 'c<b', 'd<b'],
      'two roots': ['a', 'b'],
      'two chains': ['a', 'b', 'c<b'],
      'a missing parent': ['a<gone', 'b<a'],
      circle: ['a<c', 'b<a', 'c<b'],
      'its own parent': ['a<a'],
      'a circle beside a chain': ['a', 'b<a', 'x<y', 'y<x'],
      'times reversed': ['b', 'a<b'],
    }

    it.each(Object.entries(scenes))('has as current at load what we say: %s', async (_name, specs) => {
      const names = specs.map(spec => spec.split('<'))
      const texts = names.map(([name, parent]) => {
        const facts = redefineCheckpoint(
          {
            ...{ name, parent, creationTime: 1000 - name!.charCodeAt(0), description: undefined },
            ...{ disks: undefined, domain: undefined },
          },
          undefined,
        )
        return printCheckpoint(facts)
      })
      expect(await currentAfterLoad(texts)).toBe(
        buildCheckpointTree(texts.map(text => parseCheckpoint(text))).current,
      )
    })

    it('loads at start what we load, and leaves out what we say it leaves out', async () => {
      const good = '<domaincheckpoint><name>good</name><creationTime>1</creationTime></domaincheckpoint>'
      const files: Readonly<Record<string, string>> = {
        'good.xml': good,
        '.hidden': good.replace('good', 'hidden'),
        'other.txt': good.replace('good', 'other'),
        'renamed.xml': good.replace('good', 'elsewhere'),
        'again.xml': good,
        'notime.xml': '<domaincheckpoint><name>notime</name></domaincheckpoint>',
        'odd.xml': good.replace('good', 'odd').replace('</domain', '<foo/></domain'),
        'nodisks.xml': good.replace('good', 'nodisks').replace('</domain', '<disks/></domain'),
        'broken.xml': '<domaincheckpoint>',
        'full.xml': good.replace('good', 'full').padEnd(2 ** 20),
        'long.xml': good.replace('good', 'long').padEnd(2 ** 20 + 1),
        'nameless.xml': '<domaincheckpoint><creationTime>1</creationTime></domaincheckpoint>',
      }
      await load(files)
      const known = (await lab.virsh('checkpoint-list', 'd', '--name'))
        .split('\n')
        .filter(name => name !== '')
      const loaded = await loadDomain({ domain: 'd', libvirtRoot: lab.libvirtRoot })
      const kept = loaded.checkpoints.filter(({ libvirtSkips }) => libvirtSkips === undefined)
      expect([...new Set(kept.map(({ name }) => name))].sort()).toEqual(known.sort())
      expect(known).toContain('full')
      expect(known).not.toContain('long')
      expect(loaded.problems.map(({ file }) => file)).toEqual(
        ['broken.xml', 'nameless.xml'].map(name => join(metadata(), name)),
      )
    })

    async function load(files: Readonly<Record<string, string>>): Promise<void> {
      await lab.restart(() => {
        rmSync(metadata(), { recursive: true, force: true })
        mkdirSync(metadata(), { recursive: true })
        lab.own(metadata())
        for (const [name, text] of Object.entries(files)) {
          writeFileSync(join(metadata(), name), text)
          lab.own(join(metadata(), name))
        }
      })
    }

    /** virsh tells no current checkpoint: it is the parent of the next one. */
    async function currentAfterLoad(texts: readonly string[]): Promise<string | undefined> {
      await load(Object.fromEntries(texts.map((text, index) => [`${index}.xml`, text])))
      const name = `next${serial}`
      const xml = `<domaincheckpoint><name>${name}</name><disks><disk name='sda' checkpoint='no'/></disks></domaincheckpoint>`
      return parseCheckpoint((await theirs(xml, name))!).parent
    }
  })

  describe('backups', () => {
    let backedUp: DomainFacts

    beforeAll(async () => {
      for (const name of ['ea', 'eb', 'ec']) await lab.createImage(`${name}.qcow2`, '8M')
      await lab.defineDomain({
        name: 'e',
        disks: [
          { target: 'sdb', source: file('eb.qcow2') },
          { target: 'sda', source: file('ea.qcow2') },
          { target: 'sdc', source: file('ec.qcow2'), readonly: true },
          { target: 'sdd', device: 'cdrom' },
        ],
      })
      await lab.startDomain('e')
      await lab.checkpoint('e', 'cp1')
      backedUp = parseDomain(await lab.virsh('dumpxml', 'e'))
    })

    const scratch = (target: string) => `<scratch file='${file(`${target}.scratch`)}'/>`
    const pulls = (): readonly string[] => [
      '',
      '<incremental>cp1</incremental>',
      `<incremental>cp1</incremental><disks><disk name='sdb' type='file' exportname='e &amp; f' exportbitmap='b'>${scratch('b')}</disk><disk name='sda' type='file' backupmode='full'>${scratch('a')}</disk></disks>`,
      `<disks><disk name='sda' type='file' incremental='cp1'>${scratch('a')}</disk></disks>`,
      `<disks><disk name='sda' type='file' backupmode='incremental'>${scratch('a')}</disk></disks>`,
      `<disks><disk name='sdc' type='file'>${scratch('c')}</disk></disks>`,
      `<disks><disk name='sdd' type='file'>${scratch('d')}</disk></disks>`,
      `<disks><disk name='sdz' backup='no'/></disks>`,
      `<disks><disk name='sda' backup='no'/></disks>`,
      `<disks><disk name='sda' type='file'>${scratch('a')}</disk><disk name='sda' backup='no'/></disks>`,
      `<disks><disk name='sda' type='file' backupmode='full' incremental='cp1'>${scratch('a')}</disk></disks>`,
      `<disks><disk name='sda' type='file'><driver type='raw'/>${scratch('a')}</disk></disks>`,
      `<disks><disk name='sda' type='file'><target file='/x'/></disk></disks>`,
      `<disks><disk name='sda' type='file'><scratch file='relative'/></disk></disks>`,
      `<disks><disk name='sda' type='file'><driver type='qcow2'/><scratch file='${file('l')}'><seclabel model='dac' relabel='yes'><label>a:b</label></seclabel></scratch></disk></disks>`,
      `<disks><disk name='sda' type='file'><scratch file='${file('l2')}'><encryption format='luks'/></scratch></disk></disks>`,
      `<disks><disk name='sda' type='network'>${scratch('a')}</disk></disks>`,
      '<disks/>',
      '<foo/>',
    ]

    it('are completed as we complete them, and refused where we refuse', async () => {
      let accepted = 0
      for (const inner of pulls()) {
        const xml = `<domainbackup mode='pull'><server transport='unix' socket='${file('sock')}'/>${inner}</domainbackup>`
        const path = file(`${serial++}.xml`)
        writeFileSync(path, xml)
        const { status } = await lab.tryVirsh('backup-begin', 'e', path)
        const given = status === 0 ? await lab.virsh('backup-dumpxml', 'e') : undefined
        if (given !== undefined) await lab.virsh('domjobabort', 'e')
        const suffix = /\.qcow2\.(\d+)'/.exec(given ?? '')?.[1] ?? 'none'
        let mine: string | undefined
        try {
          mine = printBackup(completeBackup(parseBackup(xml), backedUp, { suffix, started: true }))
        } catch (error) {
          expect(error).toBeInstanceOf(PlannerError)
        }
        // The index names a node of QEMU's.
        expect(given?.replaceAll(/ index='\d+'/g, '').trimEnd(), inner).toBe(mine?.trimEnd())
        if (given === undefined) continue
        accepted++
        expect(printBackup(parseBackup(given))).toBe(`${given.replaceAll(/ index='\d+'/g, '').trimEnd()}\n`)
      }
      expect(accepted).toBeGreaterThan(4)
    })
  })

  it('finds a volume of a real pool, in the domain and in its checkpoint', async () => {
    const folder = join(lab.images, 'pool')
    mkdirSync(folder)
    lab.own(folder)
    const image = await lab.createImage(join(folder, 'v.qcow2'), '8M')
    await lab.virsh('pool-define-as', 'p', 'dir', '--target', folder)
    await lab.virsh('pool-start', 'p')
    await lab.defineDomain({ name: 'v', disks: [{ target: 'sda', source: image }] })
    const plain = await lab.virsh('dumpxml', 'v', '--inactive')
    const xml = plain
      .replace("<disk type='file'", "<disk type='volume'")
      .replace(/<source file=.*\/>/, "<source pool='p' volume='v.qcow2'/>")
    writeFileSync(file('v.xml'), xml)
    await lab.virsh('define', file('v.xml'))
    await lab.startDomain('v')
    await lab.checkpoint('v', 'c')
    const loaded = await loadDomain({ domain: 'v', libvirtRoot: lab.libvirtRoot })
    for (const facts of [loaded.domain, loaded.checkpoints[0]!.domain!]) {
      expect(facts.disks).toMatchObject([
        { type: 'file', source: image, format: 'qcow2', volume: { pool: 'p', volume: 'v.qcow2' } },
      ])
    }
    expect(loaded.checkpoints[0]!.domainXml?.print(0)).toContain("<source pool='p' volume='v.qcow2'")
  })

  it('shows a mirror in the status of a domain and in its XML, and what we read is it', async () => {
    const copy = await lab.createImage('copy.qcow2', '8M')
    await lab.virsh(
      'blockcopy',
      'd',
      'sda',
      copy,
      '--format',
      'qcow2',
      '--reuse-external',
      '--transient-job',
      '--wait',
    )
    const status = readFileSync(join(dirname(lab.images), 'r/libvirt/qemu/run/d.xml'), 'utf8')
    for (const xml of [await lab.virsh('dumpxml', 'd'), status]) {
      const disk = parseDomain(xml).disks.find(({ target }) => target === 'sda')!
      expect(disk).toMatchObject({
        source: file('a.qcow2'),
        mirror: { job: 'copy', ready: 'yes', type: 'file', source: copy, format: 'qcow2' },
      })
      expect(parseDomain(xml).disks.find(({ target }) => target === 'sdb')).not.toHaveProperty('mirror')
    }
    await lab.virsh('blockjob', 'd', 'sda', '--abort')
  })
})
