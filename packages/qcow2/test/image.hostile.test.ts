// Truncated, mutated and boastful images: a typed error or findings; never another exception, a wait without end,
// or more memory than the file itself.
import { buildQcow2, putU32, putU64, type Qcow2Layout, Random } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import {
  type BitmapEngine,
  COMBINE_ARENA_BYTES,
  countDirty,
  createEngine,
  dirtyExtents,
  inspectImage,
  openBitmap,
  Qcow2Error,
} from '../src/index.js'
import { type CountingStorage, countingStorage } from './counting.js'
import { collect } from './model.js'

const engine: BitmapEngine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })

/** Everything that can be asked of an image; only a Qcow2Error may come out. */
async function exercise(bytes: Uint8Array): Promise<{ storage: CountingStorage; codes: string[] }> {
  const storage = countingStorage(bytes)
  const codes: string[] = []
  const attempt = async (use: () => Promise<unknown>): Promise<void> => {
    try {
      await use()
    } catch (error) {
      if (!(error instanceof Qcow2Error)) throw error
      expect(error.message).not.toBe('')
      codes.push(error.code)
    }
  }
  await attempt(async () => {
    const image = await inspectImage(storage, engine)
    // cluster 0 twice at most (prefix and whole), the directory once.
    expect(storage.bytesRead()).toBeLessThanOrEqual(112 + bytes.length * 2)
    expect(storage.reads.length).toBeLessThanOrEqual(3)
    codes.push(...image.findings.map(finding => finding.code))
    for (const bitmap of (image.bitmapDirectory?.bitmaps ?? []).slice(0, 8)) {
      for (const force of [false, true]) {
        const before = storage.bytesRead()
        await attempt(() => countDirty(engine, [openBitmap(image, bitmap, engine, { force })]))
        await attempt(async () => {
          const source = openBitmap(image, bitmap, engine, { force })
          let chunks = 0
          for await (const _ of dirtyExtents(engine, [source])) if (++chunks > 4) break
        })
        // Table and data, each time; entries may all point at the same clusters.
        const most = Math.min(bitmap.bitmapBytes, bitmap.tableSize * image.clusterSize) + bitmap.tableSize * 8
        expect(storage.bytesRead() - before).toBeLessThanOrEqual(2 * most)
      }
    }
  })
  return { storage, codes }
}

const clusterBits = 9
function sound(): { bytes: Uint8Array; layout: Qcow2Layout } {
  return buildQcow2({
    clusterBits,
    virtualSize: 3 * 4096 * 512 + 512 * 9,
    backingFile: 'b',
    backingFormat: 'raw',
    extensions: [{ magic: 0x12345678, data: new Uint8Array(5) }],
    bitmaps: [
      {
        name: 'data',
        granularityBits: 9,
        table: [new Uint8Array(512).fill(0x5a), 'ones', 'zeros', new Uint8Array([3])],
      },
      { name: 'coarse', dirty: [1, 3] },
      { name: 'in-use', flags: 1, granularityBits: 12, dirty: [0] },
    ],
  })
}

describe('truncated', () => {
  const { bytes, layout } = sound()
  const edges = new Set<number>()
  const around = (...offsets: number[]) => {
    for (const offset of offsets) for (const near of [-1, 0, 1]) edges.add(offset + near)
  }
  around(1, 4, 8, 72, 104, 112, layout.end, layout.l1.offset, layout.refcountTable.offset)
  for (const { offset, dataOffset, length } of layout.extensions)
    around(offset, dataOffset, dataOffset + length)
  around(layout.directory!.offset, layout.directory!.offset + layout.directory!.size)
  for (const { entry, table, data } of layout.bitmaps) {
    around(
      entry.offset,
      entry.nameOffset,
      entry.offset + entry.length,
      table.offset,
      table.offset + table.entries * 8,
    )
    for (const offset of data.values()) around(offset, offset + 512)
  }
  const random = new Random('truncated')
  for (let i = 0; i < 300; i++) edges.add(random.int(0, bytes.length))

  it(`at ${edges.size} places: says so, or nothing that is needed is missing`, async () => {
    const whole = await exercise(bytes)
    expect(whole.codes).toEqual(['bitmap-in-use', 'bitmap-inconsistent', 'bitmap-inconsistent'])
    for (const at of edges) {
      if (at < 0 || at >= bytes.length) continue
      const { codes } = await exercise(bytes.subarray(0, at))
      // The file's last cluster is that of the in-use bitmap, which nobody reads without force.
      if (at < layout.bitmaps[2]!.table.offset) expect({ at, codes }).not.toEqual({ at, codes: whole.codes })
    }
  })
})

