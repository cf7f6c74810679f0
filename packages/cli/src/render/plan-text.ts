import { basename } from 'node:path'
import type { BackupPlan, CheckpointTree, DiskPlan, Reason } from '@tidemark/planner'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatShare, formatSize } from '../units.js'
import { table } from './table.js'
import { checkpointTree } from './tree.js'
import { shortened, visibleWidth } from './width.js'
import { wrap } from './wrap.js'

/** The plan for people: what to do first, then why, then what it comes to. */
export function planToText(plan: BackupPlan, tree: CheckpointTree, colors: Colors, width: number): string {
  const parts = [
    `${colors.bold(`Backup of ${printable(plan.domain)} since checkpoint ${printable(plan.incremental)}`)}\n\n`,
    checkpointTree(tree, plan.incremental, colors),
    wrap(dialectText(plan), width - 2, '  ', colors.dim),
    '\n',
    diskTable(plan, colors, width),
    ...reasonBlocks(plan, colors, width),
    '\n',
    ...summary(plan).map((sentence, i) => wrap(sentence, width, '', i === 0 ? colors.bold : undefined)),
  ]
  return parts.join('')
}

/** Which dialect the plan is of, and why. */
function dialectText({ dialect, dialectEvidence: { source, pattern, message } }: BackupPlan): string {
  return `Dialect: ${pattern === 'mixed' ? 'mixed' : dialect} (${source}): ${message}.`
}

function diskTable({ disks }: BackupPlan, colors: Colors, width: number): string {
  const rows = disks.map(disk => [
    colors.bold(printable(disk.target)),
    modeText(disk, colors),
    libvirtText(disk, colors),
    disk.virtualSize === undefined ? '?' : formatSize(disk.virtualSize),
    toCopy(disk),
  ])
  const options = {
    head: ['DISK', 'PLAN', 'LIBVIRT', 'SIZE', 'TO COPY'],
    right: [3, 4],
    indent: 2,
  }
  const widest = Math.max(...table(rows, options).split('\n').map(visibleWidth))
  const room = Math.max(12, width - widest - 2)
  const withFiles = rows.map((row, i) => [...row, filesText(disks[i]!, room)])
  return table(withFiles, { ...options, head: [...options.head, 'FROM'] })
}

/** The files whose bitmaps are united, as many of their names as there is room for. */
function filesText({ mode, merge, source }: DiskPlan, room: number): string {
  // Chained bitmaps lie in one file, several of them.
  const files = mode === 'incremental' ? [...new Set(merge.map(({ filename }) => filename))] : [source]
  const [top, ...below] = files
  const names = [top!, ...below].map(name => printable(basename(name)))
  const more = below.length
  const texts = [names.join(' + '), `${names[0]} + ${more} below`, `${names[0]} + ${more}`]
  const fits = (more === 0 ? texts.slice(0, 1) : texts).find(text => visibleWidth(text) <= room)
  if (fits !== undefined) return fits
  const rest = more === 0 ? '' : ` + ${more}`
  return `${shortened(names[0]!, room - rest.length)}${rest}`
}

/** What libvirt would take though it must not is a trap, and stands out. */
function isTrap({ mode, libvirt }: DiskPlan): boolean {
  return mode === 'full' && libvirt === 'accept'
}

function libvirtText(disk: DiskPlan, colors: Colors): string {
  if (isTrap(disk)) return colors.red('accepts')
  return disk.libvirt === 'accept' ? 'accepts' : disk.libvirt === 'reject' ? 'rejects' : 'unknown'
}

function modeText({ mode }: DiskPlan, colors: Colors): string {
  if (mode === 'incremental') return colors.green(mode)
  return mode === 'full' ? colors.yellow(mode) : colors.red(mode)
}

function toCopy({ mode, dirtyBytes, virtualSize }: DiskPlan): string {
  if (mode === 'full') return 'all of it'
  if (mode === 'unknown' || dirtyBytes === undefined || virtualSize === undefined) return '?'
  return `${formatSize(dirtyBytes)} (${formatShare(dirtyBytes, virtualSize)})`
}

