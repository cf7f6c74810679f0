// What an image refers to, against QEMU's own count: in an image that qemu-img check finds clean, just the clusters
// with a refcount are used; in one with leaks, as many more have one as it says.
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import {
  buildQcow2,
  dataAxes,
  makeRandomDataImage,
  makeRandomImage,
  needs,
  qemuImg,
  runSync,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { Refcounts } from '../src/check/refcounts.js'
import { createEngine, inspectImage, mapReferences, memoryStorage } from '../src/index.js'
import { openFile } from '../src/node/index.js'

const peers = needs('qemu-img', 'qemu-io')
const dir = tempDir()
afterAll(() => dir.remove())

/** Clusters that are used, and those that have a refcount: `leaked` only the latter, `lost` only the former. */
async function audit(file: string) {
  const storage = await openFile(file)
  try {
    const image = await inspectImage(storage)
    const { used, clusters, bitmapClusters } = await mapReferences(image, createEngine())
    const refcounts = await Refcounts.open(image)
    let [leaked, lost, counted] = [0, 0, 0]
    for (let cluster = 0; cluster < clusters; cluster++) {
      const count = await refcounts.get(cluster)
      if (count > 0) counted++
      if (count > 0 && !used.has(cluster)) leaked++
      if (count === 0 && used.has(cluster)) lost++
    }
    return { leaked, lost, counted, used: used.count, bitmapClusters }
  } finally {
    await storage.close()
  }
}

describe.skipIf(peers.skip)(`what an image refers to${peers.label}`, () => {
  it('with bitmaps of every shape', async () => {
    let bitmapClusters = 0
    for (let seed = 0; seed < 24; seed++) {
      const { file } = await makeRandomImage(`references-${seed}`, dir.path)
      expect(await qemuImg.check(file)).toMatchObject({ leaks: 0, corruptions: 0 })
      const found = await audit(file)
      expect(found, file).toMatchObject({ leaked: 0, lost: 0, used: found.counted })
      expect(found.bitmapClusters).toBeGreaterThan(0)
      bitmapClusters += found.bitmapClusters
    }
    expect(bitmapClusters).toBeGreaterThan(48)
  })

  it('with guest data, compressed, in subclusters, in snapshots, encrypted or elsewhere', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < 40; seed++) {
      const image = await makeRandomDataImage(`references-${seed}`, dir.path)
      for (const layer of image.layers) {
        if (layer.format !== 'qcow2') continue
        for (const [axis, values] of Object.entries(image.features))
          for (const value of values) seen.add(`${axis} ${value}`)
        const found = await audit(layer.file)
        expect(found, layer.file).toMatchObject({ leaked: 0, lost: 0, used: found.counted })
      }
    }
    const missing = Object.entries(dataAxes).flatMap(([axis, values]) =>
      values.map(value => `${axis} ${value}`).filter(each => !seen.has(each)),
    )
    expect(missing.length, missing.join(', ')).toBeLessThan(8)
  })

  /** The bytes of a fresh image with one L2 table, patched, and where that table is. */
  const patched = (name: string, patch: (view: DataView, l2: number, l1: number) => void): string => {
    const file = dir.file(name)
    runSync('qemu-img', ['create', '-q', '-f', 'qcow2', file, '1M'])
    runSync('qemu-io', ['-c', 'write -q -P 1 0 192k', file])
    runSync('qemu-img', ['bitmap', '--add', '--enable', file, 'b'])
    runSync('qemu-io', ['-c', 'write -q -P 2 0 64k', file])
    const fd = openSync(file, 'r+')
    const bytes = new Uint8Array(16 * 65536)
    const length = readSync(fd, bytes, 0, bytes.length, 0)
    const view = new DataView(bytes.buffer)
    const offset = (at: number) => Number(view.getBigUint64(at) & 0x00fffffffffffe00n)
    const l1 = offset(40)
    patch(view, offset(l1), l1)
    writeSync(fd, bytes, 0, length, 0)
    closeSync(fd)
    return file
  }

  /** Where the refcount table is. */
  const counts = (view: DataView) => Number(view.getBigUint64(48))
  /** Entries of all tables but L2's flags are offsets. */
  const copy = (view: DataView, from: number, to: number) =>
    view.setBigUint64(to, view.getBigUint64(from) & 0x00fffffffffffe00n)

  it('and what it no longer does: leaks, as many as qemu-img check finds', async () => {
    const file = patched('leaks', (view, l2) => {
      view.setBigUint64(l2, 0n)
      view.setBigUint64(l2 + 16, 0n)
    })
    expect(await qemuImg.check(file)).toMatchObject({ leaks: 2 })
    expect(await audit(file)).toMatchObject({ leaked: 2, lost: 0 })
  })

  it('more often than it counts: what no writer may take for free', async () => {
    const file = patched('lost', (view, l2) => {
      const block = Number(view.getBigUint64(Number(view.getBigUint64(48))))
      const cluster = Number(view.getBigUint64(l2) & 0x00fffffffffffe00n) / 65536
      view.setUint16(block + cluster * 2, 0)
    })
    // QEMU counts the COPIED flag, which is wrong then, apart.
    expect(await qemuImg.check(file)).toMatchObject({ corruptions: 2 })
    expect(await audit(file)).toMatchObject({ leaked: 0, lost: 1 })
  })

  it.each<[string, (view: DataView, l2: number, l1: number) => void, string]>([
    [
      'data behind the end',
      (view, l2) => view.setBigUint64(l2, (1n << 63n) | (1n << 40n)),
      'within the file',
    ],
    ['data at no cluster', (view, l2) => view.setUint8(l2 + 6, 2), 'cluster boundary'],
    ['an L2 table behind the end', (view, _, l1) => view.setUint8(l1 + 3, 1), 'within the file'],
    // An edit writes into refcount blocks, the table of them and the header where they are.
    ['refcounts in guest data', (view, l2) => copy(view, l2, counts(view)), 'clusters of its own'],
    ['refcounts in a table', (view, _, l1) => copy(view, l1, counts(view)), 'clusters of its own'],
    ['one block twice', view => copy(view, counts(view), counts(view) + 8), 'clusters of its own'],
    ['the table as block', view => copy(view, 48, counts(view)), 'clusters of its own'],
    ['data in a block', (view, l2) => copy(view, counts(view), l2), 'clusters of its own'],
    ['an L2 table in a block', (view, _, l1) => copy(view, counts(view), l1), 'clusters of its own'],
    ['data in the refcount table', (view, l2) => copy(view, 48, l2), 'clusters of its own'],
    ['the L1 table as header', view => view.setBigUint64(40, 0n), 'clusters of its own'],
    [
      'compressed data in the header',
      (view, l2) => view.setBigUint64(l2, (1n << 62n) | 1024n),
      'clusters of its own',
    ],
  ])('refused: %s', async (name, patch, expected) => {
    await expect(audit(patched(name.replaceAll(' ', '-'), patch))).rejects.toMatchObject({
      code: 'corrupt-image',
      details: { expected: expect.stringContaining(expected) },
    })
  })

  it('refused: a table that the file ends in, a bitmap’s or of guest data, wherever it ends', async () => {
    const { bytes, layout } = buildQcow2({
      virtualSize: 2 ** 30,
      clusterBits: 9,
      bitmaps: [{ name: 'b', dirty: [1], granularityBits: 9 }],
    })
    const { l1 } = layout
    const { table } = layout.bitmaps[0]!
    for (const { offset, entries } of [l1, table]) {
      const length = entries * 8
      for (const end of [offset + 8, offset + length - 8, offset + length - 1]) {
        // Of what lies behind it nothing is left, but the table itself is looked at before.
        const image = await inspectImage(memoryStorage(bytes.slice(0, end)))
        await expect(
          mapReferences(image, createEngine()),
          `${offset} + ${end - offset}`,
        ).rejects.toMatchObject({
          code: 'corrupt-image',
          details: { expected: expect.stringContaining('within the file') },
        })
      }
    }
  })

  it('refused: a bitmap on what others have', async () => {
    const { bytes, layout } = buildQcow2({ bitmaps: [{ name: 'b', dirty: [1], granularityBits: 9 }] })
    const table = layout.bitmaps[0]!.table.offset
    const refer = async (offset: number) => {
      const copy = bytes.slice()
      new DataView(copy.buffer).setBigUint64(table, BigInt(offset))
      return mapReferences(await inspectImage(memoryStorage(copy)), createEngine())
    }
    for (const [structure, offset] of Object.entries({
      l1: layout.l1.offset,
      directory: layout.directory!.offset,
      table,
    })) {
      await expect(refer(offset), structure).rejects.toMatchObject({
        details: { expected: 'clusters of its own', offset: table },
      })
    }
    await expect(refer(layout.end)).rejects.toMatchObject({ code: 'corrupt-image' })
  })
})
