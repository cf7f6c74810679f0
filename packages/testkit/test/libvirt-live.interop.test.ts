import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  backupXml,
  LibvirtLab,
  liveChains,
  needs,
  ownClusters,
  qemuImg,
  qemuIo,
  type RunError,
  run,
  withTempDir,
} from '../src/index.js'

const peers = needs('libvirt')
const MiB = 2 ** 20

describe.skipIf(peers.skip)(`a running domain, asked${peers.label}`, () => {
  let lab: LibvirtLab
  beforeAll(async () => {
    lab = await LibvirtLab.start()
    const disks = [
      { target: 'sda', source: await lab.createImage('a.qcow2', '2M') },
      { target: 'sdb', source: await lab.createImage("it's b$x.qcow2", '3M') },
      { target: 'sdc', source: await lab.createImage('c.raw', '1M', { format: 'raw' }), format: 'raw' },
      { target: 'hda', device: 'cdrom' as const, readonly: true, format: 'raw' },
    ]
    await lab.defineDomain({ name: 'd', disks })
    await lab.startDomain('d', { paused: true })
  })
  afterAll(async () => await lab?.stop())

  it('virsh in one long conversation says what virsh says alone', async () => {
    expect(await lab.virsh('domstate', 'd')).toBe('paused\n')
    const failed = await lab.tryVirsh('domstate', 'no \'such\' "domain" \\ # ; $x')
    expect(failed).toMatchObject({ status: 1, stdout: '' })
    expect(failed.stderr).toContain("failed to get domain 'no 'such' \"domain\" \\ # ; $x'")
    expect(await lab.tryVirsh('nonsense')).toMatchObject({ status: 1, stderr: /unknown command: 'nonsense'/ })
    await expect(lab.virsh('domstate', 'gone')).rejects.toThrow(
      expect.objectContaining({ name: 'RunError' }) as RunError,
    )
    // What a line editor would change goes to a virsh of its own.
    expect((await lab.tryVirsh('domstate', 'ü\t')).stderr).toContain("'ü\t'")
    const [many] = await Promise.all(Array.from({ length: 9 }, () => lab.virsh('dumpxml', 'd')))
    expect(many).toMatch(/^<domain .*<\/domain>\n$/s)
    await lab.restart()
    expect(await lab.virsh('domstate', 'd')).toBe('paused\n')
  })

  it('tells the layers of each disk and the bitmaps in memory', async () => {
    await lab.checkpoint('d', 'cp1', { disks: "<disk name='sda'/><disk name='sdb'/>" })
    await lab.snapshot('d', 's1', { sda: lab.image('a1.qcow2') })
    await lab.snapshot('d', 's2', { sda: lab.image('a2.qcow2') })
    await lab.checkpoint('d', 'cp2', { disks: "<disk name='sda'/>" })
    const chains = await liveChains(lab, 'd')
    const seen = [...chains].map(([target, layers]) => [
      target,
      ...layers.map(({ filename, bitmaps }) => [filename, ...bitmaps.map(({ name }) => name)]),
    ])
    expect(seen).toEqual([
      [
        'sda',
        [lab.image('a2.qcow2'), 'cp2', 'cp1'],
        [lab.image('a1.qcow2'), 'cp1'],
        [lab.image('a.qcow2'), 'cp1'],
      ],
      ['sdb', [lab.image("it's b$x.qcow2"), 'cp1']],
      ['sdc', [lab.image('c.raw')]],
    ])
    expect(chains.get('sda')![0]).toMatchObject({
      ...{ format: 'qcow2', compat: '1.1', virtualSize: 2 * MiB, problem: undefined },
      bitmaps: [{ name: 'cp2', granularity: 65536, recording: true, inconsistent: false }, {}],
    })
    expect(chains.get('sdc')).toMatchObject([{ format: 'raw', virtualSize: MiB, bitmaps: [] }])
  })

  it("a backup's own clusters are those that qemu-img maps, with the disk's bytes", async () => {
    await lab.guestWrite('d', 'sdb', 7, 100_000 - (100_000 % 512), 512)
    await lab.guestWrite('d', 'sdb', 9, 3 * MiB - 512, 512)
    const file = lab.image('backup.qcow2')
    expect(await lab.backupBegin('d', backupXml('cp1', [{ target: 'sdb', file }]))).toEqual({
      accepted: true,
    })
    const own = ownClusters(file)
    expect([...own.keys()]).toEqual([65536, 3 * MiB - 65536])
    expect(own.get(65536)![100_000 - (100_000 % 512) - 65536]).toBe(7)
    expect(own.get(3 * MiB - 65536)!.at(-1)).toBe(9)
    rmSync(file)
  })
})

