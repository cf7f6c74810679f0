import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fchmodSync,
  fchownSync,
  fsync,
  ftruncateSync,
  openSync,
  renameSync,
  type Stats,
  unlinkSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { DumpTarget } from './target.js'
import { writeAll } from './write-all.js'
import { writeError } from './write-error.js'

export interface FileTargetOptions {
  /** Bytes. */
  readonly size: number
  /** What is there now, whose owner and mode are kept. */
  readonly before: Stats | undefined
  /** Wait until it is on the disk. */
  readonly sync: boolean
}

/**
 * A sparse file, all or nothing: it is made beside its place, and takes that when it is whole. What
 * was there before stays until then.
 *
 * @param path of the file itself, not of a symbolic link to it
 * @throws {CommandError} `write-failed`
 */
export function fileTarget(path: string, { size, before, sync }: FileTargetOptions): DumpTarget {
  const folder = dirname(path)
  const temporary = join(folder, shortName(path))
  const failed = (cause: unknown) => writeError(path, cause)
  let fd: number
  try {
    fd = openSync(temporary, 'wx', 0o666)
  } catch (cause) {
    throw failed(cause)
  }
  let open = true
  const discard = () => {
    if (!open) return
    open = false
    process.off('exit', discard)
    for (const step of [() => closeSync(fd), () => unlinkSync(temporary)]) {
      try {
        step()
      } catch {
        // There is nobody left to tell.
      }
    }
  }
  // Ctrl-C ends the process where it is.
  process.on('exit', discard)
  try {
    ftruncateSync(fd, size)
    if (before !== undefined) keepOwner(fd, before)
  } catch (cause) {
    discard()
    throw failed(cause)
  }
  return {
    zeros: undefined,
    write: (bytes, position) =>
      writeAll(fd, bytes, position).catch(cause => {
        throw failed(cause)
      }),
    async finish() {
      try {
        if (sync) await promisify(fsync)(fd)
        renameSync(temporary, path)
      } catch (cause) {
        throw failed(cause)
      }
      open = false
      process.off('exit', discard)
      closeSync(fd)
      if (sync) await syncFolder(folder)
    },
    discard,
  }
}

/** A name has 255 bytes at most, whatever its characters take. */
function shortName(path: string): string {
  const name = Buffer.from(basename(path))
    .subarray(0, 100)
    .toString('latin1')
    .replace(/[^ -~]/g, '_')
  return `.${name}.${randomBytes(6).toString('hex')}.part`
}

function keepOwner(fd: number, { uid, gid, mode }: Stats): void {
  try {
    fchownSync(fd, uid, gid)
  } catch {
    // Not ours to give away: then it is ours.
  }
  fchmodSync(fd, mode & 0o777)
}

/** Else the new name may be lost with the power, though the file is safe. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const fd = openSync(folder, 'r')
    await promisify(fsync)(fd).finally(() => closeSync(fd))
  } catch {
    // Some file systems cannot.
  }
}
