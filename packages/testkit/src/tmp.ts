import { chmodSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A folder that lives as long as the test that asked for it. */
export interface TempDir {
  readonly path: string
  /** The path of a name in it; nothing is created. */
  file(name: string): string
  /** Removes the folder and all in it. Safe to call twice. */
  remove(): void
}

const live = new Set<string>()
let watching = false

/**
 * Folders must be short: a unix socket's path has 107 bytes, and libvirt appends some 50 to its folder.
 */
function base(): string {
  const system = realpathSync(tmpdir())
  return system.length <= 24 ? system : '/tmp'
}

function watchExit(): void {
  if (watching) return
  watching = true
  process.on('exit', () => {
    for (const path of live) rmSync(path, { recursive: true, force: true })
  })
}

/**
 * Makes an empty folder with a short path. It is removed by `remove()`, and else when the process ends.
 *
 * @param mode permission bits; default 0o700.
 */
export function tempDir(mode = 0o700): TempDir {
  const path = mkdtempSync(join(base(), 'tm-'))
  chmodSync(path, mode)
  live.add(path)
  watchExit()
  return {
    path,
    file: name => join(path, name),
    remove: () => {
      rmSync(path, { recursive: true, force: true, maxRetries: 3 })
      live.delete(path)
    },
  }
}

/** Calls `work` with a fresh folder and removes it afterwards, whatever `work` did. */
export async function withTempDir<T>(work: (dir: TempDir) => T | Promise<T>): Promise<T> {
  const dir = tempDir()
  try {
    return await work(dir)
  } finally {
    dir.remove()
  }
}