/** What concerns the whole tree is said once; the rest disk by disk. */
function reasonBlocks({ disks }: BackupPlan, colors: Colors, width: number): string[] {
  const shared = (disks[0]?.reasons ?? []).filter(
    ({ message }) =>
      disks.length > 1 && disks.every(disk => disk.reasons.some(reason => reason.message === message)),
  )
  const block = (title: string, reasons: readonly Reason[]) =>
    reasons.length === 0 ? [] : [`\n${colors.bold(title)}\n${reasonList(reasons, colors, width)}`]
  return [
    ...disks.flatMap(disk => {
      const own = disk.reasons.filter(({ message }) => !shared.some(each => each.message === message))
      const target = printable(disk.target)
      if (disk.mode === 'incremental') return block(`${target}: to know`, own)
      // Notes beside what decides would only distract; --output json has them all.
      return block(
        `${target}: why ${disk.mode}`,
        own.filter(({ severity }) => severity !== 'note'),
      )
    }),
    ...block('All disks', shared),
  ]
}

/** One of a kind is enough: thirty newer checkpoints would say the same thirty times. */
function reasonList(reasons: readonly Reason[], colors: Colors, width: number): string {
  const kinds = new Map<string, Reason[]>()
  for (const reason of reasons) kinds.set(reason.code, [...(kinds.get(reason.code) ?? []), reason])
  return [...kinds.values()]
    .map(([first, ...alike]) => reasonText(first!, alike.length, colors, width))
    .join('')
}

function reasonText(
  { code, severity, message }: Reason,
  alike: number,
  colors: Colors,
  width: number,
): string {
  const paint = severity === 'blocks' ? colors.yellow : severity === 'unknown' ? colors.red : colors.dim
  const more = alike === 0 ? '' : ` (${alike} more like this; --output json has all)`
  return `  ${paint(code)}${more}\n${wrap(printable(message), width - 4, '    ')}`
}

/** A few disks by their names; of many how many they are. Names may come from anywhere: escaped here, once. */
function namesText(targets: readonly string[], of?: number): string {
  if (targets.length <= 8) return targets.map(printable).join(', ')
  return of === undefined ? `${targets.length} disks` : `${targets.length} of ${of} disks`
}

/** What it comes to, a sentence a line. */
function summary({ disks, incremental, nextBest }: BackupPlan): string[] {
  const done = disks.filter(({ mode }) => mode === 'incremental')
  const unknown = disks.filter(({ mode }) => mode === 'unknown').map(({ target }) => target)
  const count = `${done.length} of ${disks.length} disk${disks.length === 1 ? '' : 's'} incremental`
  const whole = disks.reduce((sum, { virtualSize }) => sum + (virtualSize ?? 0), 0)
  const copied = disks.reduce(
    (sum, { mode, virtualSize, dirtyBytes }) => sum + ((mode === 'full' ? virtualSize : dirtyBytes) ?? 0),
    0,
  )
  const measured = done.every(({ dirtyBytes }) => dirtyBytes !== undefined) && unknown.length === 0
  // An image that cannot be read tells no size.
  const unsized = disks.filter(({ virtualSize }) => virtualSize === undefined).map(({ target }) => target)
  const copy =
    unsized.length === 0
      ? `${formatSize(copied)} to copy instead of ${formatSize(whole)}`
      : `${formatSize(copied)} to copy, and all of ${namesText(unsized)}, of unknown size`
  const sentences = [done.length > 0 && measured ? `${count}: ${copy}.` : `${count}.`]
  const traps = disks.filter(isTrap).map(({ target }) => target)
  if (traps.length > 0) {
    sentences.push(
      `libvirt would accept ${namesText(traps)} as incremental, but such a backup would lack changes.`,
    )
  }
  const past = disks
    .filter(({ mode, libvirt }) => mode === 'incremental' && libvirt === 'reject')
    .map(({ target }) => target)
  if (past.length > 0) {
    sentences.push(`libvirt would refuse ${namesText(past)}: use --format sh, while the domain is off.`)
  }
  if (unknown.length > 0) sentences.push(`What ${namesText(unknown)} would need cannot be told from here.`)
  if (nextBest !== undefined) {
    const size = nextBest.dirtyBytes === undefined ? '' : ` (${formatSize(nextBest.dirtyBytes)})`
    const more = nextBest.everyDisk ? 'every disk' : namesText(nextBest.disks, disks.length)
    const name = printable(nextBest.checkpoint)
    sentences.push(
      nextBest.relation === 'older'
        ? `Since the older checkpoint ${name}, ${more} could be incremental${size}: it holds all that ${printable(incremental)} would.`
        : `Since the newer checkpoint ${name}, ${more} could be incremental${size}: of use if there is a backup of that moment.`,
    )
  }
  return sentences
}
