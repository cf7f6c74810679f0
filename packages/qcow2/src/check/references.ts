import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import { createTableDecoder, type TableDecoder, tableRunKinds } from '@tidemark/bitmap-wasm'
import type { PersistentBitmap } from '../bitmaps/directory.js'
import { TableDecoders, TableReads } from '../bitmaps/table-reads.js'
import { CorruptImageError, hex, UnsupportedFeatureError } from '../errors.js'
import { entryOffset, fieldsOf, isZero, nextEntry } from '../format/bytes.js'
import { extensionMagic } from '../format/extensions.js'
import { readRefcountTable } from '../format/refcounts.js'
import { readSnapshotTable } from '../format/snapshots.js'
import type { ImageInspection } from '../image/inspect.js'
import { type ReadOptions, readBytes } from '../storage/storage.js'
import { ClusterBits } from './cluster-bits.js'

/** Which clusters of the image file something refers to: all that the image says, whatever its refcounts are. */
export interface ReferenceMap {
  /** Clusters of the file; the last one may be cut short. */
  readonly clusters: number
  readonly used: ClusterBits
  /** Of them, those that bitmaps refer to, and nothing else does: directory, tables, data. */
  readonly bitmapClusters: number
  /** Bitmaps in use whose tables are damaged: what they refer to is not for sure their own. QEMU does not read them. */
  readonly doubtful: ReadonlySet<PersistentBitmap>
}

const WINDOW_BYTES = 64 * 1024
/** QEMU's limit for any L1 table, a snapshot's too. */
const MAX_L1_BYTES = 32 * 1024 * 1024
/** A bit for each takes 512 MiB. */
const MAX_CLUSTERS = 2 ** 32
const INVALID = tableRunKinds.indexOf('invalid')
const DATA = tableRunKinds.indexOf('data')

/**
 * Walks all that an image refers to: header, refcount structures, the active L1 table and each snapshot's with all
 * they lead to, the LUKS area, bitmaps. Strict: whoever writes on the ground of this map must be sure of it.
 *
 * Takes a bit for each cluster of the file, and reads all L2 and bitmap tables.
 *
 * @throws {CorruptImageError} for a reference past the end of the file, or one that cannot be; for a cluster that
 *   something else refers to too, of a bitmap or of what an edit writes to in place: header, refcount table and blocks
 */
export async function mapReferences(
  image: ImageInspection,
  engine: BitmapEngine,
  options: ReadOptions = {},
): Promise<ReferenceMap> {
  const walk = new Walk(image, engine, options)
  await walk.all()
  const { used, bitmapClusters, doubtful } = walk
  return { clusters: used.size, used, bitmapClusters, doubtful }
}

interface Place {
  readonly structure: string
  readonly field?: string
  /** Where the reference stands. */
  readonly at: number
}

class Walk {
  readonly used: ClusterBits
  bitmapClusters = 0
  readonly doubtful = new Set<PersistentBitmap>()
  readonly #image: ImageInspection
  readonly #engine: BitmapEngine
  readonly #options: ReadOptions
  readonly #clusterSize: number
  readonly #fileBytes: number
  /** L2 tables that were walked: snapshots share them. */
  readonly #walked: ClusterBits
  /** What an edit writes to in place. */
  readonly #inPlace = new Set<number>()

