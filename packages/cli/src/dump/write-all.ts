import { write, writeSync } from 'node:fs'

/** A small write costs less than a trip through the thread pool. */
const SMALL_BYTES = 64 * 1024

/** @param position undefined: where the file is (pipes have no positions) */
export async function writeAll(fd: number, bytes: Buffer, position: number | undefined): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const at = position === undefined ? null : position + done
    const left = bytes.length - done
    done +=
      left <= SMALL_BYTES && position !== undefined
        ? writeSync(fd, bytes, done, left, at)
        : await pooledWrite(fd, bytes, done, left, at)
  }
}

function pooledWrite(fd: number, bytes: Buffer, from: number, length: number, at: number | null) {
  return new Promise<number>((resolve, reject) => {
    write(fd, bytes, from, length, at, (error, written) => {
      if (error) reject(error)
      else resolve(written)
    })
  })
}
