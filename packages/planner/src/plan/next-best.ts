import type { CheckpointTree } from '../checkpoints/tree.js'
import type { DiskPlan, NextBest } from './types.js'

/**
 * Another checkpoint to start from: the nearest from which every disk would be incremental; else the nearest from which
 * more would be than from the asked one. Of each kind the older ones come first, since they cover all that was asked
 * for and can be used as they are. Undefined when nothing is better.
 *
 * @param planFrom the disks' plans from another checkpoint
 */
export function nextBest(
  tree: CheckpointTree,
  asked: string,
  disks: readonly DiskPlan[],
  planFrom: (checkpoint: string) => readonly DiskPlan[],
): NextBest | undefined {
  const incrementalNow = incremental(disks).length
  if (incrementalNow === disks.length) return undefined
  let better: NextBest | undefined
  for (const candidate of candidates(tree, asked)) {
    const plans = planFrom(candidate.checkpoint)
    const done = incremental(plans)
    const everyDisk = done.length === disks.length
    if (!everyDisk && (better !== undefined || done.length <= incrementalNow)) continue
    const found = {
      ...candidate,
      disks: done.map(({ target }) => target),
      everyDisk,
      dirtyBytes: total(done),
    }
    if (everyDisk) return found
    better = found
  }
  return better
}

type Candidate = Pick<NextBest, 'checkpoint' | 'relation' | 'distance'>

/** Older ones, then newer ones, each from the nearest on. In a circle everything is both: as older is enough. */
function candidates(tree: CheckpointTree, asked: string): readonly Candidate[] {
  const older = tree.ancestors(asked)
  const distances = new Map([[asked, 0]])
  const newer: Candidate[] = []
  const known = new Set(older)
  for (const checkpoint of tree.descendants(asked)) {
    // Breadth first: its parent was before it.
    const distance = (distances.get(tree.get(checkpoint)!.parent!) ?? 0) + 1
    distances.set(checkpoint, distance)
    if (!known.has(checkpoint)) newer.push({ checkpoint, relation: 'newer', distance })
  }
  return [
    ...older.map((checkpoint, index) => ({ checkpoint, relation: 'older' as const, distance: index + 1 })),
    ...newer,
  ]
}

function incremental(disks: readonly DiskPlan[]): readonly DiskPlan[] {
  return disks.filter(({ mode }) => mode === 'incremental')
}

function total(disks: readonly DiskPlan[]): number | undefined {
  const sizes = disks.map(({ dirtyBytes }) => dirtyBytes)
  return sizes.every(size => size !== undefined) ? sizes.reduce((sum, size) => sum + size, 0) : undefined
}
