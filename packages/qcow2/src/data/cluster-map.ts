import { CorruptImageError, hex } from '../errors.js'
import type { ImageInspection } from '../image/inspect.js'
import type { ImageStorage, ReadOptions } from '../storage/storage.js'
import { type ClusterRun, RunList } from './cluster-runs.js'
import type { ClusterSet } from './cluster-set.js'
import { SLICE_BYTES, type TableCache, type TableSlice } from './table-cache.js'
import { Turns } from './turns.js'

/** An L1 table: the active one, or a snapshot's. */
export interface L1Table {
  /** For messages. */
  readonly structure: string
  readonly offset: number
  /** Its entries as on disk, as many as the disk needs. */
  readonly entries: DataView
}

// Bits of table entries in their upper and lower 32 bits (qcow2 specification, "Cluster mapping").
const L1_RESERVED_HIGH = 0x7f000000
const L1_RESERVED_LOW = 0x1ff
const COPIED_HIGH = 0x80000000
const COMPRESSED_HIGH = 0x40000000
const L2_RESERVED_HIGH = 0x3f000000
const L2_RESERVED_LOW = 0x1fe
const OFFSET_HIGH = 0x00ffffff
const OFFSET_LOW = 0xfffffe00
const ZERO_LOW = 1
const SUBCLUSTERS = 32

const HIGH = 2 ** 32

/**
 * Where an image's guest data are. Strict: an entry that cannot be, a reference past the file's end or into metadata
 * is an error with its place, and no data are given for it. (QEMU reads zeros there, or what it finds.)
 */
export class ClusterMap {
  /** Bytes of the disk. */
  readonly size: number
  readonly #image: ImageInspection
  readonly #l1: L1Table
  /** The image file itself, or its external data file. */
  readonly #data: ImageStorage
  readonly #external: boolean
  /** Of the image file: what no data may lie in, and what no L2 table may. */
  readonly #metadata: ClusterSet
  readonly #notTables: ClusterSet
  readonly #cache: TableCache
  readonly #entryBytes: number
  /** Entries of a piece of an L2 table, and guest bytes that it maps. */
  readonly #sliceEntries: number
  readonly #sliceGuestBytes: number
  readonly #turns = new Turns()

  constructor(parts: {
    readonly image: ImageInspection
    readonly size: number
    readonly l1: L1Table
    readonly data: ImageStorage
    readonly metadata: ClusterSet
    /** The same without L2 tables. */
    readonly notTables: ClusterSet
    readonly cache: TableCache
  }) {
    const { image } = parts
    this.size = parts.size
    this.#image = image
    this.#l1 = parts.l1
    this.#data = parts.data
    this.#external = image.dataFile !== undefined
    this.#metadata = parts.metadata
    this.#notTables = parts.notTables
    this.#cache = parts.cache
    this.#entryBytes = image.extendedL2 ? 16 : 8
    this.#sliceEntries = Math.min(image.clusterSize, SLICE_BYTES) / this.#entryBytes
    this.#sliceGuestBytes = this.#sliceEntries * image.clusterSize
  }

