/**
 * The order in which checkpoints were taken. In the independent dialect it decides nothing; in the chained one every
 * checkpoint after the asked one counts, so a tree that leaves their order open leaves everything open.
 */
import type { TreeProblem } from './problems.js'
import type { CheckpointTree } from './tree.js'

/**
 * Sorts checkpoints from the oldest to the newest: by the tree where one descends from the other, else all of them by
 * `creationTime`. Undefined where neither tells (a time that is missing, or the same twice).
 *
 * @param names of the tree; each once
 */
export function oldestFirst(tree: CheckpointTree, names: readonly string[]): readonly string[] | undefined {
  if (names.length < 2) return names
  const wanted = new Set(names)
  const older = new Set<string>()
  for (const name of names) {
    let parent = tree.get(name)?.parent
    while (parent !== undefined && !older.has(parent) && tree.get(parent) !== undefined) {
      older.add(parent)
      parent = tree.get(parent)?.parent
    }
  }
  const [newest, ...others] = names.filter(name => !older.has(name))
  if (newest !== undefined && others.length === 0) {
    const line = tree.ancestors(newest).filter(name => wanted.has(name))
    if (line.length === names.length - 1) return [...line.reverse(), newest]
  }
  const timed = names.map(name => ({ name, time: tree.get(name)?.creationTime ?? Number.NaN }))
  timed.sort((a, b) => a.time - b.time)
  const clear = timed.every(({ time }, i) => !Number.isNaN(time) && (i === 0 || time > timed[i - 1]!.time))
  return clear ? timed.map(({ name }) => name) : undefined
}

/** The checkpoints after one, nearest first; or what in the tree leaves them open. */
export type LineSince =
  | { readonly state: 'line'; readonly newer: readonly string[] }
  | { readonly state: 'open'; readonly problems: readonly TreeProblem[] }

/**
 * All checkpoints that came after `asked`. They must be one line without a branch, and no checkpoint may be beside it
 * or hang in the air: any such one could be newer.
 */
export function lineSince(tree: CheckpointTree, asked: string): LineSince {
  const older = tree.ancestors(asked)
  const known = new Set([asked, ...older])
  const newer: string[] = []
  for (let name = asked; ; ) {
    const children = tree.children(name)
    if (children.length === 0) break
    if (children.length > 1 || known.has(children[0]!))
      return { state: 'open', problems: openProblems(tree, asked, known) }
    name = children[0]!
    known.add(name)
    newer.push(name)
  }
  const doubled = tree.problems.filter(
    problem =>
      problem.code === 'checkpoint-duplicate' &&
      (problem.checkpoint === asked || newer.includes(problem.checkpoint)),
  )
  if (doubled.length > 0) return { state: 'open', problems: doubled }
  if (known.size === tree.names.length) return { state: 'line', newer }
  return { state: 'open', problems: openProblems(tree, asked, known) }
}

/** Whatever is wrong but for a parent that is missing above the asked one: what was before it does not matter. */
function openProblems(
  tree: CheckpointTree,
  asked: string,
  known: ReadonlySet<string>,
): readonly TreeProblem[] {
  const before = new Set([asked, ...tree.ancestors(asked)])
  const open = tree.problems.filter(
    problem =>
      problem.code !== 'checkpoint-duplicate' &&
      !(problem.code === 'checkpoint-parent-missing' && before.has(problem.checkpoint)),
  )
  if (open.length > 0) return open
  // Several checkpoints without a parent, one of them because its parent is missing: that is how they are told.
  const beside = tree.roots.filter(root => !known.has(root))
  return [{ code: 'checkpoint-branched', parent: undefined, checkpoints: [asked, ...beside] }]
}
