import { closeSync, open, read } from 'node:fs'
import { promisify } from 'node:util'
import { CommandError } from './errors.js'

/**
 * All bytes of a file, a pipe or (`-`) standard input.
 *
 * @param failed the error for why it cannot be read, or is empty
 * @throws {CommandError}
 */
export async function readInput(
  file: string,
  mostBytes: number,
  failed: (why: string) => CommandError,
): Promise<Buffer> {
  let fd: number
  try {
    // In the thread pool: a pipe waits for its writer.
    fd = file === '-' ? 0 : await promisify(open)(file, 'r')
  } catch (error) {
    throw failed((error as Error).message)
  }
  try {
    const pieces: Buffer[] = []
    let length = 0
    while (length <= mostBytes) {
      const piece = Buffer.alloc(Math.min(mostBytes + 1 - length, 1024 * 1024))
      // A pipe gives what there is, and nothing at its end.
      const got = await readSome(fd, piece)
      if (got === 0) break
      pieces.push(piece.subarray(0, got))
      length += got
    }
    if (length > mostBytes) throw failed(`it is larger than ${mostBytes} bytes`)
    if (length === 0) throw failed('it is empty')
    return Buffer.concat(pieces)
  } catch (error) {
    throw error instanceof CommandError ? error : failed((error as Error).message)
  } finally {
    if (fd !== 0) closeSync(fd)
  }
}

async function readSome(fd: number, target: Buffer): Promise<number> {
  for (;;) {
    try {
      return (await promisify(read)(fd, target, 0, target.length, null)).bytesRead
    } catch (error) {
      // Another process has made the pipe one that does not wait.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
}
