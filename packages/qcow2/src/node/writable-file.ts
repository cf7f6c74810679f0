import {
  access,
  close,
  constants,
  fdatasync,
  fsync,
  ftruncate,
  open,
  type Stats,
  stat,
  write,
  writeSync,
} from 'node:fs'
import { promisify } from 'node:util'
import { Qcow2Error } from '../errors.js'
import { checkSize, type WritableStorage } from '../storage/writable.js'
import {
  deviceAttribute,
  FileStorage,
  type OpenedFile,
  type OpenFileOptions,
  openError,
  openedFile,
  PIECE_BYTES,
  requireFileOrDevice,
  turns,
} from './file-storage.js'
import { WRITER } from './lock-bytes.js'
import { native, PUNCH_HOLE_KEEP_SIZE } from './native.js'
import { lockImage } from './ofd-locks.js'

export interface OpenWritableFileOptions extends OpenFileOptions {
  /**
   * `required`, the default: the locks are taken that QEMU takes for an image it writes to, or it is not opened.
   * `none`: none are taken, so that a QEMU may start beside it; for where they cannot be had, and nothing else uses the
   * image. Who has it already is looked for all the same, as far as that can be seen.
   */
  readonly lock?: 'required' | 'none'
}

/**
 * Opens a regular file or a block device for writing, and holds it against other writers until it is closed: as QEMU
 * does and against QEMU, in both directions. Who only looks (`qemu-img info -U`) is let be.
 *
 * A block device is claimed (O_EXCL): one that is mounted, swapped to, or part of another device is refused, and
 * cannot become so while it is open.
 *
 * @throws {Qcow2Error} `image-missing`; `read-failed` when it is neither file nor device, or may not even be read;
 * `write-failed` when it may not be written; `image-locked` when others use it; `lock-unavailable` where no lock can
 * be taken
 */
export async function openWritableFile(
  path: string,
  options: OpenWritableFileOptions = {},
): Promise<WritableStorage> {
  const fd = await openForWriting(path)
  try {
    await lockImage(fd, path, options.lock ?? 'required', WRITER)
    // Its size counts from now on only.
    return new WritableFile(await openedFile(path, fd, options))
  } catch (error) {
    await promisify(close)(fd)
    throw error
  }
}

async function openForWriting(path: string): Promise<number> {
  let found: Stats
  try {
    found = await promisify(stat)(path)
  } catch (cause) {
    throw openError(path, cause)
  }
  // Before it is opened: opening some devices for writing does something.
  requireFileOrDevice(path, found)
  // A device set read-only opens for writing all the same; each write would fail.
  if (found.isBlockDevice() && deviceAttribute(path, found.rdev, 'ro') !== 0) {
    throw new Qcow2Error('write-failed', `cannot open ${path} for writing: the device is read-only`, {
      image: path,
    })
  }
  // O_NONBLOCK: a FIFO that has taken its place meanwhile must not wait for ever.
  const flags = constants.O_RDWR | constants.O_NONBLOCK
  try {
    return await promisify(open)(path, found.isBlockDevice() ? flags | constants.O_EXCL : flags)
  } catch (cause) {
    throw await openForWritingError(path, cause as NodeJS.ErrnoException)
  }
}

async function openForWritingError(path: string, cause: NodeJS.ErrnoException): Promise<Qcow2Error> {
  const failed = (code: 'write-failed' | 'image-locked', why: string) =>
    new Qcow2Error(code, `cannot open ${path} for writing: ${why}`, { image: path }, { cause })
  switch (cause.code) {
    case 'EBUSY':
      return failed('image-locked', 'the system uses this device (mounted, swap, or part of another device)')
    case 'ETXTBSY':
      return failed('image-locked', 'the system uses this file (running, or swap)')
    case 'EROFS':
      return failed('write-failed', 'the file system is read-only')
    case 'EPERM':
      return failed('write-failed', 'it is protected against changes')
    case 'EACCES':
      try {
        await promisify(access)(path, constants.R_OK)
      } catch {
        return openError(path, cause)
      }
      return failed('write-failed', 'it may be read only, not written')
    default:
      return openError(path, cause)
  }
}

/** Writes some bytes. */
type WriteAt = (bytes: Uint8Array, from: number, length: number, position: number) => Promise<number>

