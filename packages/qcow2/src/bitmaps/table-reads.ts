import { type BitmapEngine, createTableDecoder, type TableDecoder } from '@tidemark/bitmap-wasm'
import type { ImageInspection } from '../image/inspect.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'

const WINDOW_ENTRIES = 4096

/** One decoder for all tables of bitmaps of a length: of one disk's there are 23 at most, and bitmaps 65,535. */
export class TableDecoders {
  readonly #image: ImageInspection
  readonly #engine: BitmapEngine
  readonly #made = new Map<number, TableDecoder>()

  constructor(image: ImageInspection, engine: BitmapEngine) {
    this.#image = image
    this.#engine = engine
  }

  of(bitmapBytes: number): TableDecoder {
    const known = this.#made.get(bitmapBytes)
    if (known !== undefined) return known
    const { storage, header } = this.#image
    const geometry = { clusterBits: header.clusterBits, bitmapBytes, fileBytes: storage.size }
    const entries = Math.ceil(bitmapBytes / this.#image.clusterSize)
    const decoder = createTableDecoder(this.#engine, geometry, Math.max(1, Math.min(WINDOW_ENTRIES, entries)))
    this.#made.set(bitmapBytes, decoder)
    return decoder
  }
}

/** A stretch of the file: from `start` up to, not including, `end`. */
interface Stretch {
  readonly start: number
  readonly end: number
}

/** Reads for those who read a little at a time, in ascending order, and know beforehand what. */
export class TableReads {
  static readonly BYTES = 256 * 1024
  /** What lies between two pieces is read with them if it is less: a read costs as much as some KiB. */
  static readonly GAP = 4096
  readonly #storage: ImageStorage
  readonly #wanted: readonly Stretch[]
  readonly #options: ReadOptions
  readonly #bytes = new Uint8Array(TableReads.BYTES)
  #next = 0
  #start = 0
  #end = 0

  constructor(storage: ImageStorage, wanted: readonly Stretch[], options: ReadOptions = {}) {
    this.#storage = storage
    this.#wanted = wanted
    this.#options = options
  }

  /** A view for a short read, good until the next; bytes of their own for a long one. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    if (length > TableReads.BYTES / 2) return readBytes(this.#storage, offset, length, this.#options)
    if (offset < this.#start || offset + length > this.#end) {
      this.#start = offset
      this.#end = this.#reach(offset, offset + length)
      await this.#storage.readInto(this.#bytes.subarray(0, this.#end - offset), offset, this.#options)
    }
    return this.#bytes.subarray(offset - this.#start, offset - this.#start + length)
  }

  /** How far a read from `offset` on goes, so that it brings along what lies near. */
  #reach(offset: number, end: number): number {
    const most = Math.max(end, Math.min(offset + TableReads.BYTES, this.#storage.size))
    while (this.#next < this.#wanted.length && this.#wanted[this.#next]!.end <= end) this.#next++
    let reach = end
    for (let i = this.#next; i < this.#wanted.length; i++) {
      const { start, end: to } = this.#wanted[i]!
      if (start > reach + TableReads.GAP || reach === most) break
      reach = Math.min(most, Math.max(reach, to))
    }
    return reach
  }
}
