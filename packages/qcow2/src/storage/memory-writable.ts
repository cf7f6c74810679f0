import { Qcow2Error } from '../errors.js'
import { checkRange } from './storage.js'
import { checkSize, type WritableStorage } from './writable.js'

export interface MemoryWritableOptions {
  /** For messages; default `memory`. */
  readonly name?: string
  /** It grows no further than this: `no-space`, as from a full file system. Default: as far as there is memory. */
  readonly maxBytes?: number
  /** False: it has the size that it has, as a block device does. Default true. */
  readonly resizable?: boolean
}

let made = 0

/**
 * Bytes in memory that can be written to; what it begins with is copied. What is written lasts at once: `flush` only
 * keeps the contract.
 */
export function memoryWritable(
  content: Uint8Array = new Uint8Array(0),
  options: MemoryWritableOptions = {},
): WritableStorage {
  const { name = 'memory', maxBytes = Number.POSITIVE_INFINITY, resizable = true } = options
  // With room to grow into, always zeros; bytes past `size` are not the storage's.
  // Not slice(): a Buffer's is no copy.
  let room = new Uint8Array(content)
  let size = content.byteLength
  let closed = false

  const enter = (offset: number, length: number): void => {
    if (closed) throw new Error(`${name} is closed`)
    checkRange(storage, offset, length)
  }

  const noSpace = (wanted: number, cause?: unknown): Qcow2Error =>
    new Qcow2Error(
      'no-space',
      `${name}: cannot become ${wanted} bytes long`,
      { image: name, size: wanted },
      { cause },
    )

  const grow = (wanted: number): void => {
    if (wanted > maxBytes) throw noSpace(wanted)
    if (wanted <= room.byteLength) return
    let more: Uint8Array<ArrayBuffer>
    try {
      // Twice the room: growing step by step copies each byte a few times only.
      more = new Uint8Array(Math.max(wanted, Math.min(2 * room.byteLength, maxBytes)))
    } catch (cause) {
      throw noSpace(wanted, cause)
    }
    more.set(room.subarray(0, size))
    room = more
  }

  const storage: WritableStorage = {
    name,
    resizable,
    identity: `memory-writable:${made++}`,
    get size() {
      return size
    },
    async readInto(target, offset, { signal } = {}) {
      enter(offset, target.byteLength)
      signal?.throwIfAborted()
      target.set(room.subarray(offset, offset + target.byteLength))
    },
    async writeFrom(bytes, offset) {
      enter(offset, bytes.byteLength)
      room.set(bytes, offset)
    },
    async flush() {
      enter(0, 0)
    },
    async resize(wanted) {
      enter(0, 0)
      checkSize(storage, wanted)
      if (!resizable) {
        if (wanted > size) throw noSpace(wanted)
        return
      }
      grow(wanted)
      room.fill(0, Math.min(wanted, size), size)
      size = wanted
    },
    async discard(offset, length) {
      enter(offset, length)
      room.fill(0, offset, offset + length)
    },
    async close() {
      closed = true
    },
  }
  return storage
}