describe.skipIf(peers.skip)(`a lab whose test is killed${peers.label}`, () => {
  it('ends with it, domains and all', async () => {
    const script = `
      import { LibvirtLab } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)}
      const lab = await LibvirtLab.start()
      await lab.defineDomain({ name: 'd', disks: [{ target: 'sda', source: await lab.createImage('a', '1M') }] })
      await lab.startDomain('d', { paused: true })
      console.log(lab.images)
      process.kill(process.pid, 'SIGKILL')`
    const { stdout, signal } = await run(process.execPath, ['--input-type=module', '-e', script], {
      accept: 'any',
    })
    expect(signal).toBe('SIGKILL')
    const root = stdout.trim().replace(/\/images$/, '')
    try {
      expect(readFileSync(`${root}/r/libvirt/qemu/run/d.pid`, 'utf8')).toMatch(/^\d+/)
      await expect.poll(() => processesOf(root), { timeout: 60_000 }).toEqual([])
    } finally {
      rmSync(root, { recursive: true })
    }
  })
})

/** Names of the processes with this folder in their environment. */
function processesOf(root: string): string[] {
  return readdirSync('/proc').flatMap(pid => {
    try {
      if (!/^\d+$/.test(pid) || !readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`=${root}/`))
        return []
      return [readFileSync(`/proc/${pid}/comm`, 'utf8').trim()]
    } catch {
      return []
    }
  })
}

const images = needs('qemu-img', 'qemu-io')
describe.skipIf(images.skip)(`the clusters that a file holds${images.label}`, () => {
  it('are those of qemu-img map, zeros and the clipped last one too', async () => {
    await withTempDir(async dir => {
      const base = dir.file('base.qcow2')
      const top = dir.file('top.qcow2')
      await qemuImg.create(base, MiB + 1024)
      await qemuIo(base, ['write -P 5 0 1M'])
      await qemuImg.create(top, undefined, { backing: base, clusterSize: 4096 })
      await qemuIo(top, ['write -P 1 8192 6000', 'write -z 40960 8192', 'write -P 3 1M 1024'])
      const own = ownClusters(top)
      const mapped = (await qemuImg.map(top)).filter(({ depth }) => depth === 0)
      const starts = mapped.flatMap(({ start, length }) =>
        Array.from({ length: Math.ceil(length / 4096) }, (_, i) => start + i * 4096),
      )
      expect([...own.keys()]).toEqual(starts)
      expect(own.get(8192)!.every(byte => byte === 1)).toBe(true)
      expect(own.get(40960)!.every(byte => byte === 0)).toBe(true)
      expect([...own.get(MiB)!]).toEqual(new Array(1024).fill(3))
    })
  })

  it('are not guessed where the file is of another kind', async () => {
    await withTempDir(async dir => {
      const odd = dir.file('odd.qcow2')
      await qemuImg.create(odd, MiB, { extendedL2: true, clusterSize: 65536 })
      expect(() => ownClusters(odd)).toThrow(/features/)
      await qemuImg.create(dir.file('raw'), MiB, { format: 'raw' })
      expect(() => ownClusters(dir.file('raw'))).toThrow(/not qcow2/)
    })
  })
})
