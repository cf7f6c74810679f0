/** Which files a disk consists of, then and now: the only way to tell that two disks are one. */
import type { DomainDisk, LayerFacts } from '../facts.js'
import { normalizePath, resolveFrom } from '../paths.js'

/** The files of a disk now: name → index of the layer that it names. A layer may have several names. */
export type FilesNow = ReadonlyMap<string, number>

/**
 * Every name of every layer: as the domain or the overlay above names it, and as it was opened. Names in a
 * checkpoint are as they were on the host, so the unmapped ones are what usually matches.
 */
export function filesNow(disk: DomainDisk, chain: readonly LayerFacts[]): FilesNow {
  const files = new Map<string, number>()
  const add = (name: string | undefined, layer: number) => {
    if (name !== undefined && name !== '' && !files.has(name)) files.set(name, layer)
  }
  add(disk.source && normalizePath(disk.source), 0)
  let above = disk.source ?? ''
  for (const [layer, { namedAs, filename }] of chain.entries()) {
    const named = resolveFrom(above, namedAs)
    add(named, layer)
    add(normalizePath(filename), layer)
    above = named
  }
  // No image was read (a network disk, say): the XML's own chain is the next best.
  if (chain.length === 0) {
    for (const [index, store] of (disk.backingStore ?? []).entries()) {
      add(store.source && normalizePath(store.source), index + 1)
    }
  }
  return files
}

/** The files of a disk as a checkpoint's `<domain>` has it, top first. */
export function filesThen(disk: DomainDisk): readonly string[] {
  const names = [disk.source, ...(disk.backingStore ?? []).map(store => store.source)]
  return names.filter(name => name !== undefined && name !== '').map(name => normalizePath(name!))
}

/** How surely a disk then is the disk now. Targets are reused after an unplug, so the files decide. */
export type Likeness = 0 | 1 | 2 | 3

/**
 * 3: the top then is still in the chain. 2: the top now was in the chain then (overlays were committed).
 * 1: some deeper file is shared, which says little across targets: many disks share one template. 0: nothing is.
 */
export function likeness(then: DomainDisk, now: FilesNow): Likeness {
  const files = filesThen(then)
  if (files[0] !== undefined && now.has(files[0])) return 3
  if (files.some(file => now.get(file) === 0)) return 2
  return files.some(file => now.has(file)) ? 1 : 0
}
