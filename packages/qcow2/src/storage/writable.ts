import type { ImageStorage } from './storage.js'

/**
 * A storage that can be written to, held by its opener alone: nobody else writes it, or reads it as an image, until it
 * is closed.
 *
 * Beside the contract of {@link ImageStorage}:
 * - `size` is the length now: it changes with `resize`, when that has ended.
 * - What is written is read back at once, but lasts only after `flush`. Of writes between two flushes any may last, in
 *   any order, and of the last ones any part; sectors of 512 bytes are whole, the old or the new.
 * - Writes to one place must not overlap in time; others may. The caller does not touch the bytes until the write ends.
 * - A flush that failed is never tried again: what the kernel could not write it may have forgotten. From then on
 *   everything but `close` throws `write-failed`.
 * - `close` does not flush.
 */
export interface WritableStorage extends ImageStorage {
  /** A file can grow and shrink; a block device has the size that it has. */
  readonly resizable: boolean
  /**
   * Writes all of it, or throws: then any part of it may be there.
   *
   * @throws RangeError past `size`: grow it first
   * @throws {Qcow2Error} `no-space`, `write-failed`
   */
  writeFrom(bytes: Uint8Array, offset: number): Promise<void>
  /** All that was written before lasts when it returns. @throws {Qcow2Error} `write-failed`, `no-space` */
  flush(): Promise<void>
  /**
   * Makes the file so long; what is new reads as zeros. What is not `resizable` keeps its size, and has room for all
   * that is not larger.
   *
   * @throws RangeError when it is no length
   * @throws {Qcow2Error} `no-space` beyond a block device's size, and for a full file system; `write-failed`
   */
  resize(size: number): Promise<void>
  /**
   * Gives the space of a stretch back where that can be done, and lets it read as zeros then; where it cannot be done,
   * what was there stays. Fails only for a caller's mistake, and after a flush that failed.
   */
  discard(offset: number, length: number): Promise<void>
}

/** @throws RangeError unless a storage can be so long: whole bytes, exact in a number */
export function checkSize(storage: Pick<ImageStorage, 'name'>, size: number): void {
  if (!(Number.isSafeInteger(size) && size >= 0)) {
    throw new RangeError(`${storage.name}: ${size} is no length in bytes`)
  }
}
