import type { CheckpointTree } from '../checkpoints/tree.js'
import type { DiskPlan, NextBest } from './types.js'

/**
 * The nearest other checkpoint from which more disks would be incremental: older ones first, since they cover all
 * that was asked for and can be used as they are, then newer ones. Undefined when nothing is better, or when some
 * disk's state cannot be told at all.
 *
 * @param planFrom the disks' plans from another checkpoint, without measurements
 */
export function nextBest(
  tree: CheckpointTree,
  asked: string,
  disks: readonly DiskPlan[],
  planFrom: (checkpoint: string) => readonly DiskPlan[],
): NextBest | undefined {
  if (disks.every(({ mode }) => mode === 'incremental') || disks.some(({ mode }) => mode === 'unknown')) {
    return undefined
  }
  const incrementalNow = incremental(disks).length
  const ancestors = tree.ancestors(asked)
  const older = ancestors.map((checkpoint, index) => ({
    checkpoint,
    relation: 'older' as const,
    distance: index + 1,
  }))
  const newer = tree
    .descendants(asked)
    // In a circle everything is both: taken as older once is enough.
    .filter(checkpoint => !ancestors.includes(checkpoint))
    .map(checkpoint => ({
      checkpoint,
      relation: 'newer' as const,
      distance: distance(tree, asked, checkpoint),
    }))
  for (const candidate of [...older, ...newer]) {
    const better = incremental(planFrom(candidate.checkpoint))
    if (better.length > incrementalNow) return { ...candidate, disks: better }
  }
  return undefined
}

function incremental(disks: readonly DiskPlan[]): string[] {
  return disks.filter(({ mode }) => mode === 'incremental').map(({ target }) => target)
}

function distance(tree: CheckpointTree, older: string, newer: string): number {
  return tree.ancestors(newer).indexOf(older) + 1
}
