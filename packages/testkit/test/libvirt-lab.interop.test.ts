import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dirtyMap, LibvirtLab, needs, qemuImg } from '../src/index.js'
import { extentsOf } from './extents.js'

const peers = needs('libvirt', 'qemu-nbd', 'nbdinfo')
const MiB = 2 ** 20

describe.skipIf(peers.skip)(`the libvirt lab${peers.label}`, () => {
  let lab: LibvirtLab
  beforeAll(async () => {
    lab = await LibvirtLab.start()
    const sda = await lab.createImage('a.qcow2', '64M')
    const sdb = await lab.createImage("b's.qcow2", '64M')
    const disks = [
      { target: 'sda', source: sda },
      { target: 'sdb', source: sdb },
    ]
    await lab.defineDomain({ name: 'd1', disks })
    await lab.startDomain('d1')
  }, 600_000)
  afterAll(async () => await lab?.stop(), 60_000)

  const verdict = async (checkpoint: string, target: string): Promise<string> =>
    (await lab.backupVerdict('d1', checkpoint, target)).verdict

  it('records guest writes in a checkpoint, and backs up since it', async () => {
    await lab.checkpoint('d1', 'cp1', { description: 'a < b' })
    await lab.guestWrite('d1', 'sda', 7, MiB, 65536)
    await lab.guestWrite('d1', 1, 8, 3 * MiB, 1)
    await expect(lab.guestWrite('d1', 'sda', 7, 64 * MiB, 512)).rejects.toThrow(RangeError)
    await expect(lab.guestWrite('d1', 'sdx', 7, 0, 512)).rejects.toThrow(/no disk sdx/)
    expect(await verdict('cp1', 'sda')).toBe('accept')
    expect(await lab.backupVerdict('d1', 'cp9', 'sda')).toMatchObject({ verdict: 'reject', error: /cp9/ })
    expect(existsSync(join(lab.libvirtRoot, 'qemu/checkpoint/d1/cp1.xml'))).toBe(true)
  }, 600_000)

  it('plugs a disk in: the older checkpoint does not know it', async () => {
    const sdc = await lab.createImage('c.qcow2', '8M')
    await lab.attachDisk('d1', { target: 'sdc', source: sdc })
    await lab.guestWrite('d1', 'sdc', 9, 0, 512)
    await lab.checkpoint('d1', 'cp2')
    await lab.guestWrite('d1', 'sdc', 9, 7 * MiB, 512)
    expect(await verdict('cp1', 'sdc')).toBe('reject')
    expect(await verdict('cp2', 'sdc')).toBe('accept')
    expect(readFileSync(join(lab.libvirtRoot, 'qemu/d1.xml'), 'utf8')).toContain('c.qcow2')
  }, 600_000)

  it('puts an overlay on a disk, and unplugs one', async () => {
    await lab.snapshot('d1', 's1', { sdb: lab.image('b.overlay.qcow2') })
    await lab.guestWrite('d1', 'sdb', 5, 0, 512)
    expect(await verdict('cp1', 'sdb')).toBe('accept')
    await lab.detachDisk('d1', 'sdc')
    expect((await lab.liveDisks('d1')).map(({ target, source }) => [target, source])).toEqual([
      ['sda', lab.image('a.qcow2')],
      ['sdb', lab.image('b.overlay.qcow2')],
    ])
    expect(readFileSync(join(lab.libvirtRoot, 'qemu/d1.xml'), 'utf8')).toContain('b.overlay.qcow2')
  }, 600_000)

  it('a clean end writes the bitmaps; what is removed offline is missed', async () => {
    await lab.destroyDomain('d1')
    const a = lab.image('a.qcow2')
    expect(await dirtyMap(a, 'cp1')).toEqual(extentsOf(64 * MiB, 65536, [16]))
    expect(await dirtyMap(lab.image("b's.qcow2"), 'cp1')).toEqual(extentsOf(64 * MiB, 65536, [48]))
    expect(await dirtyMap(lab.image('b.overlay.qcow2'), 'cp1')).toEqual(extentsOf(64 * MiB, 65536, [0]))
    await qemuImg.bitmap('--remove', a, 'cp1')
    await lab.startDomain('d1')
    expect(await verdict('cp1', 'sda')).toBe('reject')
    expect(await verdict('cp1', 'sdb')).toBe('accept')
    expect(await verdict('cp2', 'sda')).toBe('accept')
  }, 600_000)

  it('a crash leaves bitmaps in use', async () => {
    await lab.crashDomain('d1')
    const image = await qemuImg.info(lab.image('a.qcow2'))
    expect(image['format-specific']?.data.bitmaps).toMatchObject([{ name: 'cp2', flags: ['in-use', 'auto'] }])
    await lab.startDomain('d1')
    expect(await verdict('cp2', 'sda')).toBe('reject')
  }, 600_000)

  it('leaves nothing behind, also where a domain runs', async () => {
    const root = join(lab.images, '..')
    const pid = Number(readFileSync(join(root, 'r/libvirt/qemu/run/d1.pid'), 'utf8'))
    await lab.stop()
    expect(existsSync(root)).toBe(false)
    // A zombie waits for init, which some containers lack; it is no running process.
    const status = existsSync(`/proc/${pid}`) ? readFileSync(`/proc/${pid}/status`, 'utf8') : ''
    expect(status).not.toMatch(/State:\s+[^ZX]/)
  }, 600_000)
})
