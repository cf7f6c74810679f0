import type {
  CheckpointOverview,
  CheckpointsOverview,
  CheckpointTree,
  DiskUse,
  TreeProblem,
} from '@tidemark/planner'
import { isoTime } from '../checkpoint/time.js'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { table } from './table.js'
import { wholeTree } from './tree.js'
import { wrap } from './wrap.js'

/** Names in a cell or a sentence, at most; in a cell of a narrow terminal. */
const MOST_NAMES = 6
const MOST_IF_NARROW = 2
const NARROW = 80

/** A domain's checkpoints for people: a table, or the tree, then what is wrong with them. */
export function checkpointsToText(
  overview: CheckpointsOverview,
  tree: CheckpointTree | undefined,
  colors: Colors,
  width: number,
): string {
  const { domain, dialect, checkpoints, problems, running } = overview
  if (checkpoints.length === 0) return `${printable(domain)} has no checkpoints.\n`
  const parts = [
    `${colors.bold(`Checkpoints of ${printable(domain)}`)} ${colors.dim(`(${dialect})`)}\n\n`,
    tree === undefined ? rows(checkpoints, colors, width) : drawn(checkpoints, tree, colors),
  ]
  const sentences = [
    ...problems.map(problem => colors.yellow(problemText(problem))),
    ...(running
      ? [
          colors.red(
            "The domain runs: its bitmaps are in QEMU's memory, and what they are good for cannot be told.",
          ),
        ]
      : []),
  ]
  if (sentences.length > 0) parts.push('\n', ...sentences.map(sentence => wrap(sentence, width, '')))
  return parts.join('')
}

/** The oldest first, as far as times tell; their files have no order that means anything. */
function rows(checkpoints: readonly CheckpointOverview[], colors: Colors, width: number): string {
  const time = ({ creationTime }: CheckpointOverview) => creationTime ?? Number.POSITIVE_INFINITY
  const sorted = [...checkpoints].sort((a, b) => (time(a) < time(b) ? -1 : time(a) > time(b) ? 1 : 0))
  const most = width < NARROW ? MOST_IF_NARROW : MOST_NAMES
  const lines = sorted.map(checkpoint => {
    const { name, parent, creationTime, current, recorded } = checkpoint
    return [
      `${current ? colors.cyan('*') : ' '} ${colors.bold(printable(name))}`,
      parent === undefined ? '-' : printable(parent),
      creationTime === undefined ? '?' : isoTime(creationTime),
      names(recorded, most),
      usableText(checkpoint, colors),
    ]
  })
  const head = ['  NAME', 'PARENT', 'CREATED (UTC)', 'DISKS', 'USABLE NOW']
  return `${table(lines, { head })}${checkpoints.some(({ current }) => current) ? colors.dim("* current: the next one's parent\n") : ''}`
}

function drawn(checkpoints: readonly CheckpointOverview[], tree: CheckpointTree, colors: Colors): string {
  const byName = new Map(checkpoints.map(checkpoint => [checkpoint.name, checkpoint]))
  const mark = (name: string) => {
    const checkpoint = byName.get(name)
    return checkpoint && usableText(checkpoint, colors)
  }
  return wholeTree(tree, colors, mark)
}

/** Yes, or which disks it is of no use for and why. */
function usableText({ usable, now, libvirtSkips }: CheckpointOverview, colors: Colors): string {
  const skips = libvirtSkips === undefined ? '' : colors.red(' (libvirt does not load it)')
  if (usable === 'all') return colors.green('yes') + skips
  const outside = new Set(['disk-excluded', 'disk-not-in-checkpoint'])
  const why = (use: DiskUse) => use.reasons.find(({ severity }) => severity !== 'note')?.code
  const bad = now.filter(use => use.mode !== 'incremental' && !outside.has(why(use) ?? ''))
  const said = bad.slice(0, MOST_NAMES).map(use => `${printable(use.target)}: ${why(use) ?? use.mode}`)
  const more = bad.length > MOST_NAMES ? [`${bad.length - MOST_NAMES} more`] : []
  const word =
    usable === 'unknown'
      ? colors.red('unknown')
      : usable === 'some'
        ? colors.yellow('in part')
        : colors.red('no')
  const list = [...said, ...more].join(', ')
  return `${word}${list === '' ? '' : `  ${list}`}${skips}`
}

function names(list: readonly string[], most: number): string {
  if (list.length === 0) return '-'
  const shown = list.slice(0, most).map(printable).join(' ')
  return list.length > most ? `${shown} +${list.length - most}` : shown
}

/** What is wrong with a tree, in a sentence. */
function problemText(problem: TreeProblem): string {
  switch (problem.code) {
    case 'checkpoint-parent-missing':
      return `${printable(problem.checkpoint)}: its parent ${printable(problem.parent)} is missing.`
    case 'checkpoint-cycle':
      return `A circle: ${listed(problem.checkpoints)} are each other's parents.`
    case 'checkpoint-branched':
      return problem.parent === undefined
        ? `Several first checkpoints: ${listed(problem.checkpoints)}. libvirt has no current one.`
        : `A branch: ${listed(problem.checkpoints)} are all children of ${printable(problem.parent)}. libvirt has no current one.`
    case 'checkpoint-duplicate':
      return `${problem.copies} files are of a checkpoint named ${printable(problem.checkpoint)}: the first counts here.`
  }
}

function listed(all: readonly string[]): string {
  const shown = all.slice(0, MOST_NAMES).map(printable).join(', ')
  return all.length > MOST_NAMES ? `${shown} and ${all.length - MOST_NAMES} more` : shown
}
