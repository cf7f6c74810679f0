import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { MAX_XML_LENGTH } from '../xml/guard.js'
import { LoadError } from './errors.js'

/**
 * Reads a regular file of UTF-8 text, at most 16 MiB. Anything else under that name (a folder, a pipe that would
 * never end) is refused before it is read.
 *
 * @throws {LoadError} `file-missing`, `file-unreadable`, `file-too-large`, `file-not-text`
 */
export async function readText(path: string): Promise<string> {
  try {
    // On this thread: a domain's files are small and there are dozens, and each trip through the thread pool takes
    // longer than the read. Non-blocking: opening a pipe must not wait for a writer.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const stat = fstatSync(fd)
      if (!stat.isFile()) throw new LoadError('file-unreadable', `${path} is not a regular file`, { path })
      if (stat.size > MAX_XML_LENGTH) throw tooLarge(path, stat.size)
      const bytes = new Uint8Array(stat.size)
      let length = 0
      while (length < bytes.length) {
        const bytesRead = readSync(fd, bytes, length, bytes.length - length, length)
        if (bytesRead === 0) break
        length += bytesRead
      }
      return decode(path, bytes.subarray(0, length))
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw asLoadError(path, error)
  }
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new LoadError('file-not-text', `${path} is not UTF-8 text`, { path })
  }
}

function tooLarge(path: string, size: number): LoadError {
  const limit = MAX_XML_LENGTH
  return new LoadError('file-too-large', `${path} has ${size} bytes; at most ${limit} are read`, {
    path,
    size,
    limit,
  })
}

/** A system error as one of ours; ours pass through. */
export function asLoadError(path: string, error: unknown): LoadError {
  if (error instanceof LoadError) return error
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new LoadError('file-missing', `${path} does not exist`, { path }, { cause: error })
  }
  return new LoadError('file-unreadable', `${path} cannot be read: ${message}`, { path }, { cause: error })
}
