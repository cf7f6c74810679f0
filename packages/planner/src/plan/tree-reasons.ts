/** Notes on a broken tree of checkpoints. In the independent dialect they decide nothing: one bitmap is enough. */
import type { TreeProblem } from '../checkpoints/problems.js'
import type { CheckpointTree } from '../checkpoints/tree.js'
import { listNames } from '../nearest.js'
import { type Reason, reason } from './reasons.js'

/** The problems that touch the asked checkpoint, those before it and those after it. */
export function treeReasons(tree: CheckpointTree, asked: string): readonly Reason[] {
  const family = new Set([asked, ...tree.ancestors(asked), ...tree.descendants(asked)])
  return tree.problems.filter(problem => touched(problem).some(name => family.has(name))).map(toReason)
}

function touched(problem: TreeProblem): readonly string[] {
  return 'checkpoints' in problem ? problem.checkpoints : [problem.checkpoint]
}

function toReason(problem: TreeProblem): Reason {
  switch (problem.code) {
    case 'checkpoint-parent-missing': {
      const { checkpoint, parent } = problem
      const message =
        `Checkpoint '${checkpoint}' names '${parent}' as its parent, but that one's metadata is gone. libvirt warns ` +
        "and has no current checkpoint; this plan does not need it, since each checkpoint's own bitmap records."
      return reason(problem.code, 'note', message, { checkpoint, parent })
    }
    case 'checkpoint-cycle': {
      const { checkpoints } = problem
      const message =
        `Checkpoints ${listNames(checkpoints)} are each other's parents in a circle: their order is not known. ` +
        "libvirt warns and has no current checkpoint. The asked checkpoint's own bitmap alone decides here."
      return reason(problem.code, 'note', message, { checkpoints })
    }
    case 'checkpoint-branched': {
      const { parent, checkpoints } = problem
      const from =
        parent === undefined
          ? 'Several checkpoints have no parent'
          : `Checkpoint '${parent}' has several children`
      const message = `${from}: ${listNames(checkpoints)}. libvirt then has no current checkpoint; the plan is the same.`
      return reason(problem.code, 'note', message, { parent: parent ?? null, checkpoints })
    }
    case 'checkpoint-duplicate': {
      const { checkpoint, copies } = problem
      const message = `There are ${copies} checkpoints named '${checkpoint}': the first was used. Remove the others' files.`
      return reason(problem.code, 'note', message, { checkpoint, copies })
    }
  }
}
