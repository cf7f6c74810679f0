import { lstat, mkdir, open, rename, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { CommandError } from '../errors.js'

/** A file to be made. */
export interface NewFile {
  readonly name: string
  readonly text: string
}

/**
 * Writes files into a folder, all or none: each under another name first, and when all are there they take their names.
 * Nobody else may read them (0600), since a domain's XML can hold passwords. The folder is made if need be.
 *
 * @param overwrite replace files of those names
 * @returns their paths
 * @throws {CommandError} `file-exists`; `write-failed`
 */
export async function writeFiles(
  folder: string,
  files: readonly NewFile[],
  overwrite: boolean,
): Promise<readonly string[]> {
  const made: string[] = []
  const placed: string[] = []
  let first: string | undefined
  try {
    first = await mkdir(folder, { recursive: true, mode: 0o700 })
    const paths = files.map(({ name }) => join(folder, name))
    for (const path of paths) await requireFree(path, overwrite)
    for (const [i, { text }] of files.entries()) {
      const path = join(folder, `.tidemark-${process.pid}-${i}.tmp`)
      // wx: never through a link that somebody put there.
      const file = await open(path, 'wx', 0o600)
      made.push(path)
      try {
        await file.writeFile(text)
        await file.sync()
      } finally {
        await file.close()
      }
    }
    for (const [i, path] of paths.entries()) {
      await rename(made[i]!, path)
      placed.push(path)
    }
    return paths
  } catch (error) {
    await undo(folder, [...made, ...(overwrite ? [] : placed)], first)
    if (error instanceof CommandError) throw error
    throw new CommandError('write-failed', `cannot write to ${folder}: ${(error as Error).message}`, {
      folder,
    })
  }
}

/** A folder or a device of that name is never overwritten. */
async function requireFree(path: string, overwrite: boolean): Promise<void> {
  try {
    const there = await lstat(path)
    if (overwrite && (there.isFile() || there.isSymbolicLink())) return
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  const hint = overwrite ? ' and is no file' : '; --force overwrites it'
  throw new CommandError('file-exists', `${path} exists${hint}`, { file: path })
}

/** @param first of the folders that were made, the one that is not in another of them */
async function undo(folder: string, files: readonly string[], first: string | undefined): Promise<void> {
  for (const path of files) await rm(path, { force: true }).catch(() => {})
  if (first === undefined) return
  for (let each = folder; each.startsWith(first); each = dirname(each)) await rmdir(each).catch(() => {})
}
