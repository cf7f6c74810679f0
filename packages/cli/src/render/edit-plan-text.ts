import type { EditPlan } from '@tidemark/qcow2'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { flagsOf, holesOf, type Run, type ShownWrite, shownWrite } from './edit.js'
import { table } from './table.js'

/** More pieces than these are counted: `--output json` has all. */
const MOST_RUNS = 4
/** An image may have 65,535 of them. */
const MOST_BITMAPS = 40

/** Why each step waits for the one before it. */
const MEANING: Readonly<Record<EditPlan['steps'][number]['name'], string>> = {
  clusters: 'new clusters, which nothing refers to yet',
  'refcount table': 'new refcount blocks are linked in',
  mark: 'the image is marked: whoever else writes to it from now on takes the mark away',
  header: 'the header: from here on the new bitmaps count',
  unmark: 'when all images have come so far, the mark goes',
  release: 'old clusters become free',
}

/** An edit of an image that was planned. */
export interface PlannedEdit {
  readonly filename: string
  readonly plan: EditPlan
  readonly resizable: boolean
  /** In one line. */
  readonly summary: string
}

/** What an edit would write, step by step, with the barriers between. */
export function planToText(edit: PlannedEdit, colors: Colors): string {
  const { filename, plan, resizable, summary } = edit
  const { clusterSize } = plan
  const parts = [
    `${colors.bold(printable(filename))}\n`,
    `  dry run: nothing was written. As planned, ${printable(summary)}\n`,
  ]
  let number = 0
  let before: string | undefined
  for (const { name, writes } of plan.steps) {
    number++
    const title = name === before ? 'the header, next' : MEANING[name]
    before = name
    const rows = writes.map(write => row(shownWrite(write, clusterSize)))
    parts.push(
      `\n${colors.bold(`${number}. ${title}`)}\n`,
      table(rows, { indent: 3, right: [1] }),
      `   ${colors.cyan('── flush: all of it is on the disk before what follows ──')}\n`,
    )
  }
  const holes = holesOf(plan)
  if (resizable && holes.length > 0) {
    const bytes = holes.reduce((sum, { count }) => sum + count, 0)
    parts.push(
      `\n${colors.bold(`${number + 1}. space is given back to the file system`)}\n`,
      table([['holes', formatSize(bytes), places(holes)]], { indent: 3, right: [1] }),
    )
  }
  parts.push('\n', table(costRows(plan), { indent: 2 }), '\n', bitmapsAfter(plan, colors))
  return parts.join('')
}

function row({ kind, what, amount, runs, value }: ShownWrite): string[] {
  const name = printable(what)
  switch (kind) {
    case 'grow':
      return [name, formatSize(amount), 'the length that it grows to']
    case 'refcounts':
      return [
        `refcounts ${name}`,
        `${amount}`,
        `become ${value}: ${amount === 1 ? 'cluster' : 'clusters'} ${clusters(runs)}`,
      ]
    default:
      return [name, formatSize(amount), places(runs)]
  }
}

/** Offsets in tables are decimal. */
function places(runs: readonly Run[]): string {
  const shown = runs.slice(0, MOST_RUNS).map(({ first }) => String(first))
  return `at ${shown.join(', ')}${more(runs)}`
}

function clusters(runs: readonly Run[]): string {
  const shown = runs
    .slice(0, MOST_RUNS)
    .map(({ first, count }) => (count === 1 ? String(first) : `${first}–${first + count - 1}`))
  return `${shown.join(', ')}${more(runs)}`
}

function more(runs: readonly Run[]): string {
  return runs.length > MOST_RUNS ? ` and ${runs.length - MOST_RUNS} more (--output json has all)` : ''
}

function costRows({ cost, clusterSize }: EditPlan): string[][] {
  const { allocated, freed, data, tables, directory, refcountStructures, growth } = cost
  const parts = [
    [data, 'bits'],
    [tables, 'tables'],
    [directory, 'directory'],
    [refcountStructures, 'refcounts'],
  ] as const
  const what = parts.filter(([count]) => count > 0).map(([count, name]) => `${name} ${count}`)
  return [
    ['clusters taken', `${allocated}${what.length === 0 ? '' : ` (${what.join(', ')})`}`],
    ['given back', String(freed)],
    ['cluster size', formatSize(clusterSize)],
    ['the file grows by', formatSize(growth)],
  ]
}

function bitmapsAfter({ bitmaps }: EditPlan, colors: Colors): string {
  if (bitmaps.length === 0) return '  no bitmaps are left\n'
  const rows = bitmaps.slice(0, MOST_BITMAPS).map(bitmap => {
    const flags = flagsOf(bitmap)
    const state = flags.includes('in-use')
      ? colors.red('inconsistent (in-use)')
      : flags.includes('auto')
        ? colors.green('recording')
        : colors.yellow('disabled')
    return [printable(bitmap.name), formatSize(2 ** bitmap.granularityBits), state]
  })
  const rest = bitmaps.length - rows.length
  const shown = table(rows, { head: ['BITMAP AFTERWARDS', 'GRANULARITY', 'STATE'], right: [1], indent: 2 })
  return rest === 0 ? shown : `${shown}  … and ${rest} more (--output json has all)\n`
}
