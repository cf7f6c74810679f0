import { Qcow2Error, ShortReadError } from '../errors.js'
import { checkRange, type ImageStorage, type ReadOptions } from './storage.js'

/** A large read is done in pieces: each is a copy in memory of its own, and between two of them a signal is seen. */
const PIECE_BYTES = 4 * 1024 * 1024

const identities = new WeakMap<Blob, string>()
let made = 0

/**
 * A Blob, or a File that somebody chose in a browser. Its bytes are read when they are asked for; a file that has
 * changed on disk since it was chosen gives `read-failed`.
 *
 * @param name for messages; default: the File's own
 *
 * @example
 * input.onchange = () => openImage(blobStorage(input.files[0]))
 */
export function blobStorage(blob: Blob, name = nameOf(blob)): ImageStorage {
  return new BlobStorage(blob, name)
}

function nameOf(blob: Blob): string {
  return 'name' in blob && typeof blob.name === 'string' && blob.name !== '' ? blob.name : 'blob'
}

/** By object: nothing tells whether two Files are the same file. */
function identityOf(blob: Blob): string {
  const known = identities.get(blob)
  if (known !== undefined) return known
  const identity = `blob:${made++}`
  identities.set(blob, identity)
  return identity
}

class BlobStorage implements ImageStorage {
  readonly name: string
  readonly size: number
  readonly identity: string
  /** In Node a read costs as much as 30 KiB more; a browser must ask another process, which takes longer. */
  readonly nearBytes = 64 * 1024
  readonly #blob: Blob
  #closed = false

  constructor(blob: Blob, name: string) {
    this.#blob = blob
    this.name = name
    this.size = blob.size
    this.identity = identityOf(blob)
  }

  async readInto(target: Uint8Array, offset: number, { signal }: ReadOptions = {}): Promise<void> {
    if (this.#closed) throw new Error(`${this.name} is closed`)
    checkRange(this, offset, target.byteLength)
    signal?.throwIfAborted()
    for (let done = 0; done < target.byteLength; ) {
      const wanted = Math.min(PIECE_BYTES, target.byteLength - done)
      const piece = await this.#piece(offset + done, wanted)
      signal?.throwIfAborted()
      target.set(piece, done)
      done += piece.byteLength
      if (piece.byteLength < wanted) throw new ShortReadError(this.name, offset, target.byteLength, done)
    }
  }

  async #piece(offset: number, length: number): Promise<Uint8Array> {
    try {
      return new Uint8Array(await this.#blob.slice(offset, offset + length).arrayBuffer())
    } catch (cause) {
      // A NotReadableError: the file has changed, is gone, or the right to read it.
      throw new Qcow2Error(
        'read-failed',
        `${this.name}: read of ${length} bytes at ${offset} failed: ${(cause as Error).message}`,
        { image: this.name, offset },
        { cause },
      )
    }
  }

  async close(): Promise<void> {
    this.#closed = true
  }
}
