// Images that lie: claims beyond all reason, references in circles, streams that swell. Crafted, each with one lie; what
// the fuzzer found is here too. Files are sparse, in memory: a hostile one costs its maker nothing.
import { deflateRawSync, constants as zlib } from 'node:zlib'
import { buildQcow2, extensionMagic, putU32, putU64, type Qcow2Spec } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import {
  type Codecs,
  type DiskExtent,
  type GuestDisk,
  type ImageStorage,
  inspectImage,
  libraryCodecs,
  memoryStorage,
  type OpenDiskOptions,
  openChain,
  openDisk,
  parseBackingName,
  Qcow2Error,
  readSnapshots,
} from '../src/index.js'
import { nodeCodecs } from '../src/node/index.js'
import { COMPRESSED, COPIED, dataImage } from './data-image.js'
import { type SparseStorage, sparseStorage } from './sparse.js'

const KiB = 1024
const MiB = 1024 * KiB
const TiB = 2 ** 40
const CLUSTER = 64 * KiB

/** Header fields to set, by their offsets; those of 64 bits as bigint. */
type Fields = Readonly<Record<number, number | bigint>>

/** Cluster 0 of a sound image, with some fields changed: its tables are where a test puts them. */
function header(spec: Qcow2Spec, fields: Fields = {}): Uint8Array {
  const { bytes, layout } = buildQcow2({ virtualSize: 0, ...spec })
  const cluster = bytes.slice(0, layout.clusterSize)
  for (const [at, value] of Object.entries(fields)) {
    if (typeof value === 'bigint') putU64(cluster, Number(at), value)
    else putU32(cluster, Number(at), value)
  }
  return cluster
}

const size = 24
const l1Size = 36
const l1Offset = 40
const refcountOffset = 48
const refcountClusters = 56
const nbSnapshots = 60
const snapshotsOffset = 64

function words(...values: (bigint | number)[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8)
  for (const [i, value] of values.entries()) putU64(bytes, i * 8, value)
  return bytes
}

async function diskOf(image: ImageStorage | Uint8Array, options: OpenDiskOptions = {}): Promise<GuestDisk> {
  const storage = image instanceof Uint8Array ? memoryStorage(image) : image
  const open = async (path: string) => ({ storage, filename: path, namedAs: path })
  return openDisk(await openChain({ name: 'top', format: 'qcow2' }, { open }), options)
}

async function read(disk: GuestDisk, offset = 0, length = disk.size - offset): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xaa)
  await disk.readInto(target, offset)
  return target
}

async function extents(disk: GuestDisk, start?: number, length?: number): Promise<DiskExtent[]> {
  const all: DiskExtent[] = []
  for await (const chunk of disk.extents(start, length)) all.push(...chunk)
  return all
}

/** Time, and memory at the most that the system has seen of it; what is left behind counts as well. */
async function within<T>(seconds: number, mebibytes: number, use: () => Promise<T>): Promise<T> {
  const before = { rss: process.memoryUsage.rss(), peak: process.resourceUsage().maxRSS * KiB }
  const began = performance.now()
  const result = await use()
  expect((performance.now() - began) / 1000).toBeLessThan(seconds)
  const { maxRSS } = process.resourceUsage()
  const grown = Math.max(
    process.memoryUsage.rss() - before.rss,
    maxRSS * KiB > before.peak ? maxRSS * KiB - before.rss : 0,
  )
  expect(grown / MiB).toBeLessThan(mebibytes)
  return result
}