describe('mutated', () => {
  const { bytes, layout } = sound()
  const areas: [string, number, number][] = [
    ['header', 0, 112],
    ['extensions', 112, layout.backingFile!.offset + 1],
    ['directory', layout.directory!.offset, layout.directory!.offset + layout.directory!.size],
    ['table', layout.bitmaps[0]!.table.offset, layout.bitmaps[0]!.table.offset + 32],
    ['everything', 0, bytes.length],
  ]
  it.each(areas)('%s: 1,500 times', async (area, from, to) => {
    const random = new Random(`mutated ${area}`)
    for (let i = 0; i < 1500; i++) {
      const copy = bytes.slice()
      for (let n = random.int(1, 4); n > 0; n--) {
        const at = random.int(from, to - 1)
        copy[at] = random.pick([
          0,
          1,
          0x7f,
          0x80,
          0xff,
          random.int(0, 255),
          copy[at]! ^ (1 << random.int(0, 7)),
        ])
      }
      await exercise(copy)
    }
  })

  it('whole fields of the header and the extension: each at its extremes', async () => {
    const values = [
      0n,
      1n,
      511n,
      512n,
      2n ** 31n,
      2n ** 32n - 1n,
      2n ** 53n - 1n,
      2n ** 53n,
      2n ** 63n,
      2n ** 64n - 1n,
    ]
    for (let at = 8; at < layout.bitmapsExtension! + 24; at += 8) {
      for (const value of values) {
        const copy = bytes.slice()
        putU64(copy, at, value)
        await exercise(copy)
      }
    }
  })
})

describe('boastful: small files that claim much', () => {
  const claims: [string, (bytes: Uint8Array, layout: Qcow2Layout) => void][] = [
    ['65,535 bitmaps', (b, l) => putU32(b, l.bitmapsExtension!, 65535)],
    ['2^32 − 1 bitmaps', (b, l) => putU32(b, l.bitmapsExtension!, 0xffffffff)],
    ['a directory of 64 MiB', (b, l) => putU64(b, l.bitmapsExtension! + 8, 1024 * 65535)],
    ['a directory of 2^63 bytes', (b, l) => putU64(b, l.bitmapsExtension! + 8, 2n ** 63n)],
    ['a table of 2^27 entries', (b, l) => putU32(b, l.bitmaps[0]!.entry.offset + 8, 2 ** 27)],
    ['a table of 2^20 entries: 512 MiB', (b, l) => putU32(b, l.bitmaps[0]!.entry.offset + 8, 2 ** 20)],
    ['an in-use table of 2^20 entries', (b, l) => putU32(b, l.bitmaps[2]!.entry.offset + 8, 2 ** 20)],
    ['extra data of 4 GiB', (b, l) => putU32(b, l.bitmaps[0]!.entry.offset + 20, 0xffffffff)],
    ['an extension of 4 GiB', (b, l) => putU32(b, l.extensions[0]!.offset + 4, 0xffffffff)],
    ['a disk of 2^52 bytes', b => putU64(b, 24, 2 ** 52)],
    ['a disk of 2^64 − 1 bytes', b => putU64(b, 24, 2n ** 64n - 1n)],
    ['clusters of 2 MiB', b => putU32(b, 20, 21)],
    ['a backing name of 4 GiB', b => putU32(b, 16, 0xffffffff)],
  ]
  it.each(claims)('%s', async (_, claim) => {
    const { bytes, layout } = sound()
    claim(bytes, layout)
    const before = process.memoryUsage().arrayBuffers
    const began = performance.now()
    const { codes } = await exercise(bytes)
    expect(codes).not.toEqual((await exercise(sound().bytes)).codes)
    expect(performance.now() - began).toBeLessThan(2000)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * 2 ** 20)
  })

  it('an in-use bitmap of 2^32 granules without a table to speak of is dirty at once', async () => {
    const { bytes } = buildQcow2({
      clusterBits: 16,
      virtualSize: 2 ** 41,
      bitmaps: [{ name: 'b', flags: 1, granularityBits: 9, tableSize: 1, table: ['zeros'] }],
    })
    const image = await inspectImage(countingStorage(bytes), engine)
    const source = openBitmap(image, image.bitmapDirectory!.bitmaps[0]!, engine, { force: true })
    // One entry: 64 KiB of bits, all clear; what no table speaks of is dirty.
    expect(await collect(dirtyExtents(engine, [source]))).toEqual([65536 * 8 * 512, 2 ** 41])
  })
})
