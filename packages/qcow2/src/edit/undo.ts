import { isZero } from '../format/bytes.js'
import { readBytes } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'

/** What free clusters held is put back after a failure, up to so much: they are nobody's. Metadata always are. */
const MAX_UNDO_BYTES = 64 * 1024 * 1024

interface Kept {
  readonly offset: number
  /** Undefined: zeros, a hole perhaps. */
  readonly bytes: Uint8Array | undefined
  readonly length: number
}

/** What was where something was written, to put it back. */
export class Undo {
  readonly #storage: WritableStorage
  readonly #size: number
  /** Metadata, in steps: what refers to something goes before that does. */
  readonly #steps: Kept[][] = [[]]
  /** Clusters that nobody referred to. */
  readonly #free: Kept[] = []
  #bytes = 0

  constructor(storage: WritableStorage) {
    this.#storage = storage
    this.#size = storage.size
  }

  /** What is there now. @param free it is of a cluster that nobody refers to */
  async keep(offset: number, length: number, free: boolean): Promise<void> {
    const there = Math.min(length, this.#size - offset)
    if (there <= 0) return
    const found = await readBytes(this.#storage, offset, there)
    if (!free) {
      this.#steps.at(-1)!.push({ offset, bytes: found, length: there })
      return
    }
    const bytes = isZero(found) ? undefined : found
    if (bytes !== undefined && this.#bytes + there > MAX_UNDO_BYTES) return
    this.#bytes += bytes?.byteLength ?? 0
    this.#free.push({ offset, bytes, length: there })
  }

  barrier(): void {
    this.#steps.push([])
  }

  /**
   * Never throws: what failed is told already.
   *
   * @returns whether all that counts is as it was
   */
  async all(): Promise<boolean> {
    const storage = this.#storage
    try {
      for (const step of this.#steps.reverse()) {
        if (step.length === 0) continue
        for (const { offset, bytes } of step.reverse()) await storage.writeFrom(bytes!, offset)
        await storage.flush()
      }
      // Only now is what is new nobody's. A full file system has room again.
      if (storage.resizable && storage.size !== this.#size) await storage.resize(this.#size)
    } catch {
      // New clusters that are counted, and nobody's: leaks, at worst.
      return false
    }
    for (const { offset, bytes, length } of this.#free) {
      // Holes become holes again: writing zeros would take the room that there was not.
      const back = bytes === undefined ? storage.discard(offset, length) : storage.writeFrom(bytes, offset)
      await back.catch(() => {})
    }
    await storage.flush().catch(() => {})
    return true
  }
}
