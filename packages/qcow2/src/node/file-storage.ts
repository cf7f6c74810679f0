import { close, constants, fstat, open, read, readFileSync, readSync, type Stats } from 'node:fs'
import { promisify } from 'node:util'
import { Qcow2Error, ShortReadError } from '../errors.js'
import { checkRange, type ImageStorage, type ReadOptions, type StoredRun } from '../storage/storage.js'
import { storedRun } from './stored-run.js'

export interface OpenFileOptions {
  /**
   * Read on the calling thread instead of in Node's thread pool: for a program that has nothing else to do meanwhile
   * and many small reads. A read from the page cache then takes a fifth of the time; one from a slow disk stops
   * everything. Every few MiB the event loop gets a turn, so that signals and output come through.
   */
  readonly blocking?: boolean
}

/**
 * Opens a regular file or a block device for reading.
 *
 * @throws {Qcow2Error} `image-missing`, or `read-failed` when it cannot be opened or is neither file nor device
 */
export async function openFile(path: string, options: OpenFileOptions = {}): Promise<ImageStorage> {
  return openForReading(path, options)
}

/** @param first what is to be done before its size is looked at */
export async function openForReading(
  path: string,
  options: OpenFileOptions,
  first?: (fd: number) => Promise<void>,
): Promise<ImageStorage> {
  // Not node:fs/promises: loading it takes longer than reading an image's metadata.
  let fd: number
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
    fd = await promisify(open)(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (cause) {
    throw openError(path, cause)
  }
  try {
    await first?.(fd)
    return new FileStorage(await openedFile(path, fd, options))
  } catch (error) {
    await promisify(close)(fd)
    throw error
  }
}

/** What a descriptor leads to. @throws {Qcow2Error} `read-failed` unless it is a regular file or a block device */
export async function openedFile(
  path: string,
  fd: number,
  { blocking = false }: OpenFileOptions,
): Promise<OpenedFile> {
  const stat = await promisify(fstat)(fd)
  requireFileOrDevice(path, stat)
  const regular = stat.isFile()
  return {
    fd,
    name: path,
    size: regular ? stat.size : blockDeviceSize(path, stat.rdev),
    // One device may have several nodes.
    identity: regular ? `${stat.dev}:${stat.ino}` : `device ${stat.rdev}`,
    allocatedBytes: stat.blocks * 512,
    blocking,
    regular,
  }
}

/** @throws {Qcow2Error} `read-failed` */
export function requireFileOrDevice(path: string, stat: Stats): void {
  if (stat.isFile() || stat.isBlockDevice()) return
  const kind = stat.isDirectory() ? 'a directory' : 'neither a regular file nor a block device'
  throw new Qcow2Error('read-failed', `${path} is ${kind}`, { image: path })
}

/** Reads some bytes, at least one before the file's end. */
type ReadAt = (target: Uint8Array, from: number, length: number, position: number) => number | Promise<number>

/** A large read is done in pieces: between two of them a signal is seen. Node reads no more than 2 GiB at once. */
export const PIECE_BYTES = 4 * 1024 * 1024

/** From the page cache a read of 512 bytes takes some 1.5 µs, one of 16 KiB 2.5; through the pool 12, and 18 of 64 KiB. */
const NEAR_BYTES_BLOCKING = 16 * 1024
const NEAR_BYTES_POOLED = 64 * 1024

function pooledRead(fd: number): ReadAt {
  return (target, from, length, position) =>
    new Promise((resolve, reject) => {
      read(fd, target, from, length, position, (error, bytesRead) => {
        if (error) reject(error)
        else resolve(bytesRead)
      })
    })
}

/** Bytes, or calls, between two turns of the event loop. */
const TURN_BYTES = 16 * 1024 * 1024
const TURN_CALLS = 4096

/** Told of what was done on this thread, gives the event loop a turn every so often. */
export function turns(): (bytes: number) => Promise<void> | undefined {
  let done = 0
  let calls = 0
  return bytes => {
    done += bytes
    if (done <= TURN_BYTES && ++calls <= TURN_CALLS) return undefined
    done = 0
    calls = 0
    return new Promise(resolve => setImmediate(resolve))
  }
}

function blockingRead(fd: number): ReadAt {
  const turn = turns()
  return (target, from, length, position) => {
    const bytesRead = readSync(fd, target, from, length, position)
    return turn(bytesRead)?.then(() => bytesRead) ?? bytesRead
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
function blockDeviceSize(path: string, rdev: number): number {
  return deviceAttribute(path, rdev, 'size') * 512
}

/** A number that the kernel tells of a block device. @throws {Qcow2Error} `read-failed` */
export function deviceAttribute(path: string, rdev: number, attribute: 'size' | 'ro'): number {
  // Linux's encoding of dev_t in 64 bits: gnu_dev_major and gnu_dev_minor.
  const major = (Math.floor(rdev / 256) % 4096) + Math.floor(rdev / 2 ** 44) * 4096
  const minor = (rdev % 256) + (Math.floor(rdev / 2 ** 20) % 2 ** 24) * 256
  try {
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/${attribute}`, 'ascii'))
  } catch (cause) {
    const what = attribute === 'size' ? 'the size of' : 'whether one may write to'
    throw new Qcow2Error(
      'read-failed',
      `cannot tell ${what} block device ${path}`,
      { image: path },
      { cause },
    )
  }
}

export interface OpenedFile {
  readonly fd: number
  readonly name: string
  readonly size: number
  readonly identity: string
  readonly allocatedBytes: number
  readonly blocking: boolean
  /** Not a device: it can change its size, and may have holes that the kernel knows of. */
  readonly regular: boolean
}

export class FileStorage implements ImageStorage {
  readonly name: string
  /** Only {@link WritableFile} changes it. */
  size: number
  readonly identity: string
  readonly allocatedBytes: number
  readonly nearBytes: number
  readonly storedRun?: (offset: number) => Promise<StoredRun>
  protected readonly fd: number
  readonly #readAt: ReadAt
  #closed = false
  #busy = 0
  #lastLeft: (() => void) | undefined

  constructor(file: OpenedFile) {
    this.fd = file.fd
    this.#readAt = file.blocking ? blockingRead(file.fd) : pooledRead(file.fd)
    this.name = file.name
    this.size = file.size
    this.identity = file.identity
    this.allocatedBytes = file.allocatedBytes
    this.nearBytes = file.blocking ? NEAR_BYTES_BLOCKING : NEAR_BYTES_POOLED
    if (file.regular) this.storedRun = offset => this.#storedRun(offset)
  }

  async readInto(target: Uint8Array, offset: number, { signal }: ReadOptions = {}): Promise<void> {
    this.enter(offset, target.byteLength)
    try {
      signal?.throwIfAborted()
      let done = 0
      while (done < target.byteLength) {
        const reading = this.#read(target, done, offset + done)
        // Of many short reads promises would take more than half of the time.
        const bytesRead = typeof reading === 'number' ? reading : await reading
        // The kernel may write into the target until the read has ended: only now may the caller have it back.
        signal?.throwIfAborted()
        // The file has become shorter than it was when it was opened: never zeros.
        if (bytesRead === 0) throw new ShortReadError(this.name, offset, target.byteLength, done)
        done += bytesRead
      }
    } finally {
      this.leave()
    }
  }

  async #storedRun(offset: number): Promise<StoredRun> {
    this.enter(offset, 1)
    try {
      return await storedRun(this.fd, this, offset)
    } finally {
      this.leave()
    }
  }

  /** The descriptor stays open until what entered has left. */
  protected enter(offset: number, length: number): void {
    if (this.#closed) throw new Error(`${this.name} is closed`)
    checkRange(this, offset, length)
    this.#busy++
  }

  protected leave(): void {
    if (--this.#busy === 0) this.#lastLeft?.()
  }

  #read(target: Uint8Array, done: number, position: number): number | Promise<number> {
    const length = Math.min(PIECE_BYTES, target.byteLength - done)
    const failed = (cause: unknown): never => {
      throw new Qcow2Error(
        'read-failed',
        `${this.name}: read of ${length} bytes at ${position} failed: ${(cause as Error).message}`,
        { image: this.name, offset: position },
        { cause },
      )
    }
    try {
      const reading = this.#readAt(target, done, length, position)
      return typeof reading === 'number' ? reading : reading.catch(failed)
    } catch (cause) {
      return failed(cause)
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    // What is still on its way must not find the number given to another file.
    if (this.#busy > 0) await new Promise<void>(resolve => (this.#lastLeft = resolve))
    await promisify(close)(this.fd)
  }
}
