import type { ImageStorage, StoredRun } from '../storage/storage.js'
import { ENXIO, native, SEEK_DATA, SEEK_END, SEEK_HOLE } from './native.js'

/**
 * Whether a regular file has data or a hole at `offset`, and up to where. All is data where nobody can tell: without
 * koffi, and on file systems that do not know. A file that takes as much space as it is long is looked at too: what
 * was set aside for it and never written counts as a hole.
 *
 * Seeking moves the descriptor's position, which no read uses. It is done on the calling thread: 1 µs from a local
 * file system, and errno belongs to a thread.
 */
export async function storedRun(
  fd: number,
  { size }: Pick<ImageStorage, 'size'>,
  offset: number,
): Promise<StoredRun> {
  const unknown = { data: true, end: size }
  const calls = await native()
  if (calls === undefined) return unknown
  const data = calls.lseek(fd, offset, SEEK_DATA)
  if (data === -ENXIO) {
    // No data from here on: a hole to the end, unless the file was cut. Then reading must find that out.
    return calls.lseek(fd, 0, SEEK_END) >= size ? { data: false, end: size } : unknown
  }
  if (data < 0) return unknown
  if (data > offset) return { data: false, end: Math.min(data, size) }
  const hole = calls.lseek(fd, offset, SEEK_HOLE)
  // Another writer may have made a hole of it meanwhile.
  return hole > offset ? { data: true, end: Math.min(hole, size) } : unknown
}
