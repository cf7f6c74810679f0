export interface ReadOptions {
  /** Ends the read with the signal's reason; the target's content is then undefined. */
  readonly signal?: AbortSignal | undefined
}

/** A stretch of a file that is stored (`data`), or a hole, which reads as zeros and takes no space. */
export interface StoredRun {
  readonly data: boolean
  /** Where it ends, in bytes: more than the offset asked for, at most the storage's size. */
  readonly end: number
}

/**
 * Where an image's bytes come from. The one interface between the format and files, blobs, memory or the network.
 *
 * The contract, which one suite tests for every implementation:
 * - `readInto` fills the whole target or throws; it never does a short read.
 * - A read that ends past `size` is a caller's mistake: RangeError, and nothing is read.
 * - Reads may overlap in time. The caller owns the target and does not touch it until the read ends.
 * - After `close`, reads throw.
 * - A signal that is aborted ends a read that has begun or not, with its reason; where a read cannot be taken back,
 *   when it has ended.
 */
export interface ImageStorage {
  /** For messages: a file's path, a URL, `memory`. */
  readonly name: string
  /** Length in bytes, as it was when the storage was opened. */
  readonly size: number
  /** Tells whether two storages are the same thing under two names (device and inode, say). */
  readonly identity: string
  /** Bytes taken from the file system, where that is known. */
  readonly allocatedBytes?: number
  /**
   * Reading so many bytes more costs no more than another read: what lies this near is read together. Undefined: 0,
   * as in memory.
   */
  readonly nearBytes?: number
  readInto(target: Uint8Array, offset: number, options?: ReadOptions): Promise<void>
  /**
   * Whether what begins at `offset` (below `size`) is a hole, as lseek's SEEK_DATA and SEEK_HOLE tell. Undefined where
   * nobody knows: then all of it counts as data.
   */
  storedRun?(offset: number): Promise<StoredRun>
  close(): Promise<void>
}

/** @throws RangeError unless `length` bytes at `offset`, whole numbers, are within the storage */
export function checkRange(
  storage: Pick<ImageStorage, 'name' | 'size'>,
  offset: number,
  length: number,
): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0
  if (!(whole && offset + length <= storage.size)) {
    throw new RangeError(
      `${storage.name}: ${length} bytes at ${offset} are not within its ${storage.size} bytes`,
    )
  }
}

/** Reads into new memory; the caller has checked that `length` is reasonable. */
export async function readBytes(
  storage: ImageStorage,
  offset: number,
  length: number,
  options?: ReadOptions,
): Promise<Uint8Array> {
  const target = new Uint8Array(length)
  await storage.readInto(target, offset, options)
  return target
}
