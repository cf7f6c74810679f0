import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'

/** A bitmap whose bits are told cluster by cluster, so that none is ever held as a whole. */
export interface StreamedBitmap {
  name: string
  granularityBits: number
  /**
   * Sets bits in the bitmap's cluster `index`, which comes zeroed; undefined: no data clusters at all, only zeros
   * entries. A cluster that stays zero is allocated, and a hole in the file.
   */
  fill?: (cluster: Uint8Array, index: number) => void
}

export interface StreamedImage {
  virtualSize: number
  bitmaps: readonly StreamedBitmap[]
}

/** QEMU's defaults: clusters of 64 KiB, refcounts of 16 bits. */
export const CLUSTER_BYTES = 65536
const CLUSTER_BITS = 16
const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2
/** A table of 64 KiB names as many L2 tables, each for 512 MiB of disk. */
const BYTES_PER_L2 = (CLUSTER_BYTES / 8) * CLUSTER_BYTES
const HEADER_BYTES = 112
const BITMAPS_EXTENSION = 0x23852875

interface Place {
  tableOffset: number
  entries: number
  dataOffset: number
}

/**
 * Writes a qcow2 image without guest data but with bitmaps of any size, a cluster at a time; testkit's builder
 * makes an image in one array, which a bitmap of 512 MiB times 31 is too large for. `qemu-img check` finds nothing
 * in it: qemu-img bitmap --merge must be able to allocate.
 *
 * Order: header, refcount table, refcount blocks, L1 table, directory, then each bitmap's table and data.
 *
 * @returns set bits of each bitmap, in order
 */
export function writeStreamedImage(file: string, { virtualSize, bitmaps }: StreamedImage): number[] {
  const l1Entries = Math.ceil(virtualSize / BYTES_PER_L2)
  const directory = encodeDirectoryShape(bitmaps)
  const places: Place[] = []
  const layOut = (first: number) => {
    let next = first
    const take = (bytes: number) => {
      const offset = next * CLUSTER_BYTES
      next += Math.max(1, Math.ceil(bytes / CLUSTER_BYTES))
      return offset
    }
    const l1Offset = take(l1Entries * 8)
    const directoryOffset = take(directory.size)
    places.length = 0
    for (const { granularityBits, fill } of bitmaps) {
      const entries = tableEntries(virtualSize, granularityBits)
      const tableOffset = take(entries * 8)
      places.push({ tableOffset, entries, dataOffset: fill ? take(entries * CLUSTER_BYTES) : 0 })
    }
    return { l1Offset, directoryOffset, end: next }
  }
  // The refcount blocks count themselves and their table (one cluster names 8,192 blocks, 16 TiB): a fixed point.
  let blocks = 1
  while (blocks * REFCOUNTS_PER_BLOCK < layOut(2 + blocks).end) blocks++
  const { l1Offset, directoryOffset, end } = layOut(2 + blocks)

  const fd = openSync(file, 'w')
  try {
    ftruncateSync(fd, end * CLUSTER_BYTES)
    const refcountTable = Buffer.alloc(blocks * 8)
    for (let i = 0; i < blocks; i++) refcountTable.writeBigUInt64BE(BigInt((2 + i) * CLUSTER_BYTES), i * 8)
    writeAll(fd, refcountTable, CLUSTER_BYTES)
    const refcounts = Buffer.alloc(end * 2)
    for (let i = 0; i < end; i++) refcounts[i * 2 + 1] = 1
    writeAll(fd, refcounts, 2 * CLUSTER_BYTES)
    writeAll(fd, directory.encode(places), directoryOffset)
    const counts = bitmaps.map((bitmap, i) => writeBody(fd, bitmap, places[i]!))
    writeAll(
      fd,
      encodeHeader({
        virtualSize,
        l1Entries,
        l1Offset,
        bitmaps: bitmaps.length,
        directory: { offset: directoryOffset, size: directory.size },
      }),
      0,
    )
    return counts
  } finally {
    closeSync(fd)
  }
}

