import { checkRange, type ImageStorage } from './storage.js'

let made = 0

/** An image held in memory. The bytes are not copied. */
export function memoryStorage(bytes: Uint8Array, name = 'memory'): ImageStorage {
  let closed = false
  const storage: ImageStorage = {
    name,
    size: bytes.byteLength,
    identity: `memory:${made++}`,
    async readInto(target, offset, { signal } = {}) {
      if (closed) throw new Error(`${name} is closed`)
      checkRange(storage, offset, target.byteLength)
      signal?.throwIfAborted()
      target.set(bytes.subarray(offset, offset + target.byteLength))
    },
    async close() {
      closed = true
    },
  }
  return storage
}
