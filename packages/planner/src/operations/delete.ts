import { buildCheckpointTree, type CheckpointTree } from '../checkpoints/tree.js'
import { PlanError } from '../errors.js'
import type { BackupFacts, CheckpointDisk, CheckpointFacts, DomainDisk } from '../facts.js'
import { didYouMean, listNames } from '../nearest.js'
import { normalizePath } from '../paths.js'
import type { Dialect } from '../plan/types.js'
import { findBitmap } from '../validity.js'
import { applyToChain, withChain, withoutCheckpoint } from './apply.js'
import { dialectOf } from './dialect.js'
import { discard } from './discard.js'
import { chainProblems, type DiskChain, placesOf, problem } from './disks.js'
import { chainedTraps } from './traps.js'
import type { BitmapOperation, OperationProblem, OperationsPlan, Place } from './types.js'

export interface DeleteRequest {
  readonly checkpoint: string
  /** The caller's word. Undefined: found from the bitmaps' flags. */
  readonly dialect?: Dialect | undefined
}

/**
 * Plans the deletion of a checkpoint's bitmaps, in every layer of each of its disks. As in libvirt, disks that have left
 * the domain are passed over, and one disk without the bitmap blocks the whole.
 *
 * The metadata is libvirt's: it stays until `virsh checkpoint-delete --metadata`, which gives children their new parent.
 *
 * @throws {PlanError} `checkpoint-missing`
 */
export function planDelete(facts: BackupFacts, request: DeleteRequest): OperationsPlan {
  const { dialect, dialectEvidence } = dialectOf(facts, request.dialect)
  const tree = buildCheckpointTree(facts.checkpoints)
  const checkpoint = findCheckpoint(tree, facts.domain.name, request.checkpoint)
  const operations: BitmapOperation[] = []
  const reopen: Place[] = []
  const problems: OperationProblem[] = []
  const disks: string[] = []
  const layers: Place[] = []
  for (const entry of listedDisks(checkpoint, facts.domain.disks)) {
    const disk = diskOf(entry, facts.domain.disks)
    if (disk === undefined) {
      const message = `disk ${entry.name} of checkpoint '${checkpoint.name}' is not in the domain any more: its bitmap stays where it is`
      problems.push(problem('disk-unplugged', 'note', entry.name, message, { checkpoint: checkpoint.name }))
      continue
    }
    const chain = facts.chains.get(disk.target) ?? []
    disks.push(disk.target)
    layers.push(...placesOf({ disk, chain }))
    const unfit = chainProblems({ disk, chain })
    problems.push(...unfit)
    if (unfit.some(({ severity, code }) => severity === 'blocks' || code !== 'image-in-use')) continue
    const bitmap = entry.bitmap ?? checkpoint.name
    const parent = dialect === 'chained' ? parentBitmap(tree, checkpoint, entry, disk) : undefined
    if (typeof parent === 'object') {
      problems.push(parent)
      continue
    }
    const found = discard(disk.target, chain, bitmap, parent)
    problems.push(...deleteProblems({ disk, chain }, bitmap, parent, found.operations.length === 0))
    if (parent !== undefined && problems.every(({ severity }) => severity !== 'blocks')) {
      const left = withChain(facts, disk.target, applyToChain(chain, found.operations))
      const checkpoints = withoutCheckpoint(facts.checkpoints, checkpoint.name)
      problems.push(...chainedTraps(facts, [{ ...left, checkpoints }], disk.target))
    }
    operations.push(...found.operations)
    reopen.push(...found.reopen)
  }
  return {
    ...{
      domain: facts.domain.name,
      action: 'delete',
      checkpoint: checkpoint.name,
      dialect,
      dialectEvidence,
      disks,
      layers,
    },
    ...{ operations, reopen, data: [], problems },
  }
}