/** ceil(ceil(ceil(size / granularity) / 8) / cluster size), as the specification has it. */
function tableEntries(virtualSize: number, granularityBits: number): number {
  return Math.ceil(Math.ceil(Math.ceil(virtualSize / 2 ** granularityBits) / 8) / CLUSTER_BYTES)
}

function writeBody(
  fd: number,
  { fill }: StreamedBitmap,
  { tableOffset, entries, dataOffset }: Place,
): number {
  if (!fill) return 0
  const table = Buffer.alloc(entries * 8)
  const cluster = new Uint8Array(CLUSTER_BYTES)
  let count = 0
  for (let index = 0; index < entries; index++) {
    const offset = dataOffset + index * CLUSTER_BYTES
    table.writeBigUInt64BE(BigInt(offset), index * 8)
    cluster.fill(0)
    fill(cluster, index)
    const set = popcount(cluster)
    count += set
    if (set > 0) writeAll(fd, cluster, offset)
  }
  writeAll(fd, table, tableOffset)
  return count
}

function popcount(bytes: Uint8Array): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
  let total = 0
  for (const word of words) {
    let v = word - ((word >>> 1) & 0x55555555)
    v = (v & 0x33333333) + ((v >>> 2) & 0x33333333)
    total += Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
  }
  return total
}

function encodeDirectoryShape(bitmaps: readonly StreamedBitmap[]): {
  size: number
  encode(places: readonly Place[]): Buffer
} {
  const names = bitmaps.map(({ name }) => Buffer.from(name))
  const lengths = names.map(name => 24 + Math.ceil(name.length / 8) * 8)
  const size = lengths.reduce((sum, length) => sum + length, 0)
  return {
    size,
    encode(places) {
      const out = Buffer.alloc(size)
      let at = 0
      for (const [i, { granularityBits }] of bitmaps.entries()) {
        const { tableOffset, entries } = places[i]!
        out.writeBigUInt64BE(BigInt(tableOffset), at)
        out.writeUInt32BE(entries, at + 8)
        out.writeUInt32BE(2, at + 12) // auto
        out.writeUInt8(1, at + 16)
        out.writeUInt8(granularityBits, at + 17)
        out.writeUInt16BE(names[i]!.length, at + 18)
        names[i]!.copy(out, at + 24)
        at += lengths[i]!
      }
      return out
    },
  }
}

function encodeHeader(image: {
  virtualSize: number
  l1Entries: number
  l1Offset: number
  bitmaps: number
  directory: { offset: number; size: number }
}): Buffer {
  const out = Buffer.alloc(HEADER_BYTES + 8 + 24 + 8)
  out.write('QFI\xfb', 0, 'latin1')
  out.writeUInt32BE(3, 4)
  out.writeUInt32BE(CLUSTER_BITS, 20)
  out.writeBigUInt64BE(BigInt(image.virtualSize), 24)
  out.writeUInt32BE(image.l1Entries, 36)
  out.writeBigUInt64BE(BigInt(image.l1Offset), 40)
  out.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 48) // refcount table
  out.writeUInt32BE(1, 56)
  out.writeBigUInt64BE(1n, 88) // autoclear: bitmaps consistent
  out.writeUInt32BE(4, 96)
  out.writeUInt32BE(HEADER_BYTES, 100)
  out.writeUInt32BE(BITMAPS_EXTENSION, HEADER_BYTES)
  out.writeUInt32BE(24, HEADER_BYTES + 4)
  out.writeUInt32BE(image.bitmaps, HEADER_BYTES + 8)
  out.writeBigUInt64BE(BigInt(image.directory.size), HEADER_BYTES + 16)
  out.writeBigUInt64BE(BigInt(image.directory.offset), HEADER_BYTES + 24)
  return out
}

function writeAll(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, offset + done)
  }
}
