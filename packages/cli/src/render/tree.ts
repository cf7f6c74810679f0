import type { CheckpointTree } from '@tidemark/planner'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'

/** A long chain of checkpoints is shown at both ends and around the one that matters. */
const MOST_LINES = 14
const AROUND = 3

/**
 * The checkpoints as a small tree: a chain is a straight column, only branches are indented. A long one is cut.
 *
 * @param asked the checkpoint to point out
 */
export function checkpointTree(tree: CheckpointTree, asked: string, colors: Colors): string {
  const lines = treeLines(tree).map(line => ({ name: line.name, text: lineText(tree, line, colors, asked) }))
  return printed(shorten(lines, asked))
}

/**
 * All of it, however long.
 *
 * @param mark more to say of a checkpoint
 */
export function wholeTree(
  tree: CheckpointTree,
  colors: Colors,
  mark: (name: string) => string | undefined,
): string {
  return printed(
    treeLines(tree).map(line => {
      const more = line.again ? undefined : mark(line.name)
      return `${lineText(tree, line, colors)}${more === undefined ? '' : `  ${more}`}`
    }),
  )
}

function printed(lines: readonly string[]): string {
  return lines.map(line => `  ${line}\n`).join('')
}

function lineText(
  tree: CheckpointTree,
  { name, depth, again }: TreeLine,
  colors: Colors,
  asked?: string,
): string {
  const indent = '   '.repeat(Math.min(depth, DEEPEST))
  if (again) return `${indent}${colors.red(`${printable(name)} again: the chain is circular`)}`
  const checkpoint = tree.get(name)
  const orphan = checkpoint?.parent !== undefined && tree.get(checkpoint.parent) === undefined
  const marks = [
    ...(checkpoint?.creationTime === undefined ? [] : [colors.dim(formatTime(checkpoint.creationTime))]),
    ...(name === asked ? [colors.cyan('changes since here')] : []),
    ...(name === tree.current ? [colors.dim('current')] : []),
    ...(orphan ? [colors.yellow(`parent ${printable(checkpoint.parent!)} is missing`)] : []),
  ]
  return indent + [`${name === asked ? colors.cyan('●') : '○'} ${printable(name)}`, ...marks].join('  ')
}

/** Branches within branches are indented no further: each step would make all lines below it longer. */
const DEEPEST = 12

interface TreeLine {
  readonly name: string
  readonly depth: number
  /** A circle closes here. */
  readonly again: boolean
}

/** Depth first, without recursion: histories can be long. */
function treeLines(tree: CheckpointTree): readonly TreeLine[] {
  const lines: TreeLine[] = []
  const seen = new Set<string>()
  const walk = (start: string) => {
    const todo = [{ name: start, depth: 0 }]
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      const { name, depth } = next
      const again = seen.has(name)
      lines.push({ name, depth, again })
      if (again) continue
      seen.add(name)
      const children = tree.children(name)
      const below = children.length > 1 ? depth + 1 : depth
      for (let i = children.length - 1; i >= 0; i--) todo.push({ name: children[i]!, depth: below })
    }
  }
  for (const root of tree.roots) walk(root)
  // What no root leads to is a circle.
  for (const name of tree.names) if (!seen.has(name)) walk(name)
  return lines
}

function shorten(lines: readonly { name: string; text: string }[], asked: string): string[] {
  if (lines.length <= MOST_LINES) return lines.map(({ text }) => text)
  const center = lines.findIndex(({ name }) => name === asked)
  const shown = lines.map((_, i) => i < 2 || i >= lines.length - 2 || Math.abs(i - center) <= AROUND)
  const out: string[] = []
  let hidden = 0
  lines.forEach(({ text }, i) => {
    if (!shown[i]) {
      hidden++
      return
    }
    if (hidden > 0) out.push(`⋮ ${hidden} more`)
    hidden = 0
    out.push(text)
  })
  return out
}

/** UTC, as all of a host's logs can be compared with. */
function formatTime(seconds: number): string {
  const date = new Date(seconds * 1000)
  return Number.isNaN(date.getTime())
    ? `${seconds} s`
    : `${date.toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
