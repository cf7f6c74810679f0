// What guest data are, entry by entry: crafted images, for what QEMU never writes.
import { deflateRawSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { loaded } from '../src/data/load.js'
import {
  type Codecs,
  CorruptImageError,
  type DiskExtent,
  type GuestDisk,
  type ImageStorage,
  libraryCodecs,
  memoryStorage,
  openChain,
  openDisk,
  Qcow2Error,
} from '../src/index.js'
import { COMPRESSED, COPIED, type DataImageSpec, dataImage } from './data-image.js'

const KiB = 1024
const CLUSTER = 64 * KiB
const EXTENDED = 16n

const filled = (byte: number, length = CLUSTER) => new Uint8Array(length).fill(byte)

async function diskOf(...storages: (ImageStorage | Uint8Array)[]): Promise<GuestDisk> {
  const all = storages.map((each, i) =>
    each instanceof Uint8Array ? memoryStorage(each, `layer ${i}`) : each,
  )
  const chain = await openChain(
    { name: '0' },
    {
      open: async path => ({ storage: all[Number(path)]!, filename: path, namedAs: path }),
      backing: all.slice(1).map((_, i) => ({ name: String(i + 1), format: undefined })),
      probe: true,
    },
  )
  return openDisk(chain)
}

async function read(disk: GuestDisk, offset = 0, length = disk.size - offset): Promise<Uint8Array> {
  const target = filled(0xaa, length)
  await disk.readInto(target, offset)
  return target
}

async function extents(disk: GuestDisk, start?: number, length?: number): Promise<DiskExtent[]> {
  const all: DiskExtent[] = []
  for await (const chunk of disk.extents(start, length)) all.push(...chunk)
  return all
}

const short = (all: readonly DiskExtent[]) =>
  all.map(
    ({ start, length, depth, present, zero, data, offset }) =>
      `${start / KiB}+${length / KiB} ${depth}${present ? ' present' : ''}${zero ? ' zero' : ''}${data ? ' data' : ''}${offset === undefined ? '' : ` @${offset / KiB}`}`,
  )

async function failure(spec: DataImageSpec, offset = 0, length = 1): Promise<Qcow2Error> {
  const disk = await diskOf(dataImage(spec).bytes)
  const error = await read(disk, offset, length).catch(error => error)
  expect(error).toBeInstanceOf(Qcow2Error)
  // The map and the data are judged alike.
  if (error instanceof CorruptImageError) await expect(extents(disk)).rejects.toThrow(error.message)
  return error
}

describe('standard entries', () => {
  it('data, zeros with and without a place, and nothing', async () => {
    const { bytes, clusters } = dataImage({
      virtualSize: 6 * CLUSTER,
      l2: [filled(1), filled(2), 1n, 0n, filled(3), COPIED | 1n],
    })
    const view = new DataView(bytes.buffer)
    const l2 = clusters[0]! - CLUSTER
    view.setBigUint64(l2 + 8, view.getBigUint64(l2 + 8) | 1n)
    const disk = await diskOf(bytes)
    expect(await read(disk)).toEqual(
      Uint8Array.from([...filled(1), ...filled(0, 3 * CLUSTER), ...filled(3), ...filled(0)]),
    )
    const at = clusters.map(each => each / KiB)
    expect(short(await extents(disk))).toEqual([
      `0+64 0 present data @${at[0]}`,
      `64+64 0 present zero @${at[1]}`,
      '128+64 0 present zero',
      '192+64 0 zero',
      `256+64 0 present data @${at[2]}`,
      '320+64 0 present zero',
    ])
  })

  it('side by side in the file: one extent, and any part of it', async () => {
    const { bytes, clusters } = dataImage({ virtualSize: 3 * CLUSTER, l2: [filled(1), filled(2), filled(3)] })
    const disk = await diskOf(bytes)
    const start = CLUSTER - 5
    expect(await extents(disk, start, 10)).toEqual([
      { start, length: 10, depth: 0, present: true, zero: false, data: true, offset: clusters[0]! + start },
    ])
    expect([...(await read(disk, start, 10))]).toEqual([1, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    expect((await read(disk, 3 * CLUSTER, 0)).byteLength).toBe(0)
    await expect(read(disk, 3 * CLUSTER - 1, 2)).rejects.toThrow(RangeError)
    await expect(extents(disk, 0, 3 * CLUSTER + 1)).rejects.toThrow(RangeError)
  })

  it('a file that ends within its last cluster', async () => {
    const disk = await diskOf(
      dataImage({ virtualSize: CLUSTER, l2: [filled(7)], tail: CLUSTER + 1000 }).bytes,
    )
    const bytes = await read(disk)
    expect(bytes.subarray(0, 1000)).toEqual(filled(7, 1000))
    expect(bytes.subarray(1000)).toEqual(filled(0, CLUSTER - 1000))
  })

  it.each<[string, DataImageSpec, string]>([
    ['reserved bits above', { l2: [1n << 56n] }, 'reserved bits clear'],
    ['reserved bits below', { l2: [COPIED | (1n << 17n) | 2n] }, 'reserved bits clear'],
    ['no cluster boundary', { l2: [COPIED | 0x10200n] }, 'a cluster boundary'],
    ['behind the end of the file', { l2: [COPIED | (1n << 40n)] }, 'a cluster within the file'],
    ['just at the end of the file', { l2: [filled(1)], tail: CLUSTER }, 'a cluster within the file'],
    ['the refcount table', { l2: [COPIED | 0x10000n] }, 'a cluster of its own'],
    ['zero clusters in version 2', { version: 2, l2: [1n] }, 'no zero clusters in version 2'],
    ['compressed, behind the end', { l2: [COMPRESSED | (1n << 40n)] }, 'compressed data within the file'],
    ['compressed, within the L1 table', { l2: [COMPRESSED | 0x30000n] }, 'a cluster of its own'],
  ])('refused: %s', async (_, spec, expected) => {
    const error = await failure(spec)
    expect(error).toMatchObject({ code: 'corrupt-image', details: { structure: 'L2 table entry' } })
    expect(error.details.expected).toContain(expected)
    expect(error.details.offset).toBe(dataImage(spec).l2)
  })

  it('says which of many entries: one that metadata have, one behind the end', async () => {
    const spec: DataImageSpec = { virtualSize: 4 * CLUSTER, l2: [filled(1), filled(1), 0n, 0n] }
    const { bytes, l2 } = dataImage(spec)
    // L2 table itself, right behind a cluster before it: neighbours in the file, one run.
    new DataView(bytes.buffer).setBigUint64(l2 + 16, COPIED | BigInt(l2 - CLUSTER))
    new DataView(bytes.buffer).setBigUint64(l2 + 24, COPIED | BigInt(l2))
    const disk = await diskOf(bytes)
    expect((await read(disk, 0, 2 * CLUSTER)).every(byte => byte === 1)).toBe(true)
    await expect(read(disk, 3 * CLUSTER, 1)).rejects.toMatchObject({ details: { offset: l2 + 24 } })
  })

  it.each<[string, bigint, string]>([
    ['reserved bits', COPIED | 0x40000n | 1n, 'reserved bits clear'],
    ['bit 62', COPIED | (1n << 62n) | 0x40000n, 'reserved bits clear'],
    ['no cluster boundary', COPIED | 0x40200n, 'cluster boundary'],
    ['behind the end of the file', COPIED | 0xff0000n, 'within the file'],
  ])('L1 entry refused: %s', async (_, l1, expected) => {
    const error = await failure({ l1, l2: [] })
    expect(error).toMatchObject({
      code: 'corrupt-image',
      details: { structure: 'L1 table', field: 'entry 0' },
    })
    expect(error.details.expected).toContain(expected)
  })
})

describe('extended entries', () => {
  const spec = { incompatibleFeatures: EXTENDED, virtualSize: 2 * CLUSTER }

  it('each subcluster for itself', async () => {
    const place = BigInt(dataImage({ ...spec, l2: [filled(0)] }).clusters[0]!)
    const entries: DataImageSpec['l2'] = [
      // Subclusters 0 and 1 stored, 2 zero, 31 stored.
      [COPIED | place, (4n << 32n) | 3n | (1n << 31n)],
      // No cluster: 0 zero.
      [0n, 1n << 32n],
    ]
    const bytes = new Uint8Array([...dataImage({ ...spec, l2: entries }).bytes, ...filled(9)])
    const disk = await diskOf(bytes)
    const at = Number(place) / KiB
    expect(short(await extents(disk))).toEqual([
      `0+4 0 present data @${at}`,
      `4+2 0 present zero @${at + 4}`,
      `6+56 0 zero @${at + 6}`,
      `62+2 0 present data @${at + 62}`,
      '64+2 0 present zero',
      '66+62 0 zero',
    ])
    const data = await read(disk)
    expect([data[0], data[4095], data[4096], data[62 * KiB - 1], data[62 * KiB], data[64 * KiB]]).toEqual([
      9, 9, 0, 0, 9, 0,
    ])
  })

  it.each<[string, [bigint, bigint], string, number]>([
    ['both stored and zero', [COPIED | 0x10000n, (1n << 32n) | 1n], 'both stored and zero', 8],
    ['stored without a cluster', [0n, 1n], 'stored without a cluster', 8],
    ['the zero bit of standard entries', [1n, 0n], 'reserved bits clear', 0],
    ['subclusters of a compressed one', [COMPRESSED | 0x50000n, 1n], 'no subclusters', 8],
  ])('refused: %s', async (_, entry, expected, at) => {
    const error = await failure({ ...spec, l2: [entry] })
    expect(error).toMatchObject({ code: 'corrupt-image', details: { structure: 'L2 table entry' } })
    expect(error.details.expected).toContain(expected)
    expect(error.details.offset).toBe(dataImage({ ...spec, l2: [entry] }).l2 + at)
  })
})

describe('compressed clusters', () => {
  const plain = Uint8Array.from({ length: CLUSTER }, (_, i) => (i * i) >> 8)
  const stream = deflateRawSync(plain, { windowBits: 12 })
  /** The stream stands in the second placed cluster, at an odd offset. */
  const image = (more: Partial<DataImageSpec> = {}, sectors = Math.ceil((stream.length + 77) / 512)) => {
    const holder = new Uint8Array(CLUSTER)
    holder.set(stream, 77)
    const place = dataImage({ l2: [holder] }).clusters[0]!
    const entry = COMPRESSED | (BigInt(sectors - 1) << 54n) | BigInt(place + 77)
    const built = dataImage({ virtualSize: 2 * CLUSTER, l2: [entry, 0n], ...more })
    const bytes = new Uint8Array([...built.bytes, ...holder])
    return { bytes, place }
  }

  it('inflated, in parts, and told without an offset', async () => {
    const disk = await diskOf(image().bytes)
    expect((await read(disk)).subarray(0, CLUSTER)).toEqual(plain)
    expect(await read(disk, 1000, 10)).toEqual(plain.subarray(1000, 1010))
    expect(short(await extents(disk))).toEqual(['0+64 0 present data', '64+64 0 zero'])
  })

  it('cut by its number of sectors, or by the end of the file', async () => {
    const broken = async (bytes: Uint8Array) => read(await diskOf(bytes), 0, 1).catch(error => error)
    expect(await broken(image({}, 1).bytes)).toMatchObject({
      code: 'decompress-failed',
      details: { guestOffset: 0, type: 'zlib' },
    })
    const { bytes, place } = image()
    expect(await broken(bytes.slice(0, place + 77 + stream.length - 3))).toMatchObject({
      code: 'decompress-failed',
    })
    expect(await broken(bytes.slice(0, place + 77 + stream.length))).toEqual(plain.subarray(0, 1))
    expect(await broken(bytes.slice(0, place + 77))).toMatchObject({ code: 'corrupt-image' })
  })
})

describe('a library that cannot be loaded', () => {
  it('is not called a damaged image', async () => {
    const codecs: Codecs = {
      ...libraryCodecs,
      inflateRaw: () => loaded('pako', () => Promise.reject(new Error('offline'))),
    }
    const holder = filled(0)
    const place = dataImage({ l2: [holder] }).clusters[0]!
    const bytes = new Uint8Array([...dataImage({ l2: [COMPRESSED | BigInt(place)] }).bytes, ...holder])
    const open = async (path: string) => ({ storage: memoryStorage(bytes), filename: path, namedAs: path })
    const disk = await openDisk(await openChain({ name: 'vm' }, { open }), { codecs })
    await expect(read(disk, 0, 1)).rejects.toMatchObject({ code: 'codec-unavailable', name: 'Qcow2Error' })
  })
})

describe('layers', () => {
  const raw = (bytes: Uint8Array) => memoryStorage(bytes, 'raw')

  it('a shorter one below: zeros behind its end, told of the one above', async () => {
    const top = dataImage({ virtualSize: 4 * CLUSTER, l2: [filled(1), 0n, 0n, 1n] })
    const base = filled(2, CLUSTER + 1000)
    const disk = await diskOf(top.bytes, raw(base))
    const data = await read(disk)
    expect(data.subarray(0, CLUSTER)).toEqual(filled(1))
    expect(data.subarray(CLUSTER, CLUSTER + 1000)).toEqual(filled(2, 1000))
    expect(data.subarray(CLUSTER + 1000)).toEqual(filled(0, 3 * CLUSTER - 1000))
    expect(short(await extents(disk))).toEqual([
      `0+64 0 present data @${top.clusters[0]! / KiB}`,
      `64+${1000 / KiB} 1 present data @64`,
      // Its last sector ends with the file.
      `${64 + 1000 / KiB}+${24 / KiB} 1 present zero @${64 + 1000 / KiB}`,
      '65+127 0 zero',
      '192+64 0 present zero',
    ])
  })

  it('what the middle one cuts off does not show', async () => {
    const none = (clusters: number) => dataImage({ virtualSize: clusters * CLUSTER, l2: [] }).bytes
    const disk = await diskOf(none(4), none(1), raw(filled(5, 4 * CLUSTER)))
    expect((await read(disk)).indexOf(0)).toBe(CLUSTER)
    expect(short(await extents(disk))).toEqual(['0+64 2 present data @0', '64+192 0 zero'])
  })

  it('an image whose backing file is not opened is not read', async () => {
    const bytes = dataImage({ l2: [filled(1)], backingFile: 'base', backingFormat: 'raw' }).bytes
    const storage = memoryStorage(bytes)
    const chain = await openChain(
      { name: 'top' },
      { open: async path => ({ storage, filename: path, namedAs: path }), topOnly: true },
    )
    await expect(openDisk(chain)).rejects.toMatchObject({ code: 'reference-denied' })
  })

  it('a data file is not opened without leave', async () => {
    const bytes = dataImage({ l2: [0n], dataFile: { name: 'data' } }).bytes
    await expect(diskOf(bytes)).rejects.toMatchObject({ code: 'reference-denied' })
  })
})

describe('reading', () => {
  /** Notes what is read, and fails or waits where it is told to. */
  const watched = (bytes: Uint8Array, more: Partial<ImageStorage> = {}) => {
    const reads: [number, number][] = []
    const inner = memoryStorage(bytes)
    const storage: ImageStorage = {
      name: 'watched',
      size: inner.size,
      identity: 'watched',
      close: () => inner.close(),
      readInto(target, offset, options) {
        reads.push([offset, target.byteLength])
        return inner.readInto(target, offset, options)
      },
      ...more,
    }
    return { storage, reads }
  }

  it('tables are read once, in pieces, and what lies near is read together', async () => {
    const { bytes, l2, clusters } = dataImage({
      virtualSize: 8 * CLUSTER,
      l2: [filled(1), 0n, filled(2), 0n, filled(3), 0n, 0n, filled(4)],
    })
    const near = watched(bytes, { nearBytes: 4096 })
    const disk = await diskOf(near.storage)
    near.reads.length = 0
    await read(disk)
    expect(near.reads).toEqual([
      [l2, CLUSTER],
      [clusters[0], 4 * CLUSTER],
    ])
    near.reads.length = 0
    await read(disk)
    expect(near.reads).toEqual([[clusters[0], 4 * CLUSTER]])
    const apart = watched(bytes)
    const other = await diskOf(apart.storage)
    apart.reads.length = 0
    await read(other)
    expect(apart.reads.length).toBe(5)
  })

  it('ends with the signal, and a failed read of a table is tried again', async () => {
    const { bytes, l2 } = dataImage({ virtualSize: CLUSTER, l2: [filled(1)] })
    const inner = memoryStorage(bytes)
    let fail = true
    const { storage } = watched(bytes, {
      async readInto(target, offset, options) {
        if (offset === l2 && fail) throw new Qcow2Error('read-failed', 'unplugged')
        return inner.readInto(target, offset, options)
      },
    })
    const disk = await diskOf(storage)
    await expect(read(disk)).rejects.toThrow('unplugged')
    fail = false
    expect(await read(disk)).toEqual(filled(1))
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(disk.readInto(new Uint8Array(10), 0, { signal })).rejects.toThrow('enough')
    await expect(disk.extents(0, 10, { signal }).next()).rejects.toThrow('enough')
  })
})
