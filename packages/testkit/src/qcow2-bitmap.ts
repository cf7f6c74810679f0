import { bytesOf, putU8, putU16, putU32, putU64, roundUp } from './bytes.js'
import type { BitmapLayout, ClusterAllocator } from './qcow2-layout.js'
import type { BitmapSpec, TableEntrySpec } from './qcow2-spec.js'

/** A bitmap with its places, ready to be written. */
export interface PlacedBitmap {
  spec: BitmapSpec
  layout: BitmapLayout
  entries: TableEntrySpec[]
  /** Entries behind `entries`: so a table of many zeros costs no memory but its own. */
  rest: bigint
}

/** Table entries that a disk needs: ceil(ceil(ceil(size / granularity) / 8) / cluster size). */
export function neededTableSize(virtualSize: number, granularityBits: number, clusterSize: number): number {
  const bits = Math.ceil(virtualSize / 2 ** granularityBits)
  return Math.ceil(Math.ceil(bits / 8) / clusterSize)
}

function* dirtyBits(spec: BitmapSpec, bits: number): Iterable<number> {
  if (typeof spec.dirty !== 'function') return yield* spec.dirty ?? []
  for (let bit = 0; bit < bits; bit++) if (spec.dirty(bit)) yield bit
}

function entriesFromBits(spec: BitmapSpec, bits: number, clusterSize: number): TableEntrySpec[] {
  const clusters: Uint8Array[] = []
  const perCluster = clusterSize * 8
  for (const bit of dirtyBits(spec, bits)) {
    if (!(bit >= 0 && bit < bits)) throw new RangeError(`bit ${bit} of a bitmap with ${bits}`)
    const index = Math.floor(bit / perCluster)
    let data = clusters[index]
    if (data === undefined) clusters[index] = data = new Uint8Array(clusterSize)
    const inCluster = bit % perCluster
    data[inCluster >> 3] = data[inCluster >> 3]! | (1 << (inCluster & 7))
  }
  return Array.from(clusters, data => data ?? 'zeros')
}

/** A bitmap with its table entries, before it has a place. */
export interface PreparedBitmap {
  spec: BitmapSpec
  entries: TableEntrySpec[]
  tableSize: number
}

/**
 * Decides a bitmap's table, once: dirty bits may come from a generator, which can't be asked twice.
 *
 * @throws RangeError for a bit behind the disk, for more entries than fit, or more bytes than a cluster has.
 */
export function prepareBitmap(spec: BitmapSpec, virtualSize: number, clusterSize: number): PreparedBitmap {
  const granularityBits = spec.granularityBits ?? 16
  // QEMU cuts a disk to whole sectors before it does any sum.
  const size = Math.floor(virtualSize / 512) * 512
  const bits = Math.ceil(size / 2 ** granularityBits)
  const entries = spec.table ? [...spec.table] : entriesFromBits(spec, bits, clusterSize)
  const tableSize = spec.tableSize ?? neededTableSize(size, granularityBits, clusterSize)
  if (entries.length > tableSize && spec.tableSize === undefined) {
    throw new RangeError(`${entries.length} table entries, but the disk needs ${tableSize}`)
  }
  entries.length = Math.min(entries.length, tableSize)
  for (const entry of entries) {
    if (entry instanceof Uint8Array && entry.length > clusterSize) {
      throw new RangeError(`a table entry with ${entry.length} bytes, a cluster has ${clusterSize}`)
    }
  }
  return { spec, entries, tableSize }
}

/** Takes clusters for a bitmap's table and for its data. */
export function placeBitmap(
  { spec, entries, tableSize }: PreparedBitmap,
  entryOffset: number,
  clusters: ClusterAllocator,
): PlacedBitmap {
  // An empty table still gets a cluster: QEMU wants an offset that is not 0.
  const tableOffset = clusters.take(Math.max(1, tableSize * 8))
  const data = new Map<number, number>()
  entries.forEach((entry, index) => {
    if (entry instanceof Uint8Array) data.set(index, clusters.take(clusters.clusterSize))
  })
  const extraDataOffset = entryOffset + 24
  const layout: BitmapLayout = {
    name: bytesOf(spec.name),
    entry: {
      offset: entryOffset,
      length: directoryEntryLength(spec),
      extraDataOffset,
      nameOffset: extraDataOffset + (spec.extraData?.length ?? 0),
    },
    table: { offset: tableOffset, entries: tableSize },
    data,
  }
  return { spec, layout, entries, rest: spec.fill === 'ones' ? 1n : 0n }
}

/** Bytes of a directory entry with its padding to a multiple of 8. */
export function directoryEntryLength(spec: BitmapSpec): number {
  return roundUp(24 + (spec.extraData?.length ?? 0) + bytesOf(spec.name).length, 8)
}

/** Writes a bitmap's directory entry, its table and its data clusters. */
export function writeBitmap(bytes: Uint8Array, { spec, layout, entries, rest }: PlacedBitmap): void {
  const { entry, table, data } = layout
  putU64(bytes, entry.offset, spec.claims?.tableOffset ?? table.offset)
  putU32(bytes, entry.offset + 8, spec.claims?.tableSize ?? table.entries)
  putU32(bytes, entry.offset + 12, spec.flags ?? 2)
  putU8(bytes, entry.offset + 16, spec.type ?? 1)
  putU8(bytes, entry.offset + 17, spec.granularityBits ?? 16)
  putU16(bytes, entry.offset + 18, spec.claims?.nameSize ?? layout.name.length)
  putU32(bytes, entry.offset + 20, spec.claims?.extraDataSize ?? spec.extraData?.length ?? 0)
  if (spec.extraData) bytes.set(spec.extraData, entry.extraDataOffset)
  bytes.set(layout.name, entry.nameOffset)

  entries.forEach((value, index) => {
    const at = table.offset + index * 8
    if (value === 'ones') putU64(bytes, at, 1n)
    else if (typeof value === 'bigint') putU64(bytes, at, value)
    else if (value !== 'zeros') {
      const offset = data.get(index) as number
      putU64(bytes, at, offset)
      bytes.set(value, offset)
    }
  })
  if (rest === 0n) return
  for (let i = entries.length; i < table.entries; i++) putU64(bytes, table.offset + i * 8, rest)
}
