import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'

/** Tables are kept in pieces: of an L2 table of 2 MiB a random read needs 8 bytes. */
export const SLICE_BYTES = 64 * 1024

/** What was read of a table, and views of it. */
export interface TableSlice {
  readonly offset: number
  readonly view: DataView
}

/**
 * Pieces of tables, the last used ones, counted in bytes: clusters of 512 bytes make small tables, and those of 2 MiB
 * large ones. Who asks for a piece that is on its way waits for the same read.
 */
export class TableCache {
  readonly #storage: ImageStorage
  readonly #maxBytes: number
  readonly #slices = new Map<number, { slice: Promise<TableSlice>; bytes: number }>()
  #bytes = 0

  constructor(storage: ImageStorage, maxBytes: number) {
    this.#storage = storage
    this.#maxBytes = maxBytes
  }

  /** The piece of `bytes` at a host offset; both are always the same for one table. */
  async get(offset: number, bytes: number, { signal }: ReadOptions = {}): Promise<TableSlice> {
    signal?.throwIfAborted()
    const slice = this.#slice(offset, bytes)
    return untilAborted(slice, signal)
  }

  #slice(offset: number, bytes: number): Promise<TableSlice> {
    const known = this.#slices.get(offset)
    if (known !== undefined) {
      // To the end: the first ones are thrown out first.
      this.#slices.delete(offset)
      this.#slices.set(offset, known)
      return known.slice
    }
    const slice = this.#read(offset, bytes)
    this.#slices.set(offset, { slice, bytes })
    this.#bytes += bytes
    this.#shrink()
    return slice
  }

  async #read(offset: number, bytes: number): Promise<TableSlice> {
    try {
      const data = await readBytes(this.#storage, offset, bytes)
      return { offset, view: new DataView(data.buffer, data.byteOffset, bytes) }
    } catch (error) {
      // Whoever asks again may have better luck.
      const failed = this.#slices.get(offset)
      if (failed !== undefined) {
        this.#slices.delete(offset)
        this.#bytes -= failed.bytes
      }
      throw error
    }
  }

  #shrink(): void {
    for (const [offset, { bytes }] of this.#slices) {
      if (this.#bytes <= this.#maxBytes || this.#slices.size === 1) return
      this.#slices.delete(offset)
      this.#bytes -= bytes
    }
  }
}

/** What is everybody's goes on when one of them gives up. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