describe.each<[string, Codecs]>([
  ['node', nodeCodecs],
  ['library', libraryCodecs],
])('streams that swell, with the codecs of %s', (_, codecs) => {
  /** A cluster of 2 MiB, of the most sectors that a descriptor can name. */
  const swelling = (stream: Uint8Array, compressionType: number): SparseStorage => {
    const cluster = 2 * MiB
    const fields = { [size]: BigInt(cluster), [l1Size]: 1, [l1Offset]: BigInt(2 * cluster) }
    const entry = COMPRESSED | (8191n << 49n) | BigInt(4 * cluster)
    return sparseStorage(8 * cluster, [
      [0, header({ clusterBits: 21, compressionType }, fields)],
      [2 * cluster, words(COPIED | BigInt(3 * cluster))],
      [3 * cluster, words(entry)],
      [4 * cluster, stream],
    ])
  }

  it('deflate, 4 MiB to 4 GiB: the cluster, and no more', async () => {
    // Ends at a byte, and is not the last block: any number of them makes a stream.
    const block = deflateRawSync(new Uint8Array(16 * MiB), { finishFlush: zlib.Z_FULL_FLUSH })
    const stream = new Uint8Array(4 * MiB)
    for (let at = 0; at + block.length <= stream.length; at += block.length) stream.set(block, at)
    const disk = await diskOf(swelling(stream, 0), { codecs })
    const bytes = await within(3, 64, () => read(disk))
    expect(bytes.every(byte => byte === 0)).toBe(true)
  })

  const MAGIC = [0x28, 0xb5, 0x2f, 0xfd]
  const frames: [string, () => Uint8Array][] = [
    [
      'blocks of one byte, 128 KiB each, to 128 GiB',
      () => {
        const stream = new Uint8Array(4 * MiB)
        // A window of 128 KiB; no size of the content.
        stream.set([...MAGIC, 0, 7 << 3])
        const block = ((128 * KiB) << 3) | 2
        for (let at = 6; at + 4 <= stream.length; at += 4) {
          stream.set([block & 0xff, (block >> 8) & 0xff, block >> 16, 0], at)
        }
        return stream
      },
    ],
    ['a content of 2^60 bytes', () => Uint8Array.from([...MAGIC, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 3, 0, 0])],
    ['a window of 2 TiB', () => Uint8Array.from([...MAGIC, 0, 0xf8, 3, 0, 0])],
    [
      'a million empty frames',
      () => {
        const stream = new Uint8Array(4 * MiB)
        const frame = [...MAGIC, 0x20, 0, 1, 0, 0]
        for (let at = 0; at + frame.length <= stream.length; at += frame.length) stream.set(frame, at)
        return stream
      },
    ],
  ]
  it.each(frames)('zstd: %s', async (_, stream) => {
    const disk = await diskOf(swelling(stream(), 1), { codecs })
    await within(3, 64, () => expect(read(disk)).rejects.toMatchObject({ code: 'decompress-failed' }))
  })
})

describe('compressed clusters', () => {
  const plain = Uint8Array.from({ length: CLUSTER }, (_, i) => (i * i) >> 9)
  const stream = deflateRawSync(plain, { windowBits: 12 })
  const sectors = Math.ceil(stream.length / 512)
  /** The stream begins the third cluster behind the metadata, which is the file's last. */
  const image = (entries: (place: number, end: number) => bigint[]) => {
    const l2 = Array<bigint>(entries(0, 0).length).fill(0n)
    const built = dataImage({ virtualSize: l2.length * CLUSTER, l2: [...l2, new Uint8Array(CLUSTER)] })
    const place = built.clusters[0]!
    const bytes = built.bytes.slice(0, place + stream.length)
    bytes.set(stream, place)
    bytes.set(words(...entries(place, bytes.length), 0n), built.l2)
    return bytes
  }
  const descriptor = (place: number, count: number) => COMPRESSED | (BigInt(count - 1) << 54n) | BigInt(place)

  it('two at one place, the first of which is cut by its number of sectors', async () => {
    const disk = await diskOf(image(at => [descriptor(at, 1), descriptor(at, sectors)]))
    await expect(read(disk, 0, 1)).rejects.toMatchObject({
      code: 'decompress-failed',
      details: { guestOffset: 0 },
    })
    expect(await read(disk, CLUSTER)).toEqual(plain)
    await expect(read(disk)).rejects.toMatchObject({ code: 'decompress-failed' })
    expect(await read(disk, CLUSTER)).toEqual(plain)
  })

  it('a read that failed is tried again', async () => {
    const bytes = image(at => [descriptor(at, sectors)])
    const inner = memoryStorage(bytes)
    let fail = false
    const storage: ImageStorage = {
      ...inner,
      async readInto(target, offset, options) {
        if (fail) throw new Qcow2Error('read-failed', 'unplugged')
        await inner.readInto(target, offset, options)
      },
    }
    const disk = await diskOf(storage)
    await extents(disk)
    fail = true
    await expect(read(disk)).rejects.toThrow('unplugged')
    fail = false
    expect(await read(disk)).toEqual(plain)
  })

  it('over the end of the file: what there is of the stream, if it ends', async () => {
    const most = 2 ** 8
    const disk = await diskOf(
      image((at, end) => [descriptor(at, most), descriptor(end - 1, 1), descriptor(end - 1, most)]),
    )
    expect(await read(disk, 0, CLUSTER)).toEqual(plain)
    for (const cluster of [1, 2]) {
      await expect(read(disk, cluster * CLUSTER, 1)).rejects.toMatchObject({ code: 'decompress-failed' })
    }
    // The map has no quarrel with it: it costs no data.
    expect((await extents(disk)).map(({ length }) => length)).toEqual([3 * CLUSTER])
    const beyond = await diskOf(image((_, end) => [descriptor(end, 1)]))
    await expect(read(beyond, 0, 1)).rejects.toMatchObject({ code: 'corrupt-image' })
  })
})