function pooledWrite(fd: number): WriteAt {
  return (bytes, from, length, position) =>
    new Promise((resolve, reject) => {
      write(fd, bytes, from, length, position, (error, written) => {
        if (error) reject(error)
        else resolve(written)
      })
    })
}

function blockingWrite(fd: number): WriteAt {
  const turn = turns()
  return async (bytes, from, length, position) => {
    const written = writeSync(fd, bytes, from, length, position)
    await turn(written)
    return written
  }
}

/** A quota, a limit of the file system's or of this process is no space too. */
const NO_SPACE = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])

class WritableFile extends FileStorage implements WritableStorage {
  readonly resizable: boolean
  readonly #writeAt: WriteAt
  #resized = false
  #lastFlush: Promise<void> = Promise.resolve()
  #lost: Qcow2Error | undefined

  constructor(file: OpenedFile) {
    super(file)
    this.resizable = file.regular
    this.#writeAt = file.blocking ? blockingWrite(file.fd) : pooledWrite(file.fd)
  }

  async writeFrom(bytes: Uint8Array, offset: number): Promise<void> {
    this.enter(offset, bytes.byteLength)
    try {
      let done = 0
      while (done < bytes.byteLength) done += await this.#write(bytes, done, offset + done)
    } finally {
      this.leave()
    }
  }

  async #write(bytes: Uint8Array, done: number, offset: number): Promise<number> {
    const length = Math.min(PIECE_BYTES, bytes.byteLength - done)
    const what = `write of ${length} bytes at ${offset}`
    let written: number
    try {
      written = await this.#writeAt(bytes, done, length, offset)
    } catch (cause) {
      throw this.#failure(what, { offset, length }, cause)
    }
    // Again and again nothing: for ever.
    if (written === 0) throw this.#failure(what, { offset, length }, new Error('nothing was written'))
    return written
  }

  async flush(): Promise<void> {
    this.enter(0, 0)
    try {
      // One after the other: the kernel tells of a lost write once, so an fsync beside that one may say all is well.
      const flushed = this.#lastFlush.then(() => this.#flush())
      this.#lastFlush = flushed.catch(() => {})
      await flushed
    } finally {
      this.leave()
    }
  }

  async #flush(): Promise<void> {
    this.#refuseLost()
    // Where a file grew by writes fdatasync minds its length too; of a length alone POSIX does not promise that.
    const sync = this.#resized ? fsync : fdatasync
    this.#resized = false
    try {
      await promisify(sync)(this.fd)
    } catch (cause) {
      this.#lost = this.#failure('flush', {}, cause)
      throw this.#lost
    }
  }

  async resize(size: number): Promise<void> {
    this.enter(0, 0)
    try {
      checkSize(this, size)
      if (this.resizable) await this.#truncate(size)
      else if (size > this.size) {
        throw new Qcow2Error(
          'no-space',
          `${this.name} is a block device of ${this.size} bytes, ${size} are needed`,
          { image: this.name, size, deviceSize: this.size },
        )
      }
    } finally {
      this.leave()
    }
  }

  async #truncate(size: number): Promise<void> {
    try {
      await promisify(ftruncate)(this.fd, size)
    } catch (cause) {
      throw this.#failure(`change of size from ${this.size} to ${size} bytes`, { size }, cause)
    }
    this.size = size
    this.#resized = true
  }

  async discard(offset: number, length: number): Promise<void> {
    this.enter(offset, length)
    try {
      // A device's blocks may read as anything after BLKDISCARD, so they stay.
      if (!this.resizable || length === 0) return
      await (await native())?.fallocate(this.fd, PUNCH_HOLE_KEEP_SIZE, offset, length)
    } finally {
      this.leave()
    }
  }

  protected override enter(offset: number, length: number): void {
    this.#refuseLost()
    super.enter(offset, length)
  }

  #refuseLost(): void {
    if (this.#lost === undefined) return
    throw new Qcow2Error(
      'write-failed',
      `${this.name}: an earlier flush failed: what was written since the one before may be lost`,
      { image: this.name },
      { cause: this.#lost },
    )
  }

  #failure(what: string, details: Record<string, unknown>, cause: unknown): Qcow2Error {
    const { code, message } = cause as NodeJS.ErrnoException
    return new Qcow2Error(
      NO_SPACE.has(code ?? '') ? 'no-space' : 'write-failed',
      `${this.name}: ${what} failed: ${message}`,
      { image: this.name, ...details },
      { cause },
    )
  }
}
