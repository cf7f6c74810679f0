import { checkRange, type ImageStorage } from '../src/index.js'

export interface SparseStorage extends ImageStorage {
  bytesRead(): number
  largestRead(): number
}

/**
 * A file that may be of any size, zeros but for some stretches: what a hostile image is like on a file system with
 * holes, or behind HTTP.
 */
export function sparseStorage(
  size: number,
  stretches: readonly (readonly [offset: number, bytes: Uint8Array])[],
  more: Partial<ImageStorage> = {},
): SparseStorage {
  let bytesRead = 0
  let largest = 0
  const storage: SparseStorage = {
    name: 'sparse',
    size,
    identity: `sparse ${size}`,
    bytesRead: () => bytesRead,
    largestRead: () => largest,
    async readInto(target, offset, { signal } = {}) {
      checkRange(storage, offset, target.byteLength)
      signal?.throwIfAborted()
      bytesRead += target.byteLength
      largest = Math.max(largest, target.byteLength)
      target.fill(0)
      for (const [at, bytes] of stretches) {
        const from = Math.max(at, offset)
        const to = Math.min(at + bytes.byteLength, offset + target.byteLength)
        if (from < to) target.set(bytes.subarray(from - at, to - at), from - offset)
      }
    },
    async close() {},
    ...more,
  }
  return storage
}
