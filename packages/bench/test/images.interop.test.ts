import { dirtyMap, needs, qemuImg, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { countDirtyBytes, sameBitmaps, sameDirtyBytes } from '../src/process/answers.js'
import { freshCopy, processBenchmarks } from '../src/process/benchmarks.js'
import { timeCommand, weighCommand } from '../src/process/command.js'
import { CLUSTER_BYTES, writeStreamedImage } from '../src/process/image-writer.js'
import { Gallery } from '../src/process/images.js'

const peers = needs('qemu-img', 'qemu-nbd', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())

describe.skipIf(peers.skip)(`a streamed image${peers.label}`, () => {
  const file = dir.file('streamed.qcow2')
  /** Two clusters of bits and a piece: 512 bytes each, the last granule clipped. */
  const virtualSize = CLUSTER_BYTES * 8 * 512 * 2 + 12_800
  const granules = Math.ceil(virtualSize / 512)
  const dirty = [0, 7, 8, 4095, CLUSTER_BYTES * 8 - 1, CLUSTER_BYTES * 8, CLUSTER_BYTES * 16, granules - 1]
  let counts: number[]

  beforeAll(() => {
    counts = writeStreamedImage(file, {
      virtualSize,
      bitmaps: [
        { name: 'no-data', granularityBits: 16 },
        {
          name: 'bits',
          granularityBits: 9,
          fill(cluster, index) {
            for (const bit of dirty) {
              const at = bit - index * CLUSTER_BYTES * 8
              if (at >= 0 && at < CLUSTER_BYTES * 8) cluster[at >> 3]! |= 1 << (at & 7)
            }
          },
        },
        { name: 'holes', granularityBits: 9, fill: () => {} },
      ],
    })
  })

  it('is without fault for qemu-img', async () => {
    expect(await qemuImg.check(file)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
    const { 'virtual-size': size, 'format-specific': specific } = await qemuImg.info(file)
    expect(size).toBe(virtualSize)
    expect(specific?.data.bitmaps).toEqual([
      { name: 'no-data', granularity: 65536, flags: ['auto'] },
      { name: 'bits', granularity: 512, flags: ['auto'] },
      { name: 'holes', granularity: 512, flags: ['auto'] },
    ])
  })

  it('has the bits that were set, as nbdinfo sees them', async () => {
    expect(counts).toEqual([0, dirty.length, 0])
    const seen = (await dirtyMap(file, 'bits')).filter(({ type }) => type === 1)
    const found = seen.flatMap(({ offset, length }) =>
      Array.from({ length: Math.ceil(length / 512) }, (_, i) => offset / 512 + i),
    )
    expect(found).toEqual(dirty)
    expect((await dirtyMap(file, 'no-data')).map(({ type }) => type)).toEqual([0])
    expect((await dirtyMap(file, 'holes')).map(({ type }) => type)).toEqual([0])
  })

  it('can be written to by qemu-img', async () => {
    const copy = dir.file('copy.qcow2')
    freshCopy(file, copy)
    await qemuImg.bitmap('--merge', 'bits', copy, 'no-data')
    expect(await qemuImg.check(copy)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
    expect((await dirtyMap(copy, 'no-data')).filter(({ type }) => type === 1).length).toBeGreaterThan(0)
  })
})

describe.skipIf(peers.skip)(`the commands that are timed${peers.label}`, () => {
  const gallery = new Gallery(dir.path)
  const benchmark = (name: string) => processBenchmarks.find(each => each.name === name)!

  it('list what qemu-img lists', () => {
    const { file } = gallery.image('small')
    sameBitmaps(file)
    expect(timeCommand(benchmark('info-1t').tidemark(file, gallery.path('out')))).toBeGreaterThan(0)
  })

  it('unite what qemu-img merges', () => {
    const { file, counts } = gallery.image('small')
    expect(Math.min(...counts)).toBeGreaterThan(0)
    const { peer, check } = benchmark('union-extents')
    const copy = gallery.path('merged.qcow2')
    freshCopy(file, copy)
    timeCommand(peer!.command(copy, gallery.path('out')))
    check!(gallery, { image: file, afterPeer: copy })
    // And it notices where nothing was merged.
    expect(() => check!(gallery, { image: file, afterPeer: file })).toThrow('dirty bytes')
  })

  it('are weighed', () => {
    const { peakBytes } = weighCommand({ program: process.execPath, args: ['-e', '0'] }, dir.file('rss'))
    if (peakBytes !== undefined) expect(peakBytes).toBeGreaterThan(20e6)
  })

  it('say what went wrong', () => {
    expect(() => timeCommand({ program: process.execPath, args: ['-e', 'process.exit(3)'] })).toThrow('3')
    expect(() => sameDirtyBytes(gallery.image('small').file, 'a', 1)).toThrow('dirty bytes')
    expect(countDirtyBytes({ program: 'echo', args: ['{"length":5}\n{"length":7}'] }, dir.file('map'))).toBe(
      12,
    )
  })
})
