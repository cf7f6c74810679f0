/** Which files a disk consists of, then and now: the only way to tell that two disks are one. */
import type { DomainDisk, LayerFacts } from '../facts.js'
import { normalizePath, resolveFrom } from '../paths.js'

/** The files of a disk now. A layer may have several names. */
export interface FilesNow {
  readonly names: readonly string[]
  /** The layer of that name, or, where the name is not known, of the file that is there under it now. */
  layerOf(name: string): number | undefined
  /** All names that lead to a layer: its own, and those of earlier times under which it is now. */
  leading(): readonly string[]
  /** True where the name itself is known, and not only the file. */
  isNamed(name: string): boolean
}

/**
 * Every name of every layer: as the domain or the overlay above names it, and as it was opened. Names in a
 * checkpoint are as they were on the host, so the unmapped ones are what usually matches.
 *
 * @param fileIds what is now under the checkpoints' names
 */
export function filesNow(
  disk: DomainDisk,
  chain: readonly LayerFacts[],
  fileIds: ReadonlyMap<string, string> = NO_IDS,
): FilesNow {
  const files = new Map<string, number>()
  const byId = new Map<string, number>()
  const add = (name: string | undefined, layer: number) => {
    if (name !== undefined && name !== '' && !files.has(name)) files.set(name, layer)
  }
  add(disk.source && normalizePath(disk.source), 0)
  let above = disk.source ?? ''
  for (const [layer, { namedAs, filename, fileId }] of chain.entries()) {
    const named = resolveFrom(above, namedAs)
    add(named, layer)
    add(normalizePath(filename), layer)
    if (fileId !== undefined && !byId.has(fileId)) byId.set(fileId, layer)
    above = named
  }
  // No image was read (a network disk, say): the XML's own chain is the next best.
  if (chain.length === 0) {
    for (const [index, store] of (disk.backingStore ?? []).entries()) {
      add(store.source && normalizePath(store.source), index + 1)
    }
  }
  let leading: readonly string[] | undefined
  return {
    names: [...files.keys()],
    leading: () => {
      leading ??= [...files.keys(), ...[...byId.keys()].flatMap(id => namesById(fileIds).get(id) ?? [])]
      return leading
    },
    layerOf: name => files.get(name) ?? byId.get(fileIds.get(name) ?? ''),
    isNamed: name => files.has(name),
  }
}

const NO_IDS: ReadonlyMap<string, string> = new Map()

/** The names of each file, once for all disks. */
function namesById(fileIds: ReadonlyMap<string, string>): ReadonlyMap<string, readonly string[]> {
  const known = namesOf.get(fileIds)
  if (known !== undefined) return known
  const names = new Map<string, string[]>()
  for (const [name, id] of fileIds) {
    const others = names.get(id)
    if (others === undefined) names.set(id, [name])
    else others.push(name)
  }
  namesOf.set(fileIds, names)
  return names
}

const namesOf = new WeakMap<ReadonlyMap<string, string>, ReadonlyMap<string, readonly string[]>>()

/** The files of a disk as a checkpoint's `<domain>` has it, top first. */
export function filesThen(disk: DomainDisk): readonly string[] {
  let files = filesOf.get(disk)
  if (files === undefined) {
    const names = [disk.source, ...(disk.backingStore ?? []).map(store => store.source)]
    files = names.filter(name => name !== undefined && name !== '').map(name => normalizePath(name!))
    filesOf.set(disk, files)
  }
  return files
}

/** Each disk now is compared with each one of then. */
const filesOf = new WeakMap<DomainDisk, readonly string[]>()

/** How surely a disk then is the disk now. Targets are reused after an unplug, so the files decide. */
export type Likeness = 0 | 1 | 2 | 3

/**
 * 3: the top then is still in the chain. 2: the top now was in the chain then (overlays were committed).
 * 1: some deeper file is shared, which says little across targets: many disks share one template. 0: nothing is.
 */
export function likeness(then: DomainDisk, now: FilesNow): Likeness {
  const files = filesThen(then)
  if (files[0] !== undefined && now.layerOf(files[0]) !== undefined) return 3
  if (files.some(file => now.layerOf(file) === 0)) return 2
  return files.some(file => now.layerOf(file) !== undefined) ? 1 : 0
}
