import { type ImageStorage, memoryStorage } from '../src/index.js'

export interface CountingStorage extends ImageStorage {
  readonly reads: { readonly offset: number; readonly length: number }[]
  bytesRead(): number
}

/** A storage in memory that remembers what was asked of it. */
export function countingStorage(bytes: Uint8Array): CountingStorage {
  const storage = memoryStorage(bytes)
  const reads: { offset: number; length: number }[] = []
  return {
    ...storage,
    reads,
    bytesRead: () => reads.reduce((sum, { length }) => sum + length, 0),
    async readInto(target, offset) {
      reads.push({ offset, length: target.byteLength })
      await storage.readInto(target, offset)
    },
  }
}
