/**
 * Where an image's bytes come from. The one interface between the format and files, blobs, memory or the network.
 *
 * The contract, which one suite tests for every implementation:
 * - `readInto` fills the whole target or throws; it never does a short read.
 * - A read that ends past `size` is a caller's mistake: RangeError, and nothing is read.
 * - Reads may overlap in time. The caller owns the target and does not touch it until the read ends.
 * - After `close`, reads throw.
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
  readInto(target: Uint8Array, offset: number): Promise<void>
  close(): Promise<void>
}

/** @throws RangeError unless `length` bytes at `offset` are within the storage */
export function checkRange(
  storage: Pick<ImageStorage, 'name' | 'size'>,
  offset: number,
  length: number,
): void {
  if (!(Number.isSafeInteger(offset) && offset >= 0 && offset + length <= storage.size)) {
    throw new RangeError(
      `${storage.name}: ${length} bytes at ${offset} are not within its ${storage.size} bytes`,
    )
  }
}

/** Reads into new memory; the caller has checked that `length` is reasonable. */
export async function readBytes(storage: ImageStorage, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length)
  await storage.readInto(target, offset)
  return target
}
