import { statSync } from 'node:fs'
import type { CheckpointFacts } from '../facts.js'
import { isAbsolutePath, normalizePath } from '../paths.js'
import { type MapRule, mapSource } from './map-source.js'

/**
 * What tells a file or block device from all others of this host, by whatever name: symbolic links, bind mounts and
 * hard links lead to the same one.
 *
 * @returns undefined where there is none, or where it cannot be looked at (names alone count then)
 */
export function fileId(path: string): string | undefined {
  try {
    const stat = statSync(path, { throwIfNoEntry: false, bigint: true })
    if (stat?.isBlockDevice()) return `device ${stat.rdev}`
    return stat?.isFile() ? `file ${stat.dev}:${stat.ino}` : undefined
  } catch {
    return undefined
  }
}

/** The paths of all images that checkpoints' domains name; each once. */
export function namesThen(checkpoints: readonly CheckpointFacts[]): readonly string[] {
  const names = new Set<string>()
  // Most have one and the same object.
  for (const domain of new Set(checkpoints.map(checkpoint => checkpoint.domain))) {
    for (const { source, backingStore } of domain?.disks ?? []) {
      for (const name of [source, ...(backingStore ?? []).map(store => store.source)]) {
        if (name !== undefined && isAbsolutePath(name)) names.add(normalizePath(name))
      }
    }
  }
  return [...names]
}

/** Path → what is there now, after mapping; without those where nothing is, or that cannot be looked at. */
export function identifyFiles(
  names: readonly string[],
  rules: readonly MapRule[],
): ReadonlyMap<string, string> {
  const ids = new Map<string, string>()
  for (const name of names) {
    const id = fileId(mapSource(rules, name))
    if (id !== undefined) ids.set(name, id)
  }
  return ids
}
