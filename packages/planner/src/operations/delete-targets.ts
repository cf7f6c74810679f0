/** Which disks a deletion is about: those that the checkpoint has a bitmap of, as they are in the domain now. */
import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointDisk, CheckpointFacts, DomainDisk } from '../facts.js'
import { normalizePath } from '../paths.js'
import { type DiskHistory, diskHistories } from '../plan/disk-history.js'
import type { Dialect } from '../plan/types.js'
import { findBitmap } from '../validity.js'
import { problem } from './disks.js'
import type { OperationProblem } from './types.js'

export interface DeleteTarget {
  readonly disk: DomainDisk
  readonly bitmap: string
  /** Chained: the bitmap that gets the marks; undefined: no older checkpoint has the disk. A problem: it cannot be told. */
  readonly parent: string | undefined | OperationProblem
}

export interface DeleteTargets {
  readonly targets: readonly DeleteTarget[]
  /** A note for each disk that has left the domain. */
  readonly unplugged: readonly OperationProblem[]
}

/**
 * Independent: by the target's name alone, as libvirt does it. Chained: as a backup finds them, by their files, for what one
 * bitmap of a disk loses a backup since another one would miss; by the name where the files are all new, as after a copy.
 */
export function deleteTargets(
  facts: BackupFacts,
  tree: CheckpointTree,
  checkpoint: CheckpointFacts,
  dialect: Dialect,
): DeleteTargets {
  const entries = listedDisks(checkpoint, facts.domain.disks)
  const found = new Map<string, DeleteTarget>()
  const there = new Set<CheckpointDisk>()
  const historyOf = diskHistories(facts, tree)
  const add = (entry: CheckpointDisk, disk: DomainDisk) => {
    there.add(entry)
    if (found.has(disk.target)) return
    const parent = dialect === 'chained' ? parentBitmap(tree, checkpoint, entry, historyOf(disk)) : undefined
    const bitmap = dialect === 'chained' ? checkpoint.name : (entry.bitmap ?? checkpoint.name)
    found.set(disk.target, { disk, bitmap, parent })
  }
  if (dialect === 'chained') {
    for (const disk of facts.domain.disks) {
      const history = historyOf(disk)
      const then = targetThen(history, checkpoint.name)
      const entry =
        entries.find(({ name }) => name === then) ?? entries.find(each => diskOf(each, [disk]) !== undefined)
      if (entry !== undefined && tookPart(history, checkpoint.name)) add(entry, disk)
    }
  }
  for (const entry of entries) {
    const disk = there.has(entry) ? undefined : diskOf(entry, facts.domain.disks)
    if (disk !== undefined) add(entry, disk)
  }
  const unplugged = entries
    .filter(entry => !there.has(entry))
    .map(({ name }) => {
      const message = `disk ${name} of checkpoint '${checkpoint.name}' is not in the domain any more: its bitmap stays where it is`
      return problem('disk-unplugged', 'note', name, message, { checkpoint: checkpoint.name })
    })
  return { targets: [...found.values()], unplugged }
}

/** The disks that the checkpoint has a bitmap of; without a list, those that were writable then. */
function listedDisks(
  { disks, domain }: CheckpointFacts,
  now: readonly DomainDisk[],
): readonly CheckpointDisk[] {
  if (disks !== undefined) return disks.filter(({ checkpoint }) => checkpoint === 'bitmap')
  return (domain?.disks ?? now)
    .filter(({ source, readonly }) => source !== undefined && !readonly)
    .map(({ target }) => ({ name: target, checkpoint: 'bitmap', bitmap: undefined }))
}

/** libvirt goes by the target's name alone; metadata made by hand may have a path. */
function diskOf({ name }: CheckpointDisk, disks: readonly DomainDisk[]): DomainDisk | undefined {
  const byTarget = disks.find(({ target }) => target === name)
  if (byTarget !== undefined || !name.startsWith('/')) return byTarget
  const path = normalizePath(name)
  return disks.find(({ source }) => source !== undefined && normalizePath(source) === path)
}

/** Whether a backup would take the checkpoint to have recorded this disk. */
function tookPart(history: DiskHistory, checkpoint: string): boolean {
  return history.recorded(checkpoint).reasons.every(({ severity }) => severity !== 'blocks')
}

/** The target that the disk had at the checkpoint. */
function targetThen({ disk, recorded }: DiskHistory, checkpoint: string): string {
  const changed = recorded(checkpoint).reasons.find(({ code }) => code === 'disk-target-changed')
  const { targetThen = disk.target } = (changed?.evidence ?? {}) as { readonly targetThen?: string }
  return targetThen
}

/** The bitmap of the nearest older checkpoint that has this disk; a problem where the metadata do not tell. */
function parentBitmap(
  tree: CheckpointTree,
  { name }: CheckpointFacts,
  { bitmap }: CheckpointDisk,
  history: DiskHistory,
): DeleteTarget['parent'] {
  const { target } = history.disk
  const blocked = (code: OperationProblem['code'], message: string) =>
    problem(code, 'blocks', target, message, { checkpoint: name })
  if (bitmap !== undefined && bitmap !== name) {
    const message = `checkpoint '${name}' records the bitmap '${bitmap}' for ${target}, and not one of its own name, which a backup would use: which of them has its changes cannot be told`
    return blocked('bitmap-name-differs', message)
  }
  if (tree.problems.some(each => each.code === 'checkpoint-cycle' && each.checkpoints.includes(name))) {
    const message = `the parents of checkpoint '${name}' form a circle: whose bitmap of ${target} is to get its changes cannot be told`
    return blocked('checkpoint-cycle', message)
  }
  const ancestors = tree.ancestors(name)
  const { disk, chain } = history
  const holds = (bitmap: string) => chain.some(layer => findBitmap(layer, bitmap) !== undefined)
  const isNamed = (older: string) =>
    listedDisks(tree.get(older)!, [disk]).some(each => diskOf(each, [disk]) !== undefined)
  const nearest = ancestors.find(older => tookPart(history, older) || (isNamed(older) && holds(older)))
  if (nearest !== undefined) return nearest
  const oldest = tree.get(ancestors.at(-1) ?? name)!
  if (oldest.parent === undefined) return undefined
  const message =
    `checkpoint '${oldest.parent}', the parent of '${oldest.name}', is not there: which bitmap of ${target} is to get ` +
    `the changes of '${name}' cannot be told`
  return blocked('checkpoint-parent-missing', message)
}
