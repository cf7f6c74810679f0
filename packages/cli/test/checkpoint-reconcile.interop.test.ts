import { closeSync, openSync, readdirSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { backupXml, LibvirtLab, needs, qemuImg, qemuIoCrash, run } from '@tidemark/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { tidemark, tidemarkJson } from './cli.js'
import { runVirsh } from './run-virsh.js'

const peers = needs('libvirt')
const domain = "shop's $(touch pwned)"

interface Found {
  readonly code: string
  readonly severity: string
  readonly message: string
  readonly disk?: string
  readonly bitmap?: string
  readonly checkpoint?: string
  readonly cost?: { readonly clusters: number; readonly bytes: number }
  readonly owner?: { readonly owner: string; readonly certainty: string }
  readonly commands: readonly string[]
  readonly ways: readonly {
    readonly way: string
    readonly needs: string
    readonly commands: readonly string[]
  }[]
}

describe.skipIf(peers.skip)(`what reconcile finds in a real domain, and mends${peers.label}`, () => {
  let lab: LibvirtLab
  let work: string
  const args = () => ['--domain', domain, '--libvirt-root', lab.libvirtRoot]
  const disk = (name: string) => lab.image(`${name}.qcow2`)
  const reconcile = async (status: number): Promise<readonly Found[]> => {
    const command = ['checkpoint', 'reconcile', ...args()]
    return (await tidemarkJson<{ findings: readonly Found[] }>(command, { status })).findings
  }
  const wrong = (found: readonly Found[]) => found.filter(({ severity }) => severity !== 'info')
  const mend = async (commands: readonly string[]) => await runVirsh(lab, `${commands.join('\n')}\n`, work)
  const wayOf = (found: Found, way: string) => {
    const commands = found.ways.find(each => each.way === way)?.commands
    if (commands === undefined)
      throw new Error(`${found.code} has no way ${way}: ${JSON.stringify(found.ways)}`)
    return commands
  }
  /** Mends what is found, the first of it each time, until nothing is. */
  const mendAll = async (way?: string) => {
    for (let turns = 0; turns < 20; turns++) {
      const [first] = wrong(await reconcile2())
      if (first === undefined) return turns
      await mend(
        way === undefined || first.ways.every(each => each.way !== way) ? first.commands : wayOf(first, way),
      )
    }
    throw new Error('it does not end')
  }
  const reconcile2 = async () => {
    const { stdout } = await tidemark(['checkpoint', 'reconcile', ...args(), '--output', 'json'])
    return (JSON.parse(stdout) as { findings: readonly Found[] }).findings
  }
  const accepts = async (checkpoint: string, targets: readonly string[]) => {
    await lab.startDomain(domain)
    const disks = targets.map(target => ({ target, file: lab.image(`backup-${target}`) }))
    const outcome = await lab.backupBegin(domain, backupXml(checkpoint, disks))
    for (const { file } of disks) rmSync(file, { force: true })
    await lab.destroyDomain(domain)
    return outcome.accepted
  }

  beforeAll(async () => {
    lab = await LibvirtLab.start()
  }, 600_000)
  afterAll(async () => await lab?.stop(), 60_000)

  beforeEach(async () => {
    work = lab.image(`work-${Date.now()}`)
    await run('mkdir', [work])
    lab.own(work)
    const old = (await lab.virsh('list', '--all', '--name')).trim()
    if (old !== '') {
      await lab.tryVirsh('destroy', domain)
      await lab.virsh('undefine', domain, '--checkpoints-metadata')
    }
    for (const name of ['a', 'b']) {
      rmSync(disk(name), { force: true })
      await lab.createImage(`${name}.qcow2`, '16M')
    }
    await lab.defineDomain({
      name: domain,
      disks: ['a', 'b'].map((name, i) => ({ target: `sd${'ab'[i]}`, source: disk(name) })),
    })
    await lab.startDomain(domain)
    for (const name of ['cp1', 'cp2', 'cp3']) {
      await lab.checkpoint(domain, name)
      await lab.guestWrite(domain, 'sda', 1, Number(name[2]) * 131072, 65536)
      await lab.guestWrite(domain, 'sdb', 1, Number(name[2]) * 131072, 65536)
    }
    await lab.destroyDomain(domain)
  }, 600_000)

  it('a sound domain has nothing', async () => {
    expect(await reconcile(0)).toEqual([])
    const { stdout, status } = await tidemark(['checkpoint', 'reconcile', ...args()])
    expect(status).toBe(0)
    expect(stdout).toContain('Nothing found')
  })

  it.each(['adopt', 'drop'])(
    'metadata lost, bitmaps there: %s',
    async way => {
      await lab.virsh('checkpoint-delete', domain, 'cp2', '--metadata')
      const [found, ...more] = await reconcile(2)
      expect(more).toEqual([])
      expect(found).toMatchObject({ code: 'bitmap-orphan', severity: 'warning', bitmap: 'cp2' })
      // A table's cluster and one of bits, on each disk.
      expect(found!.cost).toEqual({ clusters: 4, bytes: 4 * 65536 })
      await mend(wayOf(found!, way))
      expect(await reconcile(0)).toEqual([])
      const listed = (await lab.virsh('checkpoint-list', domain, '--name')).trim().split('\n')
      expect(listed).toEqual(way === 'adopt' ? ['cp1', 'cp2', 'cp3'] : ['cp1', 'cp3'])
      if (way === 'adopt') {
        expect(await lab.virsh('checkpoint-parent', domain, 'cp3')).toContain('cp2')
        expect(await accepts('cp2', ['sda', 'sdb'])).toBe(true)
      } else {
        const { bitmaps = [] } = (await qemuImg.info(disk('a')))['format-specific']!.data
        expect(bitmaps.map(({ name }) => name).sort()).toEqual(['cp1', 'cp3'])
      }
      expect(readdirSync(work)).not.toContain('pwned')
    },
    600_000,
  )

  it.each(['leave-out', 'forget'])(
    'a bitmap is gone on one disk: %s',
    async way => {
      await qemuImg.bitmap('--remove', disk('a'), 'cp2')
      const [found, ...more] = await reconcile(2)
      expect(more).toEqual([])
      expect(found).toMatchObject({
        code: 'checkpoint-without-bitmap',
        checkpoint: 'cp2',
        disk: 'sda',
        layer: 0,
      })
      await mend(wayOf(found!, way))
      expect(await reconcile(0)).toEqual([])
      expect(await accepts('cp1', ['sda', 'sdb'])).toBe(true)
      if (way === 'leave-out') expect(await accepts('cp2', ['sdb'])).toBe(true)
    },
    600_000,
  )

  it('all bitmaps are gone: the checkpoints are given up', async () => {
    for (const name of ['cp1', 'cp2', 'cp3']) {
      for (const each of ['a', 'b']) await qemuImg.bitmap('--remove', disk(each), name)
    }
    expect(new Set((await reconcile(2)).map(({ code }) => code))).toEqual(
      new Set(['checkpoint-without-bitmap']),
    )
    expect(await mendAll()).toBe(3)
    expect((await lab.virsh('checkpoint-list', domain, '--name')).trim()).toBe('')
  }, 600_000)

  it('a crash left the bitmaps of one disk in-use: the other disk keeps its checkpoints', async () => {
    await qemuIoCrash(disk('a'), ['write -q 0 64k'])
    const found = await reconcile(2)
    expect(found.map(({ code, disk: target }) => [code, target])).toEqual(
      ['cp1', 'cp2', 'cp3'].map(() => ['bitmap-inconsistent', 'sda']),
    )
    await mendAll()
    expect(await accepts('cp1', ['sdb'])).toBe(true)
    expect(await accepts('cp1', ['sda'])).toBe(false)
  }, 600_000)

  it('leftovers of jobs and of other tools are told by their names', async () => {
    const names = ['backup-sda', 'libvirt-tmp-activewrite', 'virtnbdbackup.7', 'one-3-0', '1700000000']
    const foreign = ['pbs-incremental-dirty-bitmap', 'qmpbackup-node-0e2d7c4b-6d57-4a31-9c4b-0f3f3d0a7d11']
    for (const name of [...names, ...foreign]) await qemuImg.bitmap('--add', disk('a'), name)
    const found = await reconcile(2)
    const told = Object.fromEntries(found.map(({ bitmap, code, owner }) => [bitmap, [code, owner?.owner]]))
    expect(told).toEqual({
      'backup-sda': ['bitmap-temporary', 'libvirt-temporary'],
      'libvirt-tmp-activewrite': ['bitmap-temporary', 'libvirt-temporary'],
      'virtnbdbackup.7': ['bitmap-orphan', 'virtnbdbackup'],
      'one-3-0': ['bitmap-orphan', 'opennebula'],
      '1700000000': ['bitmap-orphan', 'libvirt-default'],
      'pbs-incremental-dirty-bitmap': ['bitmap-foreign', 'proxmox'],
      [foreign[1]!]: ['bitmap-foreign', 'qmpbackup'],
    })
    await mendAll('drop')
    // What is another tool's stays, unless it is dropped on purpose.
    const left = await reconcile(0)
    expect(left.map(({ bitmap }) => bitmap).sort()).toEqual([...foreign].sort())
    for (const each of left) await mend(wayOf(each, 'drop'))
    expect(await reconcile(0)).toEqual([])
  }, 600_000)

  it('names that a shell or a terminal would take for something else', async () => {
    const names = [
      "it's; touch pwned #",
      '$(touch pwned)',
      '-rf',
      'a\nb',
      '\u001b[31mred',
      '`id`"\\',
      'ä\u202eb',
      ' ',
    ]
    for (const name of names) await run('qemu-img', ['bitmap', '--add', '-f', 'qcow2', '--', disk('b'), name])
    const found = await reconcile(2)
    expect(found.map(({ bitmap }) => bitmap).sort()).toEqual([...names].sort())
    const text = (await tidemark(['checkpoint', 'reconcile', ...args()])).stdout
    for (const { commands } of found) {
      for (const command of commands) {
        expect(command).not.toMatch(/[\p{Cc}\u202e]/u)
        expect(text).toContain(`    ${command}\n`)
      }
    }
    // As a person copies them: each from the text.
    for (const { ways } of found) await mend(ways[0]!.commands)
    expect(await reconcile(0)).toEqual([])
    expect(readdirSync(work)).not.toContain('pwned')
  }, 600_000)

  it('a broken tree: a parent missing, a circle, a branch, two files of one name', async () => {
    const folder = join(lab.libvirtRoot, 'qemu/checkpoint', domain)
    const file = (name: string) => join(folder, `${name}.xml`)
    const edit = async (name: string, parent: string | undefined, to = name) => {
      const xml = await lab.virsh('checkpoint-dumpxml', domain, name, '--security-info')
      const bare = xml.replace(/ *<parent>.*?<\/parent>\n/s, '')
      const link = parent === undefined ? '' : `<parent><name>${parent}</name></parent>`
      return [file(to), bare.replace('</name>', `</name>${link}`)] as const
    }
    const breaks: Record<string, readonly (readonly [string, string])[]> = {
      'checkpoint-parent-missing': [await edit('cp2', 'nobody')],
      'checkpoint-cycle': [await edit('cp1', 'cp3')],
      'checkpoint-branched': [await edit('cp3', 'cp1')],
    }
    for (const [code, files] of Object.entries(breaks)) {
      await lab.restart(() => {
        for (const [path, xml] of files) writeFileSync(path, xml)
        for (const [path] of files) lab.own(path)
      })
      const [found] = await reconcile(2)
      expect(found!.code).toBe(code)
      await mend(found!.commands)
      expect(await reconcile(0), code).toEqual([])
      await lab.restart()
      expect((await lab.virsh('checkpoint-list', domain, '--tree')).replace(/[\s|+-]+/g, ' '), code).toBe(
        'cp1 cp2 cp3 ',
      )
    }
    const [copy, xml] = await edit('cp1', undefined, 'copy')
    writeFileSync(copy, xml)
    const [found] = await reconcile(2)
    expect(found!.code).toBe('checkpoint-duplicate')
    await mend(found!.commands)
    expect(await reconcile(0)).toEqual([])
    writeFileSync(file('torn'), '<domaincheckpoint><na')
    const [torn] = await reconcile(2)
    expect(torn!.code).toBe('metadata-unreadable')
    await mend(torn!.commands)
    expect(await reconcile(0)).toEqual([])
  }, 600_000)

  it('while the domain runs: what is certain is told, and libvirt itself removes the bitmap', async () => {
    await lab.virsh('checkpoint-delete', domain, 'cp2', '--metadata')
    await qemuImg.bitmap('--add', disk('a'), 'stray')
    await lab.startDomain(domain)
    const found = await reconcile(4)
    const orphans = found.filter(({ code }) => code === 'bitmap-orphan')
    expect(orphans.map(({ bitmap }) => bitmap).sort()).toEqual(['cp2', 'stray'])
    expect(found.filter(({ code }) => code === 'image-in-use').length).toBe(2)
    for (const orphan of orphans) await mend(wayOf(orphan, 'delete-running'))
    // The next checkpoint's parent is the one that it was before.
    await lab.checkpoint(domain, 'cp4')
    expect(await lab.virsh('checkpoint-parent', domain, 'cp4')).toContain('cp3')
    await lab.destroyDomain(domain)
    expect(await reconcile(0)).toEqual([])
  }, 600_000)

  it('a disk that was left out has a bitmap all the same; a disk left; an image is stale', async () => {
    await lab.startDomain(domain)
    await lab.checkpoint(domain, 'cp4', { disks: "<disk name='sdb'/>" })
    await lab.destroyDomain(domain)
    await qemuImg.bitmap('--add', disk('a'), 'cp4')
    const [trap] = await reconcile(2)
    expect(trap).toMatchObject({ code: 'bitmap-unneeded', disk: 'sda', checkpoint: 'cp4' })
    await mend(trap!.commands)
    expect(await reconcile(0)).toEqual([])
    await lab.virsh('detach-disk', domain, 'sdb', '--config')
    const gone = await reconcile(0)
    expect(gone.find(({ code }) => code === 'disk-left-domain')).toMatchObject({
      disk: 'sdb',
      severity: 'info',
    })
    await lab.virsh(
      'attach-disk',
      domain,
      disk('b'),
      'sdb',
      '--targetbus',
      'scsi',
      '--subdriver',
      'qcow2',
      '--config',
    )
    expect(await reconcile(0)).toEqual([])
    makeStale(disk('a'))
    const stale = await reconcile(2)
    expect(stale.every(({ code, disk: target }) => code === 'bitmaps-stale' && target === 'sda')).toBe(true)
    await mendAll()
    expect(await accepts('cp1', ['sdb'])).toBe(true)
  }, 600_000)
})

/** What a program that does not know bitmaps does: autoclear bit 0, in the last of the bytes 88 to 95. */
function makeStale(file: string): void {
  const fd = openSync(file, 'r+')
  try {
    const byte = new Uint8Array(1)
    readSync(fd, byte, 0, 1, 95)
    byte[0]! &= 0xfe
    writeSync(fd, byte, 0, 1, 95)
  } finally {
    closeSync(fd)
  }
}