describe('tables', () => {
  const L1_ENTRIES = 4 * MiB

  it('an L1 table of 32 MiB, with nothing in it', async () => {
    const fields = {
      [size]: BigInt(L1_ENTRIES) * 2n ** 29n,
      [l1Size]: L1_ENTRIES,
      [l1Offset]: BigInt(2 * CLUSTER),
    }
    const storage = sparseStorage(32 * MiB + 2 * CLUSTER, [[0, header({}, fields)]])
    await within(5, 200, async () => {
      const disk = await diskOf(storage)
      expect(disk.size).toBe(2 ** 51)
      expect(await extents(disk)).toEqual([
        { start: 0, length: 2 ** 51, depth: 0, present: false, zero: true, data: false, offset: undefined },
      ])
      expect(await read(disk, 2 ** 51 - 10)).toEqual(new Uint8Array(10))
    })
    expect(storage.largestRead()).toBe(32 * MiB)
    expect(storage.bytesRead()).toBeLessThan(33 * MiB)
  })

  it('an L1 table of 32 MiB that names one L2 table four million times: a signal ends it', async () => {
    const place = 32 * MiB + 2 * CLUSTER
    const table = new Uint8Array(32 * MiB)
    for (let i = 0; i < L1_ENTRIES; i++) putU64(table, i * 8, place)
    const fields = {
      [size]: BigInt(L1_ENTRIES) * 2n ** 29n,
      [l1Size]: L1_ENTRIES,
      [l1Offset]: BigInt(2 * CLUSTER),
    }
    const disk = await diskOf(
      sparseStorage(place + CLUSTER, [
        [0, header({}, fields)],
        [2 * CLUSTER, table],
      ]),
    )
    await within(10, 200, async () => {
      const signal = AbortSignal.timeout(100)
      const walk = async () => {
        for await (const _ of disk.extents(0, disk.size, { signal })) expect(signal.aborted).toBe(false)
      }
      await expect(walk()).rejects.toMatchObject({ name: 'TimeoutError' })
      // So it does where nobody looks at the map.
      const target = new Uint8Array(0)
      await expect(disk.readInto(target, 0, { signal: AbortSignal.timeout(0) })).resolves.toBeUndefined()
    })
  })

  it('a refcount table of 8 MiB', async () => {
    const table = new Uint8Array(8 * MiB)
    for (let i = 0; i < table.length; i += 8) putU64(table, i, BigInt(i) << 9n)
    const built = dataImage({ virtualSize: CLUSTER, l2: [new Uint8Array(CLUSTER).fill(7)] })
    const at = built.bytes.length
    putU64(built.bytes, refcountOffset, at)
    putU32(built.bytes, refcountClusters, 128)
    const storage = sparseStorage(at + 8 * MiB, [
      [0, built.bytes],
      [at, table],
    ])
    const disk = await within(5, 150, () => diskOf(storage))
    // Its claims are believed: where it says that refcounts are, there is no L2 table.
    await expect(read(disk)).rejects.toThrow('not other metadata')
    expect(storage.bytesRead()).toBeLessThan(9 * MiB)
  })

  it('refcounts of a file of 2^53 − 512 bytes, looked at for what is preallocated', async () => {
    const built = dataImage({
      clusterBits: 9,
      refcountOrder: 6,
      virtualSize: 512,
      l2: [new Uint8Array(512).fill(7)],
    })
    const file = 2 ** 53 - 512
    const storage = sparseStorage(file, [[0, built.bytes]], {
      allocatedBytes: TiB,
      storedRun: async offset =>
        offset < built.bytes.length ? { data: true, end: built.bytes.length } : { data: false, end: file },
    })
    await within(2, 64, async () => {
      expect(await extents(await diskOf(storage))).toMatchObject([{ start: 0, length: 512, data: true }])
    })
  })

  it('a disk of 2^53 − 512 bytes without any table', async () => {
    const file = 3 * 2 * MiB
    const bytes = 2 ** 53 - 512
    const fields = { [size]: BigInt(bytes), [l1Size]: 2 ** 14, [l1Offset]: BigInt(2 * 2 * MiB) }
    const disk = await diskOf(sparseStorage(file, [[0, header({ clusterBits: 21 }, fields)]]))
    expect(disk.size).toBe(bytes)
    expect(await extents(disk)).toMatchObject([{ start: 0, length: bytes, zero: true }])
    expect(await extents(disk, bytes - 1, 1)).toMatchObject([{ start: bytes - 1, length: 1 }])
    expect(await read(disk, bytes - 3)).toEqual(new Uint8Array(3))
    await expect(read(disk, bytes - 3, 4)).rejects.toThrow(RangeError)
  })

  it.each([2n ** 53n, 2n ** 60n, 2n ** 63n, 2n ** 64n - 1n])('a disk of %s bytes', async bytes => {
    const fields = { [size]: bytes, [l1Size]: L1_ENTRIES, [l1Offset]: BigInt(2 * 2 * MiB) }
    const storage = sparseStorage(40 * MiB, [[0, header({ clusterBits: 21 }, fields)]])
    await expect(diskOf(storage)).rejects.toMatchObject({ code: 'unsupported-feature' })
    expect(storage.bytesRead()).toBeLessThan(5 * MiB)
  })

  it('a disk of 0 bytes', async () => {
    for (const virtualSize of [0, 1, 511]) {
      const disk = await diskOf(dataImage({ virtualSize, l2: [] }).bytes)
      expect(disk.size).toBe(0)
      expect(await extents(disk)).toEqual([])
      expect(await read(disk)).toEqual(new Uint8Array())
      await expect(read(disk, 0, 1)).rejects.toThrow(RangeError)
    }
  })

  it('clusters of 2 MiB in a file of 112 bytes', async () => {
    const bytes = header({ clusterBits: 21 }).slice(0, 112)
    await expect(diskOf(bytes)).rejects.toMatchObject({ code: 'corrupt-image' })
  })

  it('an L2 table that is its own data', async () => {
    const { bytes, l2 } = dataImage({ virtualSize: 2 * CLUSTER, l2: [0n, 0n] })
    for (const flags of [COPIED, COMPRESSED]) {
      putU64(bytes, l2, flags | BigInt(l2))
      const disk = await diskOf(bytes)
      await expect(read(disk, 0, 1)).rejects.toThrow('a cluster of its own')
      await expect(extents(disk)).rejects.toThrow('a cluster of its own')
      expect(await read(disk, CLUSTER)).toEqual(new Uint8Array(CLUSTER))
    }
  })

  // Of 64 bits, a refcount of 1 is the entry of a cluster of zeros: the disk would be there, and empty.
  it.each(['refcount table', 'refcount block', 'L1 table', 'bitmap directory'] as const)(
    'an L2 table that is the %s',
    async what => {
      const spec: Qcow2Spec = {
        clusterBits: 12,
        refcountOrder: 6,
        virtualSize: 4096,
        bitmaps: [{ name: 'b' }],
      }
      const { bytes, layout } = buildQcow2(spec)
      const place = {
        'refcount table': layout.refcountTable.offset,
        'refcount block': layout.refcountBlocks[0]!,
        'L1 table': layout.l1.offset,
        'bitmap directory': layout.directory!.offset,
      }[what]
      putU64(bytes, layout.l1.offset, COPIED | BigInt(place))
      const disk = await diskOf(bytes)
      await expect(read(disk)).rejects.toThrow('expected an L2 table, not other metadata')
      await expect(extents(disk)).rejects.toThrow('expected an L2 table, not other metadata')
    },
  )

  it('data where the LUKS header is', async () => {
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 2 * CLUSTER } }
    const { bytes, l2 } = dataImage({ ...spec, l2: [0n] })
    const view = new DataView(bytes.buffer)
    const pointer = buildQcow2(spec).layout.extensions.find(({ magic }) => magic === extensionMagic.luks)!
    const key = view.getBigUint64(pointer.dataOffset) + BigInt(CLUSTER)
    view.setBigUint64(l2, COPIED | key)
    await expect(extents(await diskOf(bytes))).rejects.toThrow('which holds metadata')
  })
})

