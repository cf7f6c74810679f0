import { lstat, mkdir, open, rename, rm, rmdir, stat } from 'node:fs/promises'
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
  const folders: string[] = []
  try {
    await makeFolder(folder, folders)
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
    await undo([...made, ...(overwrite ? [] : placed)], folders)
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

/**
 * Makes a folder, and those that it is in. Not Node's own `recursive`: in /proc that tries without an end.
 *
 * @param made gets those that were not there, the outermost first
 */
async function makeFolder(folder: string, made: string[]): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' && (await stat(folder)).isDirectory()) return
    // In a folder that is there, and where none can be made, it is ENOENT again.
    if (code !== 'ENOENT' || dirname(folder) === folder) throw error
    await makeFolder(dirname(folder), made)
    await mkdir(folder, { mode: 0o700 })
  }
  made.push(folder)
}

async function undo(files: readonly string[], folders: readonly string[]): Promise<void> {
  for (const path of files) await rm(path, { force: true }).catch(() => {})
  for (const folder of folders.toReversed()) await rmdir(folder).catch(() => {})
}
