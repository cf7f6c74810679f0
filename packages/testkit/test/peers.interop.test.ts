import { mkdirSync, rmSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import {
  dirtyMap,
  dirtyMaps,
  makeRandomImage,
  mergedExtents,
  needs,
  qcow2Blockdev,
  qemuImg,
  qemuIo,
  qemuIoCrash,
  Random,
  run,
  StorageDaemon,
  tempDir,
} from '../src/index.js'
import { extentsOf } from './extents.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo', 'qemu-storage-daemon')
const dir = tempDir()
afterAll(() => dir.remove())

async function withBitmap(name: string): Promise<string> {
  const file = dir.file(name)
  await qemuImg.create(file, '64M')
  await qemuImg.bitmap('--add', '-g', '64k', file, 'b0')
  return file
}

const flags = async (file: string): Promise<unknown> =>
  (await qemuImg.info(file))['format-specific']?.data.bitmaps?.map(bitmap => bitmap.flags)

describe.skipIf(peers.skip)(`the wrappers of QEMU${peers.label}`, () => {
  it('maps a bitmap, many at a time', async () => {
    const file = await withBitmap('map.qcow2')
    await qemuIo(file, ['write -P 7 1M 200k', 'write -P 7 3M 1'])
    const expected = extentsOf(64 * 2 ** 20, 65536, [16, 17, 18, 19, 48])
    const maps = await Promise.all(Array.from({ length: 8 }, () => dirtyMap(file, 'b0')))
    for (const map of maps) expect(map).toEqual(expected)
  }, 600_000)

  it('finds a bitmap in the image itself only', async () => {
    const base = await withBitmap('base.qcow2')
    const top = dir.file('top.qcow2')
    await qemuImg.create(top, undefined, { backing: base })
    expect(await qemuImg.infoChain(top)).toHaveLength(2)
    await expect(dirtyMap(top, 'b0')).rejects.toThrow(/has no bitmap "b0"/)
    await qemuImg.bitmap('--add', '-g', '64k', top, 'b0')
    await qemuIo(top, ['write 0 64k'])
    rmSync(base)
    expect(await dirtyMap(top, 'b0')).toEqual(extentsOf(64 * 2 ** 20, 65536, [0]))
  })

  it('merges neighbours, and notices a gap or a short end', () => {
    const dirty = { type: 1, description: 'dirty' }
    const halves = [
      { offset: 0, length: 512, ...dirty },
      { offset: 512, length: 512, ...dirty },
    ]
    expect(mergedExtents(halves, 1024)).toEqual([{ offset: 0, length: 1024, ...dirty }])
    expect(() => mergedExtents(halves, 2048)).toThrow(/end at 1024/)
    expect(() => mergedExtents(halves.slice(1), 1024)).toThrow(/512 follows 0/)
  })

  it('a crash leaves bitmaps in use, which can not be mapped', async () => {
    const file = await withBitmap('crash.qcow2')
    await qemuIoCrash(file, ['write 0 64k'])
    expect(await flags(file)).toEqual([['in-use', 'auto']])
    await expect(dirtyMap(file, 'b0')).rejects.toThrow(/is in use/)
  })

  it('qemu-io fails where a command of it fails', async () => {
    const file = await withBitmap('io.qcow2')
    await qemuIo(file, ['write -P 7 0 64k', 'read -P 7 0 64k'])
    await expect(qemuIo(file, ['read -P 8 0 64k'], { readOnly: true })).rejects.toThrow(/verification failed/)
    await expect(qemuIo(file, ['write 0 64k'], { readOnly: true })).rejects.toThrow()
    await expect(qemuIo(file, ['write 1G 64k'])).rejects.toThrow()
    await expect(qemuIo(file, ['frobnicate'])).rejects.toThrow()
  })

  it('check, compare, convert, map and snapshot', async () => {
    const file = await withBitmap('tools.qcow2')
    const raw = dir.file('tools.raw')
    await qemuImg.bitmap('--remove', file, 'b0')
    await qemuImg.snapshot('-c', 's1', file)
    await qemuIo(file, ['write -P 9 1M 64k'])
    await qemuImg.convert(file, raw)
    expect(await qemuImg.compare(file, raw)).toBe(true)
    // Strictly, a raw file's holes are not a qcow2's unallocated clusters.
    expect(await qemuImg.compare(file, raw, { strict: true })).toBe(false)
    expect((await qemuImg.map(file)).filter(extent => extent.data)).toMatchObject([
      { start: 2 ** 20, length: 65536, depth: 0 },
    ])
    await qemuIo(file, ['write -P 8 1M 64k'])
    expect(await qemuImg.compare(file, raw)).toBe(false)
    await qemuImg.resize(file, '32M')
    expect(await qemuImg.check(file)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
  })
})

describe.skipIf(peers.skip)(`qemu-storage-daemon${peers.label}`, () => {
  it('answers QMP, exports a writable node, and writes its bitmaps at the end', async () => {
    const file = await withBitmap('daemon.qcow2')
    const daemon = await StorageDaemon.start([qcow2Blockdev('disk', file)])
    await daemon.qmp('block-dirty-bitmap-add', {
      node: 'disk',
      name: 'b1',
      persistent: true,
      granularity: 512,
    })
    await expect(daemon.qmp('block-dirty-bitmap-add', { node: 'disk', name: 'b1' })).rejects.toThrow(/exist/)
    const uri = await daemon.exportNbd('disk', { writable: true })
    await run('qemu-io', ['-f', 'raw', '-c', 'write -P 5 512 512', uri])
    await daemon.quit()
    await expect(daemon.qmp('query-status')).rejects.toThrow(/has ended/)
    expect(await dirtyMap(file, 'b1')).toEqual(extentsOf(64 * 2 ** 20, 512, [1]))
    expect(await dirtyMap(file, 'b0')).toEqual(extentsOf(64 * 2 ** 20, 65536, [0]))
  }, 600_000)

  it('killed, it leaves bitmaps in use and no process', async () => {
    const file = await withBitmap('killed.qcow2')
    const daemon = await StorageDaemon.start([qcow2Blockdev('disk', file)])
    const pid = daemon.pid as number
    await daemon.kill()
    expect(() => process.kill(pid, 0)).toThrow()
    expect(await flags(file)).toEqual([['in-use', 'auto']])
  }, 600_000)

  it('tells why it could not start', async () => {
    await expect(StorageDaemon.start([qcow2Blockdev('disk', dir.file('none.qcow2'))])).rejects.toThrow(
      /No such file/,
    )
  })
})

describe.skipIf(peers.skip)(`random images${peers.label}`, () => {
  it('are what they say, and the same for the same seed', async () => {
    for (let seed = 0; seed < 16; seed++) {
      const image = await makeRandomImage(seed, dir.path)
      const real = await qemuImg.info(image.file)
      expect(real).toMatchObject({ 'virtual-size': image.size, 'cluster-size': image.clusterSize })
      expect(real['format-specific']?.data.bitmaps).toEqual(
        image.bitmaps.map(({ name, granularity, recording }) => ({
          name,
          granularity,
          flags: recording ? ['auto'] : [],
        })),
      )
      expect(await qemuImg.check(image.file)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
      expect([...(await dirtyMaps(image.file)).keys()]).toEqual(image.bitmaps.map(({ name }) => name))
    }
    const again = dir.file('again')
    mkdirSync(again)
    const first = await makeRandomImage(5, again)
    const second = dir.file('5.qcow2')
    expect(await qemuImg.compare(first.file, second, { strict: true })).toBe(true)
    for (const { name } of first.bitmaps) {
      expect(await dirtyMap(first.file, name)).toEqual(await dirtyMap(second, name))
    }
  }, 600_000)

  it('cover the cluster sizes', () => {
    const seeds = Array.from({ length: 300 }, (_, seed) => new Random(seed).fork('image').int(9, 21))
    expect(new Set(seeds).size).toBe(13)
  })
})