describe('snapshots', () => {
  /** One entry of the snapshot table. */
  const entry = (
    id: string,
    more: { l1Size?: number; diskSize?: bigint; name?: number; extra?: number } = {},
  ) => {
    const { name = 0, extra = 16 } = more
    const bytes = new Uint8Array(Math.ceil((40 + extra + id.length + name) / 8) * 8)
    const view = new DataView(bytes.buffer)
    view.setUint32(8, more.l1Size ?? 0)
    view.setUint16(12, id.length)
    view.setUint16(14, name)
    view.setUint32(36, extra)
    if (extra >= 16) view.setBigUint64(48, more.diskSize ?? 0n)
    bytes.set(new TextEncoder().encode(id), 40 + extra)
    bytes.fill(0x6e, 40 + extra + id.length, 40 + extra + id.length + name)
    return bytes
  }
  const PLACE = 4 * CLUSTER
  const image = (count: number, table: Uint8Array, fileSize = PLACE + table.length) =>
    sparseStorage(fileSize, [
      [
        0,
        header(
          {},
          { [nbSnapshots]: count, [snapshotsOffset]: BigInt(PLACE), [l1Offset]: BigInt(2 * CLUSTER) },
        ),
      ],
      [PLACE, table.subarray(0, Math.max(0, fileSize - PLACE))],
    ])
  const joined = (entries: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(entries))

  it('65,536 of them, and not one more', async () => {
    const table = joined(Array.from({ length: 65536 }, (_, i) => entry(`${i}`)))
    const storage = image(65536, table)
    await within(3, 150, async () => {
      expect((await diskOf(storage, { snapshot: '65535' })).size).toBe(0)
      const missing = await diskOf(storage, { snapshot: 'none' }).catch(error => error)
      expect(missing).toMatchObject({ code: 'snapshot-missing' })
      expect(missing.message.length).toBeLessThan(1000)
    })
    await expect(diskOf(image(65537, joined([table, entry('')])))).rejects.toMatchObject({
      code: 'corrupt-image',
    })
  })

  it('names of 65,535 bytes, 64 MiB of them: read once', async () => {
    const one = entry('x'.repeat(65535), { name: 65535, extra: 1024 })
    const count = Math.floor((64 * MiB) / one.length)
    const storage = image(count, joined(Array<Uint8Array>(count).fill(one)))
    const { header: parsed } = await inspectImage(storage)
    const snapshots = await within(5, 400, () => readSnapshots(storage, parsed))
    expect(snapshots.length).toBe(count)
    expect(storage.bytesRead()).toBeLessThan(2.5 * 64 * MiB)
    expect(storage.largestRead()).toBeLessThan(MiB)
    const larger = image(count + 1, joined(Array<Uint8Array>(count + 1).fill(one)))
    await expect(diskOf(larger, { snapshot: 'y' })).rejects.toThrow('length')
  })

  it.each<[string, number, Uint8Array, number | undefined]>([
    ['extra data of 1,025 bytes', 1, entry('1', { extra: 1025 }), undefined],
    ['an entry cut by the end of the file', 1, entry('1'), PLACE + 50],
    ['more of them than there are', 65536, entry('1'), PLACE + 65536 * 40],
  ])('%s', async (_, count, table, fileSize) => {
    const disk = diskOf(image(count, table, fileSize), { snapshot: 'none' })
    await expect(disk).rejects.toMatchObject({ code: 'corrupt-image' })
  })

  it.each<[string, { l1Size?: number; diskSize: bigint }, string]>([
    ['more entries than its L1 table has', { l1Size: 1, diskSize: 2n ** 30n }, 'corrupt-image'],
    ['an L1 table behind the end of the file', { l1Size: 2 ** 21, diskSize: 2n ** 50n }, 'corrupt-image'],
    ['an L1 table of 2^32 − 1 entries', { l1Size: 2 ** 32 - 1, diskSize: 2n ** 52n }, 'corrupt-image'],
    ['2^53 bytes', { l1Size: 2 ** 32 - 1, diskSize: 2n ** 53n }, 'unsupported-feature'],
    ['2^64 − 1 bytes', { l1Size: 2 ** 32 - 1, diskSize: 2n ** 64n - 1n }, 'unsupported-feature'],
  ])('a disk of %s', async (_, more, code) => {
    const storage = image(1, entry('1', more))
    await expect(diskOf(storage, { snapshot: '1' })).rejects.toMatchObject({ code })
    expect(storage.bytesRead()).toBeLessThan(MiB)
  })

  it('a disk of 2^60 bytes, where the L1 table is as large as it must be', async () => {
    const cluster = 2 * MiB
    const fields = {
      [nbSnapshots]: 1,
      [snapshotsOffset]: BigInt(2 * cluster),
      [l1Offset]: BigInt(2 * cluster),
    }
    const table = entry('1', { l1Size: 2 ** 21, diskSize: 2n ** 60n })
    putU64(table, 0, 3 * cluster)
    const storage = sparseStorage(20 * cluster, [
      [0, header({ clusterBits: 21 }, fields)],
      [2 * cluster, table],
    ])
    await expect(diskOf(storage, { snapshot: '1' })).rejects.toMatchObject({ code: 'unsupported-feature' })
  })
})

