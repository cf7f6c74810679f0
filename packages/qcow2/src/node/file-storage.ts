import { constants } from 'node:fs'
import { type FileHandle, open, readFile } from 'node:fs/promises'
import { Qcow2Error, ShortReadError } from '../errors.js'
import { checkRange, type ImageStorage } from '../storage/storage.js'

/**
 * Opens a regular file or a block device for reading.
 *
 * @throws {Qcow2Error} `image-missing`, or `read-failed` when it cannot be opened or is neither file nor device
 */
export async function openFile(path: string): Promise<ImageStorage> {
  let handle: FileHandle
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    throw openError(path, cause)
  }
  try {
    const stat = await handle.stat()
    if (!stat.isFile() && !stat.isBlockDevice()) {
      const kind = stat.isDirectory() ? 'a directory' : 'neither a regular file nor a block device'
      throw new Qcow2Error('read-failed', `${path} is ${kind}`, { image: path })
    }
    const size = stat.isFile() ? stat.size : await blockDeviceSize(path, stat.rdev)
    // One device may have several nodes.
    const identity = stat.isFile() ? `${stat.dev}:${stat.ino}` : `device ${stat.rdev}`
    return new FileStorage(handle, path, size, identity, stat.blocks * 512)
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** The error for a path that cannot be looked at or opened. */
export function openError(path: string, cause: unknown): Qcow2Error {
  const code = (cause as NodeJS.ErrnoException).code
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new Qcow2Error('image-missing', `${path}: no such file`, { image: path }, { cause })
  }
  const reason = code === 'EACCES' ? 'permission denied' : (cause as Error).message
  return new Qcow2Error('read-failed', `cannot open ${path}: ${reason}`, { image: path }, { cause })
}

/** A block device's stat has size 0; the kernel counts its 512-byte sectors in sysfs. */
async function blockDeviceSize(path: string, rdev: number): Promise<number> {
  // Linux's encoding of dev_t in 64 bits: gnu_dev_major and gnu_dev_minor.
  const major = (Math.floor(rdev / 256) % 4096) + Math.floor(rdev / 2 ** 44) * 4096
  const minor = (rdev % 256) + (Math.floor(rdev / 2 ** 20) % 2 ** 24) * 256
  try {
    return Number(await readFile(`/sys/dev/block/${major}:${minor}/size`, 'ascii')) * 512
  } catch (cause) {
    throw new Qcow2Error(
      'read-failed',
      `cannot tell the size of block device ${path}`,
      { image: path },
      { cause },
    )
  }
}

class FileStorage implements ImageStorage {
  readonly name: string
  readonly size: number
  readonly identity: string
  readonly allocatedBytes: number
  readonly #handle: FileHandle
  #closed = false

  constructor(handle: FileHandle, name: string, size: number, identity: string, allocatedBytes: number) {
    this.#handle = handle
    this.name = name
    this.size = size
    this.identity = identity
    this.allocatedBytes = allocatedBytes
  }

  async readInto(target: Uint8Array, offset: number): Promise<void> {
    if (this.#closed) throw new Error(`${this.name} is closed`)
    checkRange(this, offset, target.byteLength)
    let done = 0
    while (done < target.byteLength) {
      const bytesRead = await this.#read(target, done, offset + done)
      // The file has become shorter than it was when it was opened: never zeros.
      if (bytesRead === 0) throw new ShortReadError(this.name, offset, target.byteLength, done)
      done += bytesRead
    }
  }

  async #read(target: Uint8Array, done: number, position: number): Promise<number> {
    try {
      return (await this.#handle.read(target, done, target.byteLength - done, position)).bytesRead
    } catch (cause) {
      throw new Qcow2Error(
        'read-failed',
        `${this.name}: read of ${target.byteLength - done} bytes at ${position} failed: ${(cause as Error).message}`,
        { image: this.name, offset: position },
        { cause },
      )
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#handle.close()
  }
}
