/**
 * Reasons that a broken tree of checkpoints gives. In the independent dialect they are notes: one bitmap is enough. In
 * the chained one the order of all later checkpoints is needed, so those that leave it open block.
 */
import type { TreeProblem } from '../checkpoints/problems.js'
import type { CheckpointTree } from '../checkpoints/tree.js'
import { listNames } from '../nearest.js'
import { type Reason, reason } from './reasons.js'

/** Notes on the problems that touch the asked checkpoint, those before it and those after it. */
export function treeReasons(tree: CheckpointTree, asked: string): readonly Reason[] {
  if (tree.problems.length === 0) return []
  const family = new Set([asked, ...tree.ancestors(asked), ...tree.descendants(asked)])
  return tree.problems
    .filter(problem => touched(problem).some(name => family.has(name)))
    .map(problem => toReason(problem, 'note'))
}

/** Which checkpoints came after the asked one is open, and it is needed. */
export function openReasons(problems: readonly TreeProblem[]): readonly Reason[] {
  return problems.map(problem => toReason(problem, 'blocks'))
}

function touched(problem: TreeProblem): readonly string[] {
  return 'checkpoints' in problem ? problem.checkpoints : [problem.checkpoint]
}

const OPEN =
  'In the chained dialect the bitmaps of all later checkpoints are needed, and which these are is open: copy the disk ' +
  'whole.'

function toReason(problem: TreeProblem, severity: 'blocks' | 'note'): Reason {
  const blocks = severity === 'blocks'
  switch (problem.code) {
    case 'checkpoint-parent-missing': {
      const { checkpoint, parent } = problem
      const message =
        `Checkpoint '${checkpoint}' names '${parent}' as its parent, but that one's metadata is gone. libvirt warns ` +
        `and has no current checkpoint. ${blocks ? OPEN : 'This plan does not need it.'}`
      return reason(problem.code, severity, message, { checkpoint, parent })
    }
    case 'checkpoint-cycle': {
      const { checkpoints } = problem
      const message =
        `Checkpoints ${listNames(checkpoints)} are each other's parents in a circle: their order is not known. ` +
        `libvirt warns and has no current checkpoint. ${blocks ? OPEN : 'This plan does not need it.'}`
      return reason(problem.code, severity, message, { checkpoints })
    }
    case 'checkpoint-branched': {
      const { parent, checkpoints } = problem
      const from =
        parent === undefined
          ? 'Several checkpoints have no parent'
          : `Checkpoint '${parent}' has several children`
      const message =
        `${from}: ${listNames(checkpoints)}. libvirt then has no current checkpoint. ` +
        (blocks ? OPEN : 'The plan is the same.')
      return reason(problem.code, severity, message, { parent: parent ?? null, checkpoints })
    }
    case 'checkpoint-duplicate': {
      const { checkpoint, copies } = problem
      const message = `There are ${copies} checkpoints named '${checkpoint}': the first was used. Remove the others' files.${blocks ? ` ${OPEN}` : ''}`
      return reason(problem.code, severity, message, { checkpoint, copies })
    }
  }
}