describe('backing chains', () => {
  const backed = (backingFile: string, backingFormat = 'qcow2') =>
    memoryStorage(dataImage({ virtualSize: CLUSTER, l2: [], backingFile, backingFormat }).bytes, backingFile)
  const chainOf = (images: (name: string) => ImageStorage) =>
    openChain(
      { name: '0', format: 'qcow2' },
      { open: async name => ({ storage: images(name), filename: name, namedAs: name }) },
    )

  it.each([1, 2, 3, 150])('a circle of %i', async length => {
    const images = Array.from({ length }, (_, i) => backed(`${(i + 1) % length}`))
    const chain = await chainOf(name => images[Number(name)]!)
    expect(chain.length).toBe(length + 1)
    expect(chain.at(-1)!.problem).toMatchObject({ code: 'corrupt-image', details: { cycle: true } })
    await expect(openDisk(chain)).rejects.toMatchObject({ code: 'corrupt-image' })
  })

  it('without end: each image names another one', async () => {
    const chain = await within(5, 200, () => chainOf(name => backed(`${Number(name) + 1}`)))
    expect(chain.length).toBe(201)
    await expect(openDisk(chain)).rejects.toThrow('longer than 200')
  })

  it('200 images, and a disk of holes through all of them', async () => {
    const { bytes } = dataImage({
      virtualSize: 128 * CLUSTER,
      l2: Array.from({ length: 128 }, (_, i) => BigInt(i % 2)),
    })
    const bottom = 199
    const chain = await openChain(
      { name: '0', format: 'qcow2' },
      {
        open: async name => ({ storage: memoryStorage(bytes), filename: name, namedAs: name }),
        backing: Array.from({ length: bottom }, (_, i) => ({ name: `${i + 1}`, format: 'qcow2' })),
      },
    )
    const disk = await openDisk(chain)
    await within(5, 200, async () => {
      const all = await extents(disk)
      expect(all.length).toBe(128)
      expect(all[0]).toMatchObject({ depth: bottom, present: false })
      expect((await read(disk)).every(byte => byte === 0)).toBe(true)
    })
  })

  it.each([
    ['a driver that has a toString', '{"driver":[{"toString":1}]}'],
    ['a file name that has one', '{"driver":"file","filename":[{"toString":1}]}'],
    ['arrays in arrays', `{"driver":${'['.repeat(400)}${']'.repeat(400)}}`],
    ['objects in objects', `${'{"a":'.repeat(150)}1${'}'.repeat(150)}`],
    ['an option __proto__', '{"__proto__":["x"],"driver":"file","filename":"/a"}'],
    ['an option constructor', '{"constructor":1,"driver":"file","filename":"/a"}'],
  ])('a json: name with %s', async (_, json) => {
    const name = `json:${json}`
    expect(parseBackingName(name)).toMatchObject({ kind: 'other' })
    const chain = await chainOf(() => backed(name))
    expect(chain.at(-1)!.problem).toMatchObject({ code: 'reference-denied' })
  })
})

