import { checkRange, type ImageStorage } from '../../src/index.js'

/** A file with patches over it: a mutant costs what is changed, not a copy of an image. */
export class Mutant {
  readonly base: Uint8Array
  readonly patches: { readonly at: number; readonly bytes: Uint8Array }[] = []
  size: number

  constructor(base: Uint8Array) {
    this.base = base
    this.size = base.byteLength
  }

  /** Bytes as they are now; zeros behind what was ever there. */
  read(at: number, length: number): Uint8Array {
    const out = new Uint8Array(length)
    this.readInto(out, at)
    return out
  }

  readInto(target: Uint8Array, at: number): void {
    const there = this.base.subarray(at, at + target.byteLength)
    target.set(there)
    target.fill(0, there.byteLength)
    for (const patch of this.patches) {
      const from = Math.max(at, patch.at)
      const to = Math.min(at + target.byteLength, patch.at + patch.bytes.byteLength)
      if (from < to) target.set(patch.bytes.subarray(from - patch.at, to - patch.at), from - at)
    }
  }

  /** Number of `width` bytes, big-endian. */
  number(at: number, width: number): bigint {
    return this.read(at, width).reduce((value, byte) => (value << 8n) | BigInt(byte), 0n)
  }

  put(at: number, width: number, value: bigint): void {
    const bytes = new Uint8Array(width)
    for (let i = width - 1, rest = value; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn)
    this.write(at, bytes)
  }

  /** Never makes the file longer. */
  write(at: number, bytes: Uint8Array): void {
    this.patches.push({ at, bytes })
  }

  bytes(): Uint8Array {
    return this.read(0, this.size)
  }
}

/** What a reader asked of a file. */
export interface Asked {
  reads: number
  bytes: number
  largest: number
}

/** A storage that counts. One file has one identity, however often it is opened. */
export function mutantStorage(mutant: Mutant, name: string, asked: Asked): ImageStorage {
  const storage: ImageStorage = {
    name,
    size: mutant.size,
    identity: name,
    async readInto(target, offset, { signal } = {}) {
      checkRange(storage, offset, target.byteLength)
      signal?.throwIfAborted()
      asked.reads++
      asked.bytes += target.byteLength
      asked.largest = Math.max(asked.largest, target.byteLength)
      mutant.readInto(target, offset)
    },
    async close() {},
  }
  return storage
}