  /**
   * What [start, end) is, in order and without gaps, cut to it; neighbours that belong together are joined, within a
   * piece of an L2 table at least.
   *
   * @throws {CorruptImageError} when it comes to an entry that cannot be
   */
  async *runs(
    start: number,
    end: number,
    options: ReadOptions = {},
  ): AsyncGenerator<readonly ClusterRun[], void, undefined> {
    const { clusterSize } = this.#image
    const l2Entries = clusterSize / this.#entryBytes
    const guestPerL2 = l2Entries * clusterSize
    for (let at = start; at < end; ) {
      options.signal?.throwIfAborted()
      const index = Math.floor(at / guestPerL2)
      const l2Offset = this.#l2Offset(index)
      if (l2Offset === 0) {
        const first = at
        do at = Math.min(end, (Math.floor(at / guestPerL2) + 1) * guestPerL2)
        while (at < end && this.#l2Offset(at / guestPerL2) === 0)
        yield [{ kind: 'unallocated', start: first, length: at - first, hostOffset: undefined }]
        continue
      }
      const sliceStart = at - (at % this.#sliceGuestBytes)
      const sliceEnd = Math.min(end, sliceStart + this.#sliceGuestBytes)
      const inTable = ((sliceStart - index * guestPerL2) / clusterSize) * this.#entryBytes
      const slice = await this.#cache.get(l2Offset + inTable, this.#sliceEntries * this.#entryBytes, options)
      const runs = new RunList()
      if (this.#image.extendedL2) this.#decodeExtended(slice, sliceStart, at, sliceEnd, runs)
      else this.#decode(slice, sliceStart, at, sliceEnd, runs)
      yield this.#checked(runs.list, slice, sliceStart)
      await this.#turns.after((sliceEnd - at) / clusterSize)
      at = sliceEnd
    }
  }

  /** Host offset of an L2 table; 0 where there is none. */
  #l2Offset(index: number): number {
    const { entries, structure, offset: l1Offset } = this.#l1
    const high = entries.getUint32(index * 8)
    const low = entries.getUint32(index * 8 + 4)
    const offset = (high & OFFSET_HIGH) * HIGH + ((low & OFFSET_LOW) >>> 0)
    const { clusterSize, storage } = this.#image
    const fail = (expected: string) =>
      new CorruptImageError(storage.name, {
        structure,
        field: `entry ${index}`,
        offset: l1Offset + index * 8,
        expected,
        found: hex64(high, low),
      })
    if ((high & L1_RESERVED_HIGH) !== 0 || (low & L1_RESERVED_LOW) !== 0) throw fail('reserved bits clear')
    if (offset % clusterSize !== 0) throw fail('an L2 table at a cluster boundary')
    if (offset !== 0 && offset + clusterSize > storage.size) {
      throw fail(`an L2 table within the file of ${storage.size} bytes`)
    }
    if (offset !== 0 && this.#notTables.firstShared(offset, offset + clusterSize) >= 0) {
      throw fail('an L2 table, not other metadata')
    }
    return offset
  }

  /** @param guest guest offset of the piece's first entry; only [from, to) of what it maps is wanted */
  #decode(
    { view, offset: tableAt }: TableSlice,
    guest: number,
    from: number,
    to: number,
    runs: RunList,
  ): void {
    const { clusterSize } = this.#image
    const first = Math.floor((from - guest) / clusterSize)
    const last = Math.ceil((to - guest) / clusterSize)
    const version2 = this.#image.header.version === 2
    for (let i = first; i < last; i++) {
      const high = view.getUint32(i * 8)
      const low = view.getUint32(i * 8 + 4)
      const cluster = guest + i * clusterSize
      const start = Math.max(cluster, from)
      const length = Math.min(cluster + clusterSize, to) - start
      if ((high & COMPRESSED_HIGH) !== 0) {
        runs.push(this.#compressed(high, low, cluster, start, length, tableAt + i * 8))
        continue
      }
      if ((high & L2_RESERVED_HIGH) !== 0 || (low & L2_RESERVED_LOW) !== 0) {
        throw this.#badEntry(tableAt + i * 8, 'reserved bits clear', hex64(high, low))
      }
      const zero = (low & ZERO_LOW) !== 0
      if (zero && version2)
        throw this.#badEntry(tableAt + i * 8, 'no zero clusters in version 2', hex64(high, low))
      const host = this.#clusterOffset(high, low, cluster, tableAt + i * 8)
      if (host === undefined) {
        if (zero) runs.add('zero', start, length, undefined)
        else runs.add('unallocated', start, length, undefined)
      } else runs.add(zero ? 'zero' : 'data', start, length, host + start - cluster)
    }
  }

  /** The cluster that an entry names, if it names one. */
  #clusterOffset(high: number, low: number, guest: number, at: number): number | undefined {
    const offset = (high & OFFSET_HIGH) * HIGH + ((low & OFFSET_LOW) >>> 0)
    // Offset 0 is the image's header, but the first cluster of a data file.
    if (offset === 0 && !(this.#external && (high & COPIED_HIGH) !== 0)) return undefined
    if (offset % this.#image.clusterSize !== 0) {
      throw this.#badEntry(at, 'a cluster boundary', hex(offset))
    }
    // QEMU never maps a data file in another way, and refuses to read what is.
    if (this.#external && offset !== guest) {
      throw this.#badEntry(at, `the guest's offset ${hex(guest)} in the data file`, hex(offset))
    }
    return offset
  }

  /** Extended entries: 64 bits as ever, then a bit for each of 32 subclusters that it is stored, and that it is zero. */
  #decodeExtended(
    { view, offset: tableAt }: TableSlice,
    guest: number,
    from: number,
    to: number,
    runs: RunList,
  ): void {
    const { clusterSize } = this.#image
    const subclusterSize = clusterSize / SUBCLUSTERS
    const first = Math.floor((from - guest) / clusterSize)
    const last = Math.ceil((to - guest) / clusterSize)
    for (let i = first; i < last; i++) {
      const high = view.getUint32(i * 16)
      const low = view.getUint32(i * 16 + 4)
      const zeros = view.getUint32(i * 16 + 8)
      const stored = view.getUint32(i * 16 + 12)
      const cluster = guest + i * clusterSize
      const start = Math.max(cluster, from)
      const end = Math.min(cluster + clusterSize, to)
      const at = tableAt + i * 16
      if ((high & COMPRESSED_HIGH) !== 0) {
        if (zeros !== 0 || stored !== 0) {
          throw this.#badEntry(at + 8, 'no subclusters of a compressed cluster', hex64(zeros, stored))
        }
        runs.push(this.#compressed(high, low, cluster, start, end - start, at))
        continue
      }
      if ((high & L2_RESERVED_HIGH) !== 0 || (low & (L2_RESERVED_LOW | ZERO_LOW)) !== 0) {
        throw this.#badEntry(at, 'reserved bits clear', hex64(high, low))
      }
      if ((zeros & stored) !== 0) {
        throw this.#badEntry(at + 8, 'no subcluster both stored and zero', hex64(zeros, stored))
      }
      const host = this.#clusterOffset(high, low, cluster, at)
      if (host === undefined && stored !== 0) {
        throw this.#badEntry(at + 8, 'no subcluster stored without a cluster', hex64(zeros, stored))
      }
      const firstSub = Math.floor((start - cluster) / subclusterSize)
      for (let sub = firstSub; cluster + sub * subclusterSize < end; sub++) {
        const begin = Math.max(start, cluster + sub * subclusterSize)
        const length = Math.min(end, cluster + (sub + 1) * subclusterSize) - begin
        const place = host === undefined ? undefined : host + begin - cluster
        const isStored = ((stored >>> sub) & 1) === 1
        const isZero = ((zeros >>> sub) & 1) === 1
        runs.add(isStored ? 'data' : isZero ? 'zero' : 'unallocated', begin, length, place)
      }
    }
  }

  /** Compressed cluster descriptor: the offset's width depends on the cluster's. */
  #compressed(
    high: number,
    low: number,
    clusterStart: number,
    start: number,
    length: number,
    at: number,
  ): ClusterRun {
    if (this.#external) throw this.#badEntry(at, 'no compressed cluster with a data file', hex64(high, low))
    // Its width and the number of sectors share bits 0–61; more than 32 of them are the offset's.
    const offsetBits = 62 - (this.#image.header.clusterBits - 8)
    const highBits = offsetBits - 32
    const hostOffset = (high & (2 ** highBits - 1)) * HIGH + (low >>> 0)
    const moreSectors = (high & 0x3fffffff) >>> highBits
    const hostBytes = (moreSectors + 1) * 512 - (hostOffset % 512)
    const { storage } = this.#image
    if (hostOffset >= storage.size) {
      throw this.#badEntry(at, `compressed data within the file of ${storage.size} bytes`, hex(hostOffset))
    }
    // The last one may end with the file.
    const available = Math.min(hostBytes, storage.size - hostOffset)
    return { kind: 'compressed', start, length, clusterStart, hostOffset, hostBytes: available }
  }

  /** What cannot be seen of one entry: places past the end of the file, and those that metadata have. */
  #checked(runs: readonly ClusterRun[], slice: TableSlice, guest: number): readonly ClusterRun[] {
    const { clusterSize } = this.#image
    for (const run of runs) {
      if (run.kind !== 'data' && run.kind !== 'compressed') continue
      const first = run.hostOffset - (run.hostOffset % clusterSize)
      const bytes = run.kind === 'data' ? run.length : run.hostBytes
      const end = Math.ceil((run.hostOffset + bytes) / clusterSize) * clusterSize
      const entryOf = (host: number) =>
        slice.offset +
        Math.floor(
          (run.start - guest + Math.max(0, run.kind === 'data' ? host - run.hostOffset : 0)) / clusterSize,
        ) *
          this.#entryBytes
      // The last cluster of a file may be cut short: what is missing of it was never written.
      if (run.kind === 'data' && end - clusterSize >= this.#data.size) {
        const beyond = Math.max(first, Math.ceil(this.#data.size / clusterSize) * clusterSize)
        throw this.#badEntry(
          entryOf(beyond),
          `a cluster within the ${this.#external ? 'data file' : 'file'} of ${this.#data.size} bytes`,
          hex(beyond),
        )
      }
      const shared = this.#external ? -1 : this.#metadata.firstShared(first, end)
      if (shared >= 0) {
        throw this.#badEntry(entryOf(shared), 'a cluster of its own', `${hex(shared)}, which holds metadata`)
      }
    }
    return runs
  }

  #badEntry(offset: number, expected: string, found: string): CorruptImageError {
    return new CorruptImageError(this.#image.storage.name, {
      structure: 'L2 table entry',
      offset,
      expected,
      found,
    })
  }
}

function hex64(high: number, low: number): string {
  return `0x${(high >>> 0).toString(16).padStart(8, '0')}${(low >>> 0).toString(16).padStart(8, '0')}`
}

/** Bytes of guest disk that one L1 entry stands for. */
export function guestBytesPerL1Entry({ clusterSize, extendedL2 }: ImageInspection): number {
  return clusterSize * (clusterSize / (extendedL2 ? 16 : 8))
}
