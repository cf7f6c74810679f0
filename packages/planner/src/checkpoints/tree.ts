/**
 * The tree that checkpoints form by their parents' names, as libvirt builds it when it loads a domain's metadata:
 * a missing parent or a circle only warns, and leaves the domain without a current checkpoint.
 */
import type { CheckpointFacts } from '../facts.js'
import { findTreeProblems, type TreeProblem } from './problems.js'

export interface CheckpointTree {
  /** Every name once, in the order given. Of two checkpoints with one name the first counts. */
  readonly names: readonly string[]
  /** Those without a parent, or whose parent is not there. A circle has no root. */
  readonly roots: readonly string[]
  /** Those that are nobody's parent. */
  readonly leaves: readonly string[]
  /**
   * What libvirt takes as current at load, where it is not stored: the only leaf of a single unbranched chain;
   * undefined with a branch, several roots, a missing parent or a circle anywhere.
   */
  readonly current: string | undefined
  readonly problems: readonly TreeProblem[]
  get(name: string): CheckpointFacts | undefined
  children(name: string): readonly string[]
  /** Nearest first, without `name` itself; ends where a circle closes. */
  ancestors(name: string): readonly string[]
  /** Breadth first, without `name` itself; ends where a circle closes. */
  descendants(name: string): readonly string[]
}

/**
 * Builds the tree. Never throws: what is wrong with it is in `problems`.
 *
 * @example
 * ```ts
 * const tree = buildCheckpointTree(facts.checkpoints)
 * tree.ancestors('cp3') // ['cp2', 'cp1']
 * ```
 */
export function buildCheckpointTree(checkpoints: readonly CheckpointFacts[]): CheckpointTree {
  const byName = new Map<string, CheckpointFacts>()
  for (const checkpoint of checkpoints) {
    if (!byName.has(checkpoint.name)) byName.set(checkpoint.name, checkpoint)
  }
  const names = [...byName.keys()]
  const childrenOf = new Map<string, string[]>()
  for (const { name, parent } of byName.values()) {
    if (parent === undefined || !byName.has(parent)) continue
    const siblings = childrenOf.get(parent)
    if (siblings) siblings.push(name)
    else childrenOf.set(parent, [name])
  }

  const get = (name: string) => byName.get(name)
  const children = (name: string): readonly string[] => childrenOf.get(name) ?? []

  function ancestors(name: string): readonly string[] {
    const seen = new Set([name])
    let parent = get(name)?.parent
    while (parent !== undefined && byName.has(parent) && !seen.has(parent)) {
      seen.add(parent)
      parent = get(parent)?.parent
    }
    return [...seen].slice(1)
  }

  function descendants(name: string): readonly string[] {
    const seen = new Set([name])
    // A Set is walked in the order of insertion and takes in what is added on the way: a queue that ends on circles.
    for (const next of seen) for (const child of children(next)) seen.add(child)
    return [...seen].slice(1)
  }

  const roots = names.filter(name => {
    const parent = get(name)?.parent
    return parent === undefined || !byName.has(parent)
  })
  const leaves = names.filter(name => children(name).length === 0)
  const problems = findTreeProblems(checkpoints, { names, get, children })
  const chain = problems.every(problem => problem.code === 'checkpoint-duplicate') && leaves.length === 1
  return {
    names,
    roots,
    leaves,
    current: chain ? leaves[0] : undefined,
    problems,
    get,
    children,
    ancestors,
    descendants,
  }
}