  constructor(image: ImageInspection, engine: BitmapEngine, options: ReadOptions) {
    this.#image = image
    this.#engine = engine
    this.#options = options
    this.#clusterSize = image.clusterSize
    this.#fileBytes = image.storage.size
    const clusters = Math.ceil(this.#fileBytes / this.#clusterSize)
    if (clusters > MAX_CLUSTERS) {
      throw new UnsupportedFeatureError(image.storage.name, `a file of more than ${MAX_CLUSTERS} clusters`)
    }
    this.used = new ClusterBits(clusters)
    this.#walked = new ClusterBits(clusters)
  }

  async all(): Promise<void> {
    const { header, storage, extensions, encrypted } = this.#image
    this.#addInPlace(0, 1, { structure: 'header', at: 0 })
    this.#addInPlace(header.refcountTableOffset, header.refcountTableClusters * this.#clusterSize, {
      structure: 'header',
      field: 'refcount_table_offset',
      at: 48,
    })
    const blocks = await readRefcountTable(storage, header, this.#options)
    for (let i = 0; i < blocks.length; i++) {
      if (blocks[i] === 0) continue
      const at = header.refcountTableOffset + i * 8
      this.#addInPlace(blocks[i]!, 1, { structure: 'refcount table', field: `entry ${i}`, at })
    }
    if (encrypted && header.cryptMethod === 2) {
      const luks = extensions.findLast(({ magic }) => magic === extensionMagic.luksHeader)
      if (luks !== undefined) {
        const f = fieldsOf(luks.data)
        const place = { structure: 'full disk encryption header pointer', at: luks.offset }
        this.#add(f.u64(0), f.u64(8), place)
      }
    }
    await this.#table('L1 table', header.l1TableOffset, header.l1Size)
    const { snapshots, bytes } = await readSnapshotTable(storage, header, this.#options)
    if (bytes > 0) {
      this.#add(header.snapshotsOffset, bytes, { structure: 'header', field: 'snapshots_offset', at: 64 })
    }
    for (const { name, l1TableOffset, l1Size } of snapshots) {
      await this.#table(`L1 table of snapshot '${name}'`, l1TableOffset, l1Size)
    }
    await this.#bitmaps()
  }

  async #table(structure: string, offset: number, size: number): Promise<void> {
    if (size === 0) return
    if (size * 8 > MAX_L1_BYTES) {
      const at = { structure, field: 'size', at: offset }
      throw this.#corrupt(at, `at most ${MAX_L1_BYTES / 8} entries`, String(size))
    }
    this.#add(offset, size * 8, { structure, at: offset })
    this.#mustBeWhole(offset, size * 8, () => ({ structure, at: offset }))
    for (let first = 0; first < size; first += WINDOW_BYTES / 8) {
      const count = Math.min(size - first, WINDOW_BYTES / 8)
      const at = offset + first * 8
      const bytes = await readBytes(this.#image.storage, at, count * 8, this.#options)
      const view = new DataView(bytes.buffer)
      const words = new Int32Array(bytes.buffer)
      for (let i = nextEntry(words, 0, count); i < count; i = nextEntry(words, i + 1, count)) {
        const l2 = entryOffset(view, i * 8)
        if (l2 === 0) continue
        this.#addCluster(l2, { structure, field: `entry ${first + i}`, at: at + i * 8 })
        if (!this.#walked.add(l2 / this.#clusterSize)) await this.#l2(l2)
      }
    }
  }

  async #l2(offset: number): Promise<void> {
    const { dataFile, extendedL2, storage } = this.#image
    // Its clusters are another file's.
    if (dataFile !== undefined) return
    const width = extendedL2 ? 16 : 8
    const end = Math.min(offset + this.#clusterSize, this.#fileBytes)
    for (let start = offset; start < end; start += WINDOW_BYTES) {
      const bytes = await readBytes(storage, start, Math.min(WINDOW_BYTES, end - start), this.#options)
      this.#l2Entries(bytes, start, Math.floor(bytes.byteLength / width), width)
    }
  }

  #l2Entries(bytes: Uint8Array, start: number, entries: number, width: number): void {
    const view = new DataView(bytes.buffer)
    const words = new Int32Array(bytes.buffer, 0, (entries * width) / 4)
    const next = (from: number) => nextEntry(words, from, entries, width / 4)
    for (let i = next(0); i < entries; i = next(i + 1)) {
      const at = i * width
      if ((view.getUint32(at) & 0x40000000) !== 0) {
        this.#compressed(view, at, start + at)
        continue
      }
      const host = entryOffset(view, at)
      // There may be hundreds of millions of them.
      if (host > 0 && host % this.#clusterSize === 0 && host < this.#fileBytes) {
        const cluster = host / this.#clusterSize
        if (this.used.add(cluster) && this.#inPlace.has(cluster)) {
          throw this.#notItsOwn({ structure: 'L2 table entry', at: start + at }, cluster)
        }
      } else if (host > 0) this.#addCluster(host, { structure: 'L2 table entry', at: start + at })
    }
  }

  #compressed(view: DataView, at: number, place: number): void {
    const hostHighBits = 62 - (this.#image.header.clusterBits - 8) - 32
    const high = view.getUint32(at)
    const host = (high & (2 ** hostHighBits - 1)) * 2 ** 32 + view.getUint32(at + 4)
    const sectors = ((high & 0x3fffffff) >>> hostHighBits) + 1
    // The file may end within its last sector.
    const reach = Math.min(host + sectors * 512 - (host % 512), Math.max(host + 1, this.#fileBytes))
    const first = host - (host % this.#clusterSize)
    this.#add(first, reach - first, { structure: 'L2 table entry', at: place })
  }

  /** Last, so that a cluster that somebody else has is found. */
  async #bitmaps(): Promise<void> {
    const directory = this.#image.bitmapDirectory
    if (directory === undefined) return
    const { bitmaps, extension } = directory
    const { directoryOffset, directorySize } = extension
    if (directorySize > 0) {
      const place = () => ({ structure: 'bitmaps extension', at: directoryOffset })
      this.#own(directoryOffset, directorySize, place)
    }
    const tables = bitmaps.map(({ tableOffset, tableSize }) => ({
      start: tableOffset,
      end: tableOffset + tableSize * 8,
    }))
    const reads = new TableReads(this.#image.storage, tables, this.#options)
    const mark = this.#engine.mark()
    try {
      const decoders = new TableDecoders(this.#image, this.#engine)
      for (const bitmap of bitmaps) {
        try {
          await this.#bitmap(bitmap, decoders, reads)
        } catch (error) {
          if (!bitmap.inUse || !(error instanceof CorruptImageError)) throw error
          this.doubtful.add(bitmap)
        }
      }
    } finally {
      this.#engine.release(mark)
    }
  }

  async #bitmap(bitmap: PersistentBitmap, decoders: TableDecoders, reads: TableReads): Promise<void> {
    const { tableOffset, tableSize, bitmapBytes, name } = bitmap
    const place = () => ({
      structure: `bitmap directory entry of '${name}'`,
      at: this.#image.bitmapDirectory!.extension.directoryOffset + bitmap.entryOffset,
    })
    this.#own(tableOffset, tableSize * 8, place)
    this.#mustBeWhole(tableOffset, tableSize * 8, place)
    // The file may end within the last cluster, behind the bitmap's last bit.
    if (Math.ceil(bitmapBytes / this.#clusterSize) === tableSize) {
      return this.#clusters(bitmap, decoders.of(bitmapBytes), reads)
    }
    // One in use may have a table of any size, and each another one.
    const mark = this.#engine.mark()
    try {
      const { storage, header } = this.#image
      const geometry = {
        clusterBits: header.clusterBits,
        bitmapBytes: tableSize * this.#clusterSize,
        fileBytes: storage.size,
      }
      await this.#clusters(bitmap, createTableDecoder(this.#engine, geometry), reads)
    } finally {
      this.#engine.release(mark)
    }
  }

  async #clusters(
    { tableOffset, tableSize, name }: PersistentBitmap,
    decoder: TableDecoder,
    reads: TableReads,
  ): Promise<void> {
    for (let first = 0; first < tableSize; first += decoder.windowEntries) {
      const count = Math.min(decoder.windowEntries, tableSize - first)
      const bytes = await reads.read(tableOffset + first * 8, count * 8)
      // Of many bitmaps most are clear.
      if (isZero(bytes)) continue
      decoder.window.bytes.set(bytes)
      for (const runs of decoder.runs(first, count)) {
        for (let run = 0; run < runs.count; run++) {
          const place = (): Place => ({
            structure: `bitmap table of '${name}'`,
            field: `entry ${runs.firstEntries[run]}`,
            at: tableOffset + runs.firstEntries[run]! * 8,
          })
          if (runs.kinds[run] === INVALID) {
            throw this.#corrupt(place(), 'an entry without violations', runs.violations(run).join(', '))
          }
          if (runs.kinds[run] !== DATA) continue
          this.#own(runs.hostOffsets[run]!, runs.counts[run]! * this.#clusterSize, place)
        }
      }
    }
  }

  #addCluster(offset: number, place: Place): void {
    if (offset % this.#clusterSize !== 0) throw this.#corrupt(place, 'a cluster boundary', hex(offset))
    this.#add(offset, 1, place)
  }

  #add(offset: number, bytes: number, place: Place): void {
    const first = this.#first(offset, () => place)
    const end = this.#end(offset + bytes, () => place)
    for (let cluster = first; cluster < end; cluster++) {
      if (this.used.add(cluster) && this.#inPlace.has(cluster)) throw this.#notItsOwn(place, cluster)
    }
  }

  /** First of all, so that whoever refers to it later is found. */
  #addInPlace(offset: number, bytes: number, place: Place): void {
    const first = this.#first(offset, () => place)
    const end = this.#end(offset + bytes, () => place)
    for (let cluster = first; cluster < end; cluster++) {
      if (this.used.add(cluster)) throw this.#notItsOwn(place, cluster)
      this.#inPlace.add(cluster)
    }
  }

  /** A bitmap's own: nobody else may refer to it. */
  #own(offset: number, bytes: number, place: () => Place): void {
    const first = this.#first(offset, place)
    const end = this.#end(offset + bytes, place)
    for (let cluster = first; cluster < end; cluster++) {
      if (this.used.add(cluster)) throw this.#notItsOwn(place(), cluster)
    }
    this.bitmapClusters += end - first
  }

  #first(offset: number, place: () => Place): number {
    if (offset % this.#clusterSize !== 0) throw this.#corrupt(place(), 'a cluster boundary', hex(offset))
    return offset / this.#clusterSize
  }

  #end(offset: number, place: () => Place): number {
    const end = Math.ceil(offset / this.#clusterSize)
    if (end > this.used.size) {
      throw this.#corrupt(place(), `a place within the file of ${this.#fileBytes} bytes`, hex(offset - 1))
    }
    return end
  }

  /** The file may end within a cluster, but not within what is read of it. */
  #mustBeWhole(offset: number, bytes: number, place: () => Place): void {
    if (offset + bytes <= this.#fileBytes) return
    throw this.#corrupt(
      place(),
      `a place within the file of ${this.#fileBytes} bytes`,
      hex(offset + bytes - 1),
    )
  }

  #notItsOwn(place: Place, cluster: number): CorruptImageError {
    const found = `${hex(cluster * this.#clusterSize)}, which is used already`
    return this.#corrupt(place, 'clusters of its own', found)
  }

  #corrupt({ structure, field, at }: Place, expected: string, found: string): CorruptImageError {
    return new CorruptImageError(this.#image.storage.name, {
      structure,
      ...(field === undefined ? {} : { field }),
      offset: at,
      expected,
      found,
    })
  }
}
