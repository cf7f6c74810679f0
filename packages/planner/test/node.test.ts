import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { listDomains, loadDomain, mapSource, parseMapRule } from '../src/node/index.js'

const root = mkdtempSync(join(tmpdir(), 'tidemark-load-'))
const checkpoints = join(root, 'qemu', 'checkpoint', 'web')
mkdirSync(checkpoints, { recursive: true })
const put = (path: string, text: string | Uint8Array) => writeFileSync(join(root, path), text)
const domainXml = (name: string) => `<domain><name>${name}</name><devices/></domain>`
const checkpointXml = (name: string) => `<domaincheckpoint><name>${name}</name></domaincheckpoint>`
put('qemu/web.xml', domainXml('web'))
put('qemu/db.xml', domainXml('db'))
put('qemu/broken.xml', '<domain>')
put('qemu/latin.xml', Uint8Array.of(0x3c, 0x61, 0xe9, 0x3e))
put('qemu/checkpoint/web/cp2.xml', checkpointXml('cp2'))
put('qemu/checkpoint/web/cp1.xml', checkpointXml('cp1'))
put('qemu/checkpoint/web/notes.txt', 'not one')
put('qemu/checkpoint/web/cp3', checkpointXml('cp3'))
put('qemu/checkpoint/web/bad.xml', '<domaincheckpoint/>')
mkdirSync(join(checkpoints, 'folder.xml'))
execFileSync('mkfifo', [join(checkpoints, 'pipe.xml')])
afterAll(() => rmSync(root, { recursive: true }))

describe('loadDomain', () => {
  it('reads a domain by name under a root; files that are no checkpoint are problems, not the end', async () => {
    const loaded = await loadDomain({ domain: 'web', libvirtRoot: root })
    expect(loaded.domain.name).toBe('web')
    expect(loaded.checkpoints.map(({ name }) => name)).toEqual(['cp1', 'cp2', 'cp3'])
    expect(loaded.problems.map(({ file, error }) => [file, error.code])).toEqual([
      [join(checkpoints, 'bad.xml'), 'invalid-xml'],
      [join(checkpoints, 'folder.xml'), 'file-unreadable'],
      [join(checkpoints, 'pipe.xml'), 'file-unreadable'],
    ])
  })

  it('reads the files themselves', async () => {
    const xml = join(root, 'qemu', 'web.xml')
    const loaded = await loadDomain({ domainXml: xml, checkpointDir: checkpoints })
    expect(loaded).toMatchObject({ domainXml: xml, checkpointDir: checkpoints })
    expect(loaded.checkpoints).toHaveLength(3)
  })

  it('finds no checkpoints of a domain that never had one, but misses a folder that was named', async () => {
    expect((await loadDomain({ domain: 'db', libvirtRoot: root })).checkpoints).toEqual([])
    const named = { domainXml: join(root, 'qemu/db.xml'), checkpointDir: join(root, 'nowhere') }
    await expect(loadDomain(named)).rejects.toMatchObject({
      code: 'file-missing',
      evidence: { path: named.checkpointDir },
    })
  })

  it('lets others have their turn: a long history must not be deaf to Ctrl-C', async () => {
    const folder = join(root, 'long')
    mkdirSync(folder)
    for (let i = 0; i < 350; i++) writeFileSync(join(folder, `${i}.xml`), checkpointXml(`cp${i}`))
    let turns = 0
    let done = false
    const count = () => {
      turns++
      if (!done) setImmediate(count)
    }
    setImmediate(count)
    const loaded = await loadDomain({ domainXml: join(root, 'qemu/web.xml'), checkpointDir: folder })
    done = true
    expect(loaded.checkpoints).toHaveLength(350)
    expect(turns).toBeGreaterThanOrEqual(3)
  })

  it('says of a file that it is no folder', async () => {
    const xml = join(root, 'qemu/web.xml')
    await expect(loadDomain({ domainXml: xml, checkpointDir: xml })).rejects.toMatchObject({
      code: 'file-unreadable',
      message: `${xml} is not a folder`,
    })
    const below = { domainXml: xml, checkpointDir: join(xml, 'below') }
    await expect(loadDomain(below)).rejects.toMatchObject({ code: 'file-missing' })
  })

  it('names the domains there are', async () => {
    await expect(loadDomain({ domain: 'wep', libvirtRoot: root })).rejects.toMatchObject({
      code: 'domain-missing',
      message: expect.stringMatching(
        /'wep': .*wep\.xml does not exist; did you mean 'web'\? .*'broken', 'db'/,
      ),
      evidence: { known: ['broken', 'db', 'latin', 'web'] },
    })
    expect(await listDomains(root)).toEqual(['broken', 'db', 'latin', 'web'])
  })

  it.each(['../web', 'a/b', '..', '.', '', 'a\0b'])('refuses %j as a name', async domain => {
    await expect(loadDomain({ domain, libvirtRoot: root })).rejects.toMatchObject({ code: 'bad-domain-name' })
  })

  it.each([
    ['broken', 'invalid-xml'],
    ['latin', 'file-not-text'],
  ])('throws for the domain %s', async (domain, code) => {
    await expect(loadDomain({ domain, libvirtRoot: root })).rejects.toMatchObject({ code })
  })

  it('reads no endless file and no huge one', async () => {
    const huge = join(root, 'huge.xml')
    writeFileSync(huge, '')
    execFileSync('truncate', ['-s', '20M', huge])
    const checkpointDir = checkpoints
    await expect(loadDomain({ domainXml: huge, checkpointDir })).rejects.toMatchObject({
      code: 'file-too-large',
    })
    await expect(loadDomain({ domainXml: '/dev/zero', checkpointDir })).rejects.toMatchObject({
      code: 'file-unreadable',
    })
  })
})

