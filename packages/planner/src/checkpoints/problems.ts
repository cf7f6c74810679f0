import type { CheckpointFacts } from '../facts.js'

/** What is wrong with a tree of checkpoints, with the checkpoints that show it. */
export type TreeProblem =
  | { readonly code: 'checkpoint-parent-missing'; readonly checkpoint: string; readonly parent: string }
  /** In the order of their parents: each one's parent is the next, the last one's is the first. */
  | { readonly code: 'checkpoint-cycle'; readonly checkpoints: readonly string[] }
  /** Several children of one checkpoint; `parent` undefined: several checkpoints that claim to be the first. */
  | {
      readonly code: 'checkpoint-branched'
      readonly parent: string | undefined
      readonly checkpoints: readonly string[]
    }
  | { readonly code: 'checkpoint-duplicate'; readonly checkpoint: string; readonly copies: number }

interface Relations {
  readonly names: readonly string[]
  get(name: string): CheckpointFacts | undefined
  children(name: string): readonly string[]
}

/** All problems, in the order of the names that show them; each circle once. */
export function findTreeProblems(checkpoints: readonly CheckpointFacts[], tree: Relations): TreeProblem[] {
  return [...duplicates(checkpoints), ...missingParents(tree), ...cycles(tree), ...branches(tree)]
}

function duplicates(checkpoints: readonly CheckpointFacts[]): TreeProblem[] {
  const copies = new Map<string, number>()
  for (const { name } of checkpoints) copies.set(name, (copies.get(name) ?? 0) + 1)
  return [...copies]
    .filter(([, count]) => count > 1)
    .map(([checkpoint, count]) => ({ code: 'checkpoint-duplicate', checkpoint, copies: count }))
}

function missingParents({ names, get }: Relations): TreeProblem[] {
  const problems: TreeProblem[] = []
  for (const name of names) {
    const parent = get(name)?.parent
    if (parent !== undefined && get(parent) === undefined) {
      problems.push({ code: 'checkpoint-parent-missing', checkpoint: name, parent })
    }
  }
  return problems
}

/** Every name is followed up to where it was seen before; each step is made once, so this is linear. */
function cycles({ names, get }: Relations): TreeProblem[] {
  const problems: TreeProblem[] = []
  const walked = new Set<string>()
  for (const start of names) {
    const path: string[] = []
    const inPath = new Set<string>()
    let name: string | undefined = start
    while (name !== undefined && get(name) !== undefined && !walked.has(name)) {
      walked.add(name)
      path.push(name)
      inPath.add(name)
      name = get(name)?.parent
    }
    if (name !== undefined && inPath.has(name)) {
      problems.push({ code: 'checkpoint-cycle', checkpoints: path.slice(path.indexOf(name)) })
    }
  }
  return problems
}

function branches({ names, get, children }: Relations): TreeProblem[] {
  const problems: TreeProblem[] = []
  const first = names.filter(name => get(name)?.parent === undefined)
  if (first.length > 1) problems.push({ code: 'checkpoint-branched', parent: undefined, checkpoints: first })
  for (const name of names) {
    const siblings = children(name)
    if (siblings.length > 1)
      problems.push({ code: 'checkpoint-branched', parent: name, checkpoints: siblings })
  }
  return problems
}
