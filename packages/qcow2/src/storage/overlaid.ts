import { type ImageStorage, readBytes } from './storage.js'

/** A storage as it would be with other bytes at its start. Nothing is written. */
export function overlaid(storage: ImageStorage, start: Uint8Array): ImageStorage {
  return {
    name: storage.name,
    size: storage.size,
    identity: storage.identity,
    async readInto(target, offset, options) {
      await storage.readInto(target, offset, options)
      if (offset < start.byteLength) {
        target.set(start.subarray(offset, Math.min(start.byteLength, offset + target.byteLength)))
      }
    },
    close: () => storage.close(),
  }
}

/** The first bytes; zeros where the storage is shorter. */
export async function readStart(storage: ImageStorage, length: number): Promise<Uint8Array> {
  const start = new Uint8Array(length)
  start.set(await readBytes(storage, 0, Math.min(length, storage.size)))
  return start
}