describe('a caller that gives up', () => {
  it('in the middle of a read: its reason, and the next read is as ever', async () => {
    const { bytes } = dataImage({
      virtualSize: 8 * CLUSTER,
      l2: Array.from({ length: 8 }, () => new Uint8Array(CLUSTER).fill(7)),
    })
    const inner = memoryStorage(bytes)
    const abort = new AbortController()
    let data = 0
    const storage: ImageStorage = {
      ...inner,
      async readInto(target, offset, options) {
        if (options?.signal && ++data === 3) abort.abort(new Error('enough'))
        await inner.readInto(target, offset, options)
      },
    }
    // Each other cluster: pieces of their own.
    const l1 = new DataView(bytes.buffer).getBigUint64(40)
    const l2 = Number(new DataView(bytes.buffer).getBigUint64(Number(l1)) & ~COPIED)
    for (const i of [1, 3, 5, 7]) putU64(bytes, l2 + i * 8, 0)
    const disk = await diskOf(storage)
    await expect(disk.readInto(new Uint8Array(8 * CLUSTER), 0, { signal: abort.signal })).rejects.toThrow(
      'enough',
    )
    expect((await read(disk)).filter(byte => byte === 7).length).toBe(4 * CLUSTER)
  })

  it('when the disk has long been opened: only what that signal was for has ended', async () => {
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 2 * CLUSTER } }
    const { bytes } = dataImage({ ...spec, l2: [new Uint8Array(CLUSTER)] })
    const opening = new AbortController()
    const disk = await diskOf(bytes, { signal: opening.signal, passphrase: async () => new Uint8Array(1) })
    opening.abort(new Error('too late'))
    // No LUKS header is there; but that is what is said.
    await expect(read(disk)).rejects.toMatchObject({
      code: 'corrupt-image',
      details: { structure: 'LUKS header' },
    })
  })

  it('while a passphrase is waited for, which nobody gives', async () => {
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 2 * CLUSTER } }
    const { bytes } = dataImage({ ...spec, l2: [new Uint8Array(CLUSTER)] })
    const disk = await diskOf(bytes, { passphrase: () => new Promise(() => {}) })
    const target = new Uint8Array(512)
    for (const signal of [AbortSignal.timeout(20), AbortSignal.abort(new Error('at once'))]) {
      await expect(disk.readInto(target, 0, { signal })).rejects.toThrow(/timeout|at once/)
    }
  })

  it.each<[number, number]>([
    [-1, 1],
    [0, -1],
    [CLUSTER + 5, -5],
    [0.5, 1],
    [0, 0.5],
    [Number.NaN, 1],
    [0, Number.NaN],
    [0, CLUSTER + 1],
    [2 ** 53, 1],
    [0, Number.POSITIVE_INFINITY],
  ])('a stretch that is none: %d, %d', async (start, length) => {
    const disk = await diskOf(dataImage({ virtualSize: CLUSTER, l2: [] }).bytes)
    await expect(extents(disk, start, length)).rejects.toThrow(RangeError)
  })

  it('a stretch that begins behind the end', async () => {
    const disk = await diskOf(dataImage({ virtualSize: CLUSTER, l2: [] }).bytes)
    await expect(extents(disk, CLUSTER + 5)).rejects.toThrow(RangeError)
    expect(await extents(disk, CLUSTER)).toEqual([])
  })
})