describe('volumes', () => {
  const volume = (pool: string, name: string, target: string) =>
    `<disk type='volume'><driver type='qcow2'/><source pool='${pool}' volume='${name}'/><target dev='${target}'/></disk>`
  const targets = ['vda', 'vdb', 'vdc', 'vdd', 'vde', 'vdf', 'vdg', 'vdh']
  const names = [
    ...[
      ['images', 'a.qcow2'],
      ['nfs', 'b.qcow2'],
      ['lvm', 'c'],
      ['gone', 'd'],
      ['renamed', 'e'],
    ],
    ...[
      ['images', '..'],
      ['images', '../x'],
      ['../images', 'f'],
    ],
  ]
  const disks = names.map(([pool, name], index) => volume(pool!, name!, targets[index]!)).join('')
  const vols = `<domain><name>vols</name><devices>${disks}</devices></domain>`
  const pool = (type: string, name: string, path: string) =>
    `<!-- libvirt's -->\n<pool type='${type}'><name>${name}</name><target><path>${path}</path></target></pool>`

  it('of folders become their files, now and at the checkpoint; others keep their names', async () => {
    mkdirSync(join(root, 'storage'))
    mkdirSync(join(root, 'qemu', 'checkpoint', 'vols'))
    put('qemu/vols.xml', vols)
    put('qemu/checkpoint/vols/c.xml', `<domaincheckpoint><name>c</name>${vols}</domaincheckpoint>`)
    put('storage/images.xml', pool('dir', 'images', '/var/lib/images/'))
    put('storage/nfs.xml', pool('netfs', 'nfs', '/mnt/nfs'))
    put('storage/lvm.xml', pool('logical', 'lvm', '/dev/lvm'))
    put('storage/renamed.xml', pool('dir', 'other', '/x'))
    const loaded = await loadDomain({ domain: 'vols', libvirtRoot: root })
    for (const facts of [loaded.domain, loaded.checkpoints[0]!.domain!]) {
      expect(facts.disks.map(({ type, source }) => `${type} ${source}`)).toEqual([
        ...[
          'file /var/lib/images/a.qcow2',
          'file /mnt/nfs/b.qcow2',
          'volume volume:lvm/c',
          'volume volume:gone/d',
        ],
        ...['volume volume:renamed/e', 'volume volume:images/..', 'volume volume:images/../x'],
        'volume volume:../images/f',
      ])
      expect(facts.disks[0]!.volume).toEqual({ pool: 'images', volume: 'a.qcow2' })
    }
    expect(loaded.checkpoints[0]!.domainXml?.print(0)).toBe(`${vols}\n`)
  })

  it('keep their names where no folder of pools is known', async () => {
    const xml = join(root, 'qemu', 'vols.xml')
    const loaded = await loadDomain({ domainXml: xml, checkpointDir: checkpoints })
    expect(loaded.domain.disks[0]!.source).toBe('volume:images/a.qcow2')
  })
})

describe('mapSource', () => {
  const rules = ['/images=/mnt/copy', '/images/fast=/mnt/fast', '/srv/a.img=/tmp/a.img', '/x/=/'].map(
    parseMapRule,
  )

  it.each([
    ['/images/a.qcow2', '/mnt/copy/a.qcow2'],
    ['/images', '/mnt/copy'],
    ['/images//b/./c', '/mnt/copy/b/c'],
    ['/images/fast/a', '/mnt/fast/a'],
    ['/images/faster/a', '/mnt/copy/faster/a'],
    ['/images2/a', '/images2/a'],
    ['/srv/a.img', '/tmp/a.img'],
    ['/srv/a.img.bak', '/srv/a.img.bak'],
    ['/x/y', '/y'],
    ['/x', '/'],
    ['nbd://host/images', 'nbd://host/images'],
  ])('%s is %s', (path, mapped) => {
    expect(mapSource(rules, path)).toBe(mapped)
  })

  it.each(['', '=', 'a=', '=b', 'nothing'])('refuses the rule %j', text => {
    expect(() => parseMapRule(text)).toThrow(RangeError)
  })

  it('maps every path under the root rule, and nothing under none', () => {
    const anyPath = fc
      .array(fc.stringMatching(/^[a-z]{1,3}$/), { minLength: 1 })
      .map(parts => `/${parts.join('/')}`)
    fc.assert(
      fc.property(anyPath, path => {
        expect(mapSource([{ from: '/', to: '/new' }], path)).toBe(`/new${path}`)
        expect(mapSource([], path)).toBe(path)
      }),
    )
  })
})
