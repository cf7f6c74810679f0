import type { CheckpointTree } from '@tidemark/planner'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'

/** A long chain of checkpoints is shown at both ends and around the one that matters. */
const MOST_LINES = 14
const AROUND = 3

/**
 * The checkpoints as a small tree: a chain is a straight column, only branches are indented.
 *
 * @param asked the checkpoint to point out
 */
export function checkpointTree(tree: CheckpointTree, asked: string, colors: Colors): string {
  const lines: { name: string; text: string }[] = []
  const seen = new Set<string>()
  const walk = (name: string, indent: string) => {
    // Down a chain without recursion: histories can be long. A circle ends where it closes.
    for (let next: string | undefined = name; next !== undefined; ) {
      if (seen.has(next)) {
        lines.push({
          name: next,
          text: `${indent}${colors.red(`${printable(next)} again: the chain is circular`)}`,
        })
        return
      }
      seen.add(next)
      lines.push({ name: next, text: `${indent}${label(next)}` })
      const children: readonly string[] = tree.children(next)
      if (children.length > 1) {
        for (const child of children) walk(child, `${indent}   `)
        return
      }
      next = children[0]
    }
  }
  const label = (name: string) => {
    const checkpoint = tree.get(name)
    const orphan = checkpoint?.parent !== undefined && tree.get(checkpoint.parent) === undefined
    const marks = [
      ...(checkpoint?.creationTime === undefined ? [] : [colors.dim(formatTime(checkpoint.creationTime))]),
      ...(name === asked ? [colors.cyan('changes since here')] : []),
      ...(name === tree.current ? [colors.dim('current')] : []),
      ...(orphan ? [colors.yellow(`parent ${printable(checkpoint.parent!)} is missing`)] : []),
    ]
    return [`${name === asked ? colors.cyan('●') : '○'} ${printable(name)}`, ...marks].join('  ')
  }
  for (const root of tree.roots) walk(root, '')
  // What no root leads to is a circle.
  for (const name of tree.names) if (!seen.has(name)) walk(name, '')
  return shorten(lines, asked)
    .map(line => `  ${line}\n`)
    .join('')
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
