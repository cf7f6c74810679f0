import { close, constants, fstat, fsync, open, realpath, stat, unlink } from 'node:fs'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { Qcow2Error } from '../errors.js'
import type { EditJournal } from '../journal/journal.js'
import type { WritableStorage } from '../storage/writable.js'
import { type OpenWritableFileOptions, openWritableFile } from './writable-file.js'

/**
 * Makes the journal of an edit of several images, an empty file that only its owner may read, and holds it.
 *
 * @throws {Qcow2Error} `journal-exists`; `write-failed`, `no-space`, `lock-unavailable`
 */
export async function createJournalFile(
  path: string,
  options: OpenWritableFileOptions = {},
): Promise<EditJournal> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL
  let fd: number
  try {
    fd = await promisify(open)(path, flags, 0o600)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'EEXIST') throw journalExists(path)
    throw failed(path, 'be made', code === 'ENOENT' ? 'there is no such folder' : message, cause)
  }
  // Open until it is known that what is opened by its name is this very file.
  try {
    const { dev, ino } = await promisify(fstat)(fd)
    const storage = await openWritableFile(path, options)
    const journal = journalOf(storage)
    try {
      // Who recovers an edit that was only begun removes its journal: before it was held it looked like one.
      const mine = storage.identity === `${dev}:${ino}` && (await isAt(path, storage.identity))
      if (!mine) throw failed(path, 'be made', 'it was taken away, or something took its place')
      await syncFolder(path)
      return journal
    } catch (error) {
      await storage.close()
      throw error
    }
  } catch (error) {
    const { dev, ino } = await promisify(fstat)(fd)
    if (await isAt(path, `${dev}:${ino}`)) await promisify(unlink)(path).catch(() => {})
    throw error
  } finally {
    await promisify(close)(fd)
  }
}

/**
 * Opens the journal of an edit that was cut off, and holds it: one that is still going on has it for itself.
 *
 * @throws {Qcow2Error} `journal-missing`, `journal-invalid`, `image-locked`; as `openWritableFile`
 */
export async function openJournalFile(
  path: string,
  options: OpenWritableFileOptions = {},
): Promise<EditJournal> {
  let storage: WritableStorage
  try {
    storage = await openWritableFile(path, options)
  } catch (error) {
    if (!(error instanceof Qcow2Error) || error.code !== 'image-missing') throw error
    throw new Qcow2Error('journal-missing', `${path}: there is no such journal`, { journal: path })
  }
  if (storage.resizable) return journalOf(storage)
  await storage.close()
  throw new Qcow2Error('journal-invalid', `${path} is not a journal: it is a device`, { journal: path })
}

export function journalExists(path: string): Qcow2Error {
  return new Qcow2Error(
    'journal-exists',
    `${path} is there already: where it is the journal of an edit of several images that goes on, or was cut off, ` +
      `tidemark recover ${path} ends that`,
    { journal: path },
  )
}

function journalOf(storage: WritableStorage): EditJournal {
  const { name } = storage
  return {
    storage,
    async remove() {
      let file = name
      try {
        if (await isAt(name, storage.identity)) {
          // It may have been named by a link, and it is not the link that says what is under way.
          file = await promisify(realpath)(name)
          await promisify(unlink)(file)
        }
      } catch (cause) {
        throw failed(name, 'be removed', (cause as Error).message, cause)
      }
      await syncFolder(file)
    },
  }
}

/** Whether the path leads to this very file. */
async function isAt(path: string, identity: string): Promise<boolean> {
  try {
    const { dev, ino } = await promisify(stat)(path)
    return identity === `${dev}:${ino}`
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

/** What was made or removed in it lasts. */
async function syncFolder(path: string): Promise<void> {
  try {
    const fd = await promisify(open)(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      await promisify(fsync)(fd)
    } finally {
      await promisify(close)(fd)
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    // Some file systems know no fsync of a folder.
    if (code !== 'EINVAL') throw failed(path, 'be made to last', message, cause)
  }
}

function failed(path: string, what: string, why: string, cause?: unknown): Qcow2Error {
  return new Qcow2Error(
    'write-failed',
    `the journal ${path} cannot ${what}: ${why}`,
    { journal: path },
    { cause },
  )
}
