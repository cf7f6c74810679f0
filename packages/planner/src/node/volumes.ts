import { join } from 'node:path'
import { PlannerError } from '../errors.js'
import type { DomainDisk, DomainFacts, VolumeName } from '../facts.js'
import { parsePool } from '../xml/pool.js'
import { readText } from './read-text.js'

/** Finds the files of volumes; each pool is read once. */
export type VolumeFinder = (volume: VolumeName) => Promise<string | undefined>

/**
 * Finds volumes of pools whose definitions are in a folder (`/etc/libvirt/storage`): those of type dir, fs and netfs,
 * whose volumes are files of the same name in the pool's folder. Undefined for all others: transient pools, pools of
 * block devices or of a network, a definition that cannot be read.
 */
export function volumeFinder(storageDir: string): VolumeFinder {
  const folders = new Map<string, Promise<string | undefined>>()
  return async ({ pool, volume }) => {
    if (!isFileName(pool) || !isFileName(volume)) return undefined
    let folder = folders.get(pool)
    if (folder === undefined) {
      folder = poolFolder(join(storageDir, `${pool}.xml`), pool)
      folders.set(pool, folder)
    }
    const path = await folder
    return path === undefined ? undefined : join(path, volume)
  }
}

async function poolFolder(file: string, name: string): Promise<string | undefined> {
  try {
    const pool = parsePool(await readText(file))
    // libvirt leaves out a definition under another name.
    return pool.name === name ? pool.folder : undefined
  } catch (error) {
    if (error instanceof PlannerError) return undefined
    throw error
  }
}

function isFileName(name: string): boolean {
  return /^[^/\0]+$/.test(name) && name !== '.' && name !== '..'
}

/** The domain with the files of its volumes in the place of their names, where they were found. */
export async function locateVolumes(domain: DomainFacts, find: VolumeFinder): Promise<DomainFacts> {
  if (!domain.disks.some(disk => disk.volume !== undefined)) return domain
  const disks: DomainDisk[] = []
  for (const disk of domain.disks) {
    const source = disk.volume && (await find(disk.volume))
    disks.push(source === undefined ? disk : { ...disk, type: 'file', source })
  }
  return { ...domain, disks }
}