/** @throws {PlanError} `checkpoint-missing` */
function findCheckpoint(tree: CheckpointTree, domain: string, name: string): CheckpointFacts {
  const checkpoint = tree.get(name)
  if (checkpoint) return checkpoint
  const known = tree.names
  throw new PlanError(
    'checkpoint-missing',
    `domain '${domain}' has no checkpoint '${name}'${didYouMean(name, known)} (known: ${listNames(known)})`,
    { domain, checkpoint: name, known },
  )
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

/** The bitmap of the nearest older checkpoint that has this disk; a problem where the tree does not tell. */
function parentBitmap(
  tree: CheckpointTree,
  checkpoint: CheckpointFacts,
  entry: CheckpointDisk,
  disk: DomainDisk,
): string | undefined | OperationProblem {
  const { name } = checkpoint
  if (tree.problems.some(each => each.code === 'checkpoint-cycle' && each.checkpoints.includes(name))) {
    const message = `the parents of checkpoint '${name}' form a circle: whose bitmap of ${disk.target} is to get its changes cannot be told`
    return problem('checkpoint-cycle', 'blocks', disk.target, message, { checkpoint: name })
  }
  const ancestors = tree.ancestors(name)
  for (const ancestor of ancestors) {
    const facts = tree.get(ancestor)!
    const same = listedDisks(facts, [disk]).find(each => diskOf(each, [disk]) || each.name === entry.name)
    if (same !== undefined) return same.bitmap ?? ancestor
  }
  const oldest = tree.get(ancestors.at(-1) ?? name)!
  if (oldest.parent === undefined) return undefined
  const message =
    `checkpoint '${oldest.parent}', the parent of '${oldest.name}', is not there: which bitmap of ${disk.target} is to get ` +
    `the changes of '${name}' cannot be told`
  return problem('checkpoint-parent-missing', 'blocks', disk.target, message, { checkpoint: name })
}

function deleteProblems(
  { disk, chain }: DiskChain,
  bitmap: string,
  parent: string | undefined,
  nothing: boolean,
): OperationProblem[] {
  const { target } = disk
  const stale = chain.findIndex(facts => facts.bitmapsStale && findBitmap(facts, bitmap) !== undefined)
  if (nothing) {
    const hint =
      stale < 0
        ? ''
        : `; layer ${stale} has it in a stale directory, which QEMU does not load (qemu-img check -r leaks drops it)`
    const message =
      `no layer of ${target} has the bitmap '${bitmap}'${hint}. libvirt deletes nothing at all then: remove the metadata ` +
      'alone (virsh checkpoint-delete --metadata), and the bitmaps of the other disks with tidemark bitmap --remove'
    return [problem('bitmap-not-found', 'blocks', target, message, { bitmap })]
  }
  if (parent === undefined) return []
  const problems: OperationProblem[] = []
  // Where it began its parent's recorded until then: where that one is lacking, it must not come back as if it were whole.
  const began = chain.findLastIndex(facts => findBitmap(facts, bitmap) !== undefined)
  if (findBitmap(chain[began]!, parent) === undefined) {
    const { filename } = chain[began]!
    const message =
      `layer ${began} of ${target}, ${filename}, lacks '${parent}', the bitmap of the checkpoint before, which is to get what ` +
      `'${bitmap}' recorded: changes of that time are lost, and nothing would show it. Delete the older checkpoints first, the oldest at first`
    problems.push(
      problem('bitmap-not-found', 'blocks', target, message, { layer: began, filename, bitmap: parent }),
    )
  }
  for (const [layer, facts] of chain.entries()) {
    for (const name of [bitmap, parent]) {
      const found = findBitmap(facts, name)
      if (found === undefined || findBitmap(facts, bitmap) === undefined) continue
      const evidence = { layer, filename: facts.filename, bitmap: name }
      const advice = `What '${bitmap}' recorded would be lost while '${parent}' looked sound. Delete the older checkpoints first, the oldest at first: nothing is merged then`
      if (facts.bitmapsStale) {
        const message = `the bitmaps of layer ${layer} of ${target}, ${facts.filename}, are stale. ${advice}`
        problems.push(problem('bitmaps-stale', 'blocks', target, message, evidence))
      } else if (found.inconsistent && !facts.locked) {
        const message = `bitmap '${name}' in layer ${layer} of ${target}, ${facts.filename}, is inconsistent (in-use), and cannot be merged. ${advice}`
        problems.push(problem('bitmap-inconsistent', 'blocks', target, message, evidence))
      }
    }
  }
  return problems
}
