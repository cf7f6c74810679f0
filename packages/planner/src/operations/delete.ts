import { buildCheckpointTree, type CheckpointTree } from '../checkpoints/tree.js'
import { PlanError } from '../errors.js'
import type { BackupFacts, CheckpointFacts } from '../facts.js'
import { didYouMean, listNames } from '../nearest.js'
import type { Dialect } from '../plan/types.js'
import { findBitmap } from '../validity.js'
import { applyToFacts, withoutCheckpoint } from './apply.js'
import { deleteTargets } from './delete-targets.js'
import { dialectOf, dialectProblems } from './dialect.js'
import { discard } from './discard.js'
import { chainProblems, type DiskChain, placesOf, problem } from './disks.js'
import { eachFileOnce, filesOnce } from './shared-layers.js'
import { type CheckpointMeasurements, chainedTraps, dialectTraps, evidenceTraps } from './traps.js'
import type { BitmapOperation, OperationProblem, OperationsPlan, Place } from './types.js'

export interface DeleteRequest {
  readonly checkpoint: string
  /** The caller's word. Undefined: found from the bitmaps' flags. */
  readonly dialect?: Dialect | undefined
  /** What the bodies say, by checkpoint: the newer bitmap of two may be the one that shows that the older has lost writes. */
  readonly measurements?: CheckpointMeasurements | undefined
}

/**
 * Plans the deletion of a checkpoint's bitmaps, in every layer of each of its disks. As in libvirt, disks that have left
 * the domain are passed over, and one disk without the bitmap blocks the whole. A layer of several disks is touched once.
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
  const problems: OperationProblem[] = [...dialectProblems(facts, { dialect, dialectEvidence })]
  const disks: string[] = []
  const layers: Place[] = []
  const found = deleteTargets(facts, tree, checkpoint, dialect)
  problems.push(...found.unplugged)
  for (const { disk, bitmap, parent } of found.targets) {
    const chain = facts.chains.get(disk.target) ?? []
    disks.push(disk.target)
    layers.push(...placesOf({ disk, chain }))
    const unfit = chainProblems({ disk, chain })
    problems.push(...unfit)
    if (unfit.some(({ severity, code }) => severity === 'blocks' || code !== 'image-in-use')) continue
    if (typeof parent === 'object') {
      problems.push(parent)
      continue
    }
    const discarded = discard(disk.target, chain, bitmap, parent)
    problems.push(...deleteProblems({ disk, chain }, bitmap, parent, discarded.operations.length === 0))
    operations.push(...discarded.operations)
    reopen.push(...discarded.reopen)
  }
  const once = eachFileOnce(facts, operations)
  if (problems.every(({ severity }) => severity !== 'blocks')) {
    // The metadata go last: until then the checkpoint is known, and its bitmaps are not there.
    const between = applyToFacts(facts, once)
    const states = [
      between,
      { ...between, checkpoints: withoutCheckpoint(facts.checkpoints, checkpoint.name) },
    ]
    const chained = dialect === 'chained'
    if (chained) {
      // Also of disks that it left out: they may have a layer in common with the others.
      for (const { target } of facts.domain.disks) problems.push(...chainedTraps(facts, states, target))
    } else if (dialectEvidence.source === 'found') {
      problems.push(...dialectTraps(facts, states))
    }
    problems.push(...evidenceTraps(request.measurements, checkpoint.name, chained))
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
    ...{ operations: once, reopen: filesOnce(facts, reopen), data: [], problems },
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
