import { close, constants, fsync, open } from 'node:fs'
import { promisify } from 'node:util'
import type { DumpTarget } from './target.js'
import { writeAll } from './write-all.js'
import { writeError } from './write-error.js'

const zeroPiece = Buffer.alloc(1024 * 1024)

/**
 * What is there already and stays: a block device, written in place with explicit zeros, or a pipe or a character
 * device, which takes bytes one after the other.
 *
 * @throws {CommandError} `write-failed`
 */
export async function placeTarget(out: string, kind: 'block' | 'stream', sync: boolean): Promise<DumpTarget> {
  const failed = (cause: unknown) => writeError(out, cause)
  const block = kind === 'block'
  // O_EXCL: not a device that is mounted. Opening a pipe waits for its reader, in the thread pool.
  const flags = constants.O_WRONLY | (block ? constants.O_EXCL : 0)
  const fd = await promisify(open)(out, flags).catch(cause => {
    throw failed(cause)
  })
  const write = async (bytes: Buffer, position: number) => {
    try {
      await writeAll(fd, bytes, block ? position : undefined)
    } catch (cause) {
      throw failed(cause)
    }
  }
  return {
    write,
    zeros: (position, length) => writeZeros(write, position, length),
    async finish() {
      try {
        if (block && sync) await promisify(fsync)(fd)
        await promisify(close)(fd)
      } catch (cause) {
        throw failed(cause)
      }
    },
    discard() {
      close(fd, () => {})
    },
  }
}

/** For places where zeros must be written. */
export async function writeZeros(
  write: (bytes: Buffer, position: number) => Promise<void>,
  position: number,
  length: number,
): Promise<void> {
  for (let done = 0; done < length; ) {
    const bytes = Math.min(zeroPiece.length, length - done)
    await write(zeroPiece.subarray(0, bytes), position + done)
    done += bytes
  }
}
