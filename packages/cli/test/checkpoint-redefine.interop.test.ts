import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { backupXml, LibvirtLab, type MapExtent, needs, run } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkJson } from './cli.js'
import { runVirsh } from './run-virsh.js'

const peers = needs('libvirt')
const domain = "web & 'co'"
const names = ['cp1', 'virtnbdbackup.1', 'last_one'] as const

interface Redefined {
  readonly checkpoints: readonly {
    readonly name: string
    readonly parent: string | null
    readonly from: string
    readonly place: { readonly sure: string; readonly evidence: readonly string[] }
    readonly xml: string
    readonly command?: string
  }[]
}

/** In the order of the tests, which is that of one domain's life. */
describe.skipIf(peers.skip)(`metadata told anew to the real libvirt${peers.label}`, () => {
  let lab: LibvirtLab
  let before: { readonly tree: string; readonly xml: Record<string, string> }
  const folder = () => join(lab.libvirtRoot, 'qemu/checkpoint', domain)
  const args = (...more: string[]) => ['--domain', domain, '--libvirt-root', lab.libvirtRoot, ...more]
  const state = async (...options: string[]) => {
    const tree = await lab.virsh('checkpoint-list', domain, '--tree')
    const listed = (await lab.virsh('checkpoint-list', domain, '--name')).trim().split('\n')
    const xml: Record<string, string> = {}
    for (const name of listed) xml[name] = await lab.virsh('checkpoint-dumpxml', domain, name, ...options)
    return { tree, xml }
  }
  /** libvirt's incremental backup: which bytes it copied, and what they are. */
  const backup = async (checkpoint: string) => {
    const files = ['sda', 'sdb'].map(target => ({ target, file: lab.image(`backup-${target}`) }))
    const outcome = await lab.backupBegin(domain, backupXml(checkpoint, files))
    const copies: { copied: unknown; content: string }[] = []
    for (const { file } of outcome.accepted ? files : []) {
      const { stdout } = await run('qemu-img', ['map', '-U', '--output=json', file])
      const extents = JSON.parse(stdout) as MapExtent[]
      const copied = extents.filter(({ depth }) => depth === 0).map(({ start, length }) => [start, length])
      // Its own bytes alone: what lies below is being written to.
      await run('qemu-img', ['rebase', '-u', '-b', '', file])
      await run('qemu-img', ['convert', '-O', 'raw', file, `${file}.raw`])
      copies.push({
        copied,
        content: createHash('sha256')
          .update(readFileSync(`${file}.raw`))
          .digest('hex'),
      })
      for (const name of [file, `${file}.raw`]) rmSync(name, { force: true })
    }
    return { outcome, copies }
  }
  const truth: Record<string, unknown> = {}

  beforeAll(async () => {
    lab = await LibvirtLab.start()
    for (const name of ['a', 'b']) await lab.createImage(`${name}.qcow2`, '16M')
    await lab.defineDomain({
      name: domain,
      disks: [
        { target: 'sda', source: lab.image('a.qcow2') },
        { target: 'sdb', source: lab.image('b.qcow2') },
        { target: 'hda', device: 'cdrom', format: 'raw', readonly: true },
      ],
    })
    await lab.startDomain(domain)
    for (const [i, name] of names.entries()) {
      await lab.checkpoint(domain, name)
      await lab.guestWrite(domain, 'sda', i + 1, i * 131072, 65536)
      if (i === 0) await lab.snapshot(domain, 's1', { sdb: lab.image('b.overlay.qcow2') })
      if (i > 0) await lab.guestWrite(domain, 'sdb', i + 1, i * 262144, 65536)
    }
    for (const name of names) truth[name] = await backup(name)
    await lab.destroyDomain(domain)
    before = await state()
  }, 600_000)
  afterAll(async () => await lab?.stop(), 60_000)

  it('from saved metadata: everything as it was, and files for nobody else', async () => {
    const saved = lab.image('saved')
    await run('cp', ['-r', folder(), saved])
    for (const name of names) await lab.virsh('checkpoint-delete', domain, name, '--metadata')
    const out = lab.image('from-metadata')
    const { stdout, status, stderr } = await tidemark([
      ...['checkpoint', 'redefine', '--domain-xml', join(lab.libvirtRoot, 'qemu', `${domain}.xml`)],
      ...['--checkpoint-dir', saved, '-o', out],
    ])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout.trim().split('\n').length).toBe(names.length)
    for (const name of names) expect(statSync(join(out, `${name}.xml`)).mode & 0o777).toBe(0o600)
    await runVirsh(lab, stdout)
    expect(await state()).toEqual(before)
    // A restart reads libvirt's own files.
    await lab.restart()
    expect(await state()).toEqual(before)
  }, 600_000)

  it('overwrites nothing, and then leaves nothing', async () => {
    const out = lab.image('half')
    await run('mkdir', [out])
    await run('sh', ['-c', `echo mine > '${out}/last_one.xml'`])
    const refused = await tidemark(['checkpoint', 'redefine', ...args('-o', out)])
    expect(refused.status).toBe(1)
    expect(refused.stderr).toContain('--force')
    expect(refused.stdout).toBe('')
    expect(readdirSync(out)).toEqual(['last_one.xml'])
    expect(readFileSync(join(out, 'last_one.xml'), 'utf8')).toBe('mine\n')
    expect((await tidemark(['checkpoint', 'redefine', ...args('-o', out, '--force')])).status).toBe(0)
    expect(readdirSync(out).sort()).toEqual(names.map(name => `${name}.xml`).sort())
  })

  it('from bitmaps alone, while the domain is off: the order is found, and libvirt takes it', async () => {
    const noDomain = await state('--no-domain')
    for (const name of names) await lab.virsh('checkpoint-delete', domain, name, '--metadata')
    expect(existsSync(folder()) ? readdirSync(folder()) : []).toEqual([])
    const shown = await tidemarkJson<Redefined>(['checkpoint', 'redefine', ...args()])
    expect(
      shown.checkpoints.map(({ name, parent, from, place }) => [name, parent, from, place.sure]),
    ).toEqual([
      ['cp1', null, 'bitmaps', 'certain'],
      ['virtnbdbackup.1', 'cp1', 'bitmaps', 'certain'],
      ['last_one', 'virtnbdbackup.1', 'bitmaps', 'certain'],
    ])
    expect(JSON.stringify(shown)).not.toContain('<domain ')
    const out = lab.image('from-bitmaps')
    const { stdout, status } = await tidemark(['checkpoint', 'redefine', ...args('-o', out)])
    expect(status).toBe(0)
    await runVirsh(lab, stdout)
    await lab.restart()
    const after = await state('--no-domain')
    expect(after.tree).toBe(before.tree)
    const timeless = (xml: Record<string, string>) =>
      Object.fromEntries(
        Object.entries(xml).map(([name, text]) => [
          name,
          text.replace(/<creationTime>\d+</, '<creationTime><'),
        ]),
      )
    expect(timeless(after.xml)).toEqual(timeless(noDomain.xml))
  }, 600_000)

  it('a backup from each is accepted and has what it had before', async () => {
    await lab.startDomain(domain)
    for (const name of names) expect(await backup(name), name).toEqual(truth[name])
    for (const name of names) await lab.virsh('checkpoint-delete', domain, name, '--metadata')
    // And once more while it runs, from what was saved.
    const saved = lab.image('saved')
    const out = lab.image('while-running')
    const { stdout } = await tidemark([
      ...['checkpoint', 'redefine', '--domain-xml', join(lab.libvirtRoot, 'qemu', `${domain}.xml`)],
      ...['--checkpoint-dir', saved, '-o', out],
    ])
    await runVirsh(lab, stdout)
    expect((await state()).tree).toBe(before.tree)
    for (const name of names) expect(await backup(name), name).toEqual(truth[name])
    expect(truth[names[0]]).toMatchObject({ outcome: { accepted: true } })
    expect(truth[names[0]]).not.toEqual(truth[names[1]])
  }, 600_000)

  it('while it runs, the order of bitmaps alone is a guess, and says so', async () => {
    for (const name of names) await lab.virsh('checkpoint-delete', domain, name, '--metadata')
    const shown = await tidemarkJson<Redefined>(['checkpoint', 'redefine', ...args()], { status: 4 })
    expect(shown.checkpoints.map(({ place }) => place.sure)).toContain('guess')
    await lab.destroyDomain(domain)
  }, 600_000)

  it('finds the place of a bitmap among checkpoints that have metadata, and puts them in line', async () => {
    const first = await tidemark(['checkpoint', 'redefine', ...args('-o', lab.image('again'))])
    await runVirsh(lab, first.stdout)
    await lab.virsh('checkpoint-delete', domain, 'virtnbdbackup.1', '--metadata')
    const out = lab.image('middle')
    const adopt = await tidemark([
      'checkpoint',
      'redefine',
      ...args('--bitmap', 'virtnbdbackup.1', '-o', out),
    ])
    expect(adopt.status).toBe(0)
    // The child is told of its new parent; the others are not touched.
    expect(adopt.stdout.trim().split('\n').length).toBe(2)
    await runVirsh(lab, adopt.stdout)
    expect(await lab.virsh('checkpoint-list', domain, '--tree')).toBe(before.tree)
  }, 600_000)
})