describe('LUKS headers', () => {
  /** One as QEMU writes it, but for what is changed: numbers of 32 bits by their offsets. */
  const image = (changes: Fields) => {
    const luks = new Uint8Array(592)
    const view = new DataView(luks.buffer)
    luks.set([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe, 0, 1])
    for (const [at, name] of [
      [8, 'aes'],
      [40, 'xts-plain64'],
      [72, 'sha256'],
    ] as const)
      luks.set(Buffer.from(name), at)
    view.setUint32(104, 4096)
    view.setUint32(108, 64)
    view.setUint32(164, 1000)
    for (let slot = 0; slot < 8; slot++) {
      const at = 208 + slot * 48
      view.setUint32(at, slot === 0 ? 0x00ac71f3 : 0xdead)
      view.setUint32(at + 4, slot === 0 ? 1000 : 0)
      view.setUint32(at + 40, 8 + slot * 504)
      view.setUint32(at + 44, 4000)
    }
    for (const [at, value] of Object.entries(changes)) putU32(luks, Number(at), Number(value))
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 4096 * 512 } }
    const { bytes } = dataImage({ ...spec, l2: [new Uint8Array(CLUSTER)] })
    const { layout } = buildQcow2(spec)
    const pointer = layout.extensions.find(({ magic }) => magic === extensionMagic.luks)!
    bytes.set(luks, Number(new DataView(bytes.buffer).getBigUint64(pointer.dataOffset)))
    return bytes
  }

  it.each<[string, Fields, string, number]>([
    ['sound', {}, 'passphrase-wrong', 2],
    ['2^32 − 1 iterations', { 212: 0xffffffff }, 'unsupported-feature', 0],
    ['2^32 − 1 iterations for the digest', { 164: 0xffffffff }, 'unsupported-feature', 0],
    ['2^32 − 1 iterations of a slot that is not active', { 260: 0xffffffff }, 'passphrase-wrong', 2],
    ['2^32 − 1 stripes', { 252: 0xffffffff }, 'corrupt-image', 0],
    ['keys of 2^32 − 1 bytes', { 108: 0xffffffff }, 'corrupt-image', 0],
    ['keys of 2^26 bytes, and room for them', { 108: 2 ** 26, 104: 0xffffffff }, 'corrupt-image', 0],
    ['key material behind the file', { 248: 0xfffff000, 104: 0xffffffff }, 'corrupt-image', 0],
    ['no active slot', { 208: 0xdead }, 'passphrase-wrong', 0],
    ['a slot neither active nor not', { 208: 1 }, 'corrupt-image', 0],
  ])('%s', async (_, changes, code, derivations) => {
    let derived = 0
    const codecs: Codecs = {
      ...nodeCodecs,
      pbkdf2(...args) {
        derived++
        return nodeCodecs.pbkdf2(...args)
      },
    }
    const disk = await diskOf(image(changes), { codecs, passphrase: async () => new Uint8Array([1]) })
    await within(3, 64, () => expect(read(disk)).rejects.toMatchObject({ code }))
    expect(derived).toBe(derivations)
    // The map needs no key.
    expect(await extents(disk)).toMatchObject([{ data: true, offset: undefined }])
  })
})
