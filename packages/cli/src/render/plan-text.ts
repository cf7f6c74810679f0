import { basename } from 'node:path'
import type { BackupPlan, CheckpointTree, DiskPlan, Reason } from '@tidemark/planner'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatShare, formatSize } from '../units.js'
import { table } from './table.js'
import { checkpointTree } from './tree.js'
import { wrap } from './wrap.js'

/** The plan for people: what to do first, then why, then what it comes to. */
export function planToText(plan: BackupPlan, tree: CheckpointTree, colors: Colors, width: number): string {
  const parts = [
    `${colors.bold(`Backup of ${printable(plan.domain)} since checkpoint ${printable(plan.incremental)}`)}\n\n`,
    checkpointTree(tree, plan.incremental, colors),
    '\n',
    diskTable(plan, colors),
    ...reasonBlocks(plan, colors, width),
    `\n${summary(plan, colors)}\n`,
  ]
  return parts.join('')
}

function diskTable({ disks }: BackupPlan, colors: Colors): string {
  const rows = disks.map(disk => [
    colors.bold(printable(disk.target)),
    modeText(disk, colors),
    disk.libvirt === 'accept' ? 'accepts' : disk.libvirt === 'reject' ? 'rejects' : 'unknown',
    disk.virtualSize === undefined ? '?' : formatSize(disk.virtualSize),
    toCopy(disk),
    disk.mode === 'incremental' ? mergeText(disk) : printable(basename(disk.source)),
  ])
  return table(rows, {
    head: ['DISK', 'PLAN', 'LIBVIRT', 'SIZE', 'TO COPY', 'FROM'],
    right: [3, 4],
    indent: 2,
  })
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

function mergeText({ merge }: DiskPlan): string {
  const files = merge.map(({ filename }) => printable(basename(filename)))
  return `'${printable(merge[0]!.bitmap)}' in ${files.join(' + ')}`
}

/** What concerns the whole tree is said once; the rest disk by disk. */
function reasonBlocks({ disks }: BackupPlan, colors: Colors, width: number): string[] {
  const shared = (disks[0]?.reasons ?? []).filter(
    ({ message }) =>
      disks.length > 1 && disks.every(disk => disk.reasons.some(reason => reason.message === message)),
  )
  const block = (title: string, reasons: readonly Reason[]) =>
    reasons.length === 0
      ? []
      : [`\n${title}\n${reasons.map(reason => reasonText(reason, colors, width)).join('')}`]
  return [
    ...disks.flatMap(disk => {
      const own = disk.reasons.filter(({ message }) => !shared.some(each => each.message === message))
      if (disk.mode === 'incremental') return block(`${disk.target}: to know`, own)
      // Notes beside what decides would only distract; --output json has them all.
      return block(
        `${disk.target}: why ${disk.mode}`,
        own.filter(({ severity }) => severity !== 'note'),
      )
    }),
    ...block('All disks', shared),
  ]
}

function reasonText({ code, severity, message }: Reason, colors: Colors, width: number): string {
  const paint = severity === 'blocks' ? colors.yellow : severity === 'unknown' ? colors.red : colors.dim
  return `  ${paint(code)}\n${wrap(printable(message), width - 4, '    ')}`
}

function summary(plan: BackupPlan, colors: Colors): string {
  const { disks } = plan
  const incremental = disks.filter(({ mode }) => mode === 'incremental')
  const unknown = disks.filter(({ mode }) => mode === 'unknown')
  const count = `${incremental.length} of ${disks.length} disk${disks.length === 1 ? '' : 's'} incremental`
  const sentences = [colors.bold(count)]
  if (
    disks.every(({ mode, dirtyBytes }) => mode === 'full' || dirtyBytes !== undefined) &&
    unknown.length === 0
  ) {
    const copied = disks.reduce(
      (sum, disk) => sum + ((disk.mode === 'full' ? disk.virtualSize : disk.dirtyBytes) ?? 0),
      0,
    )
    const whole = disks.reduce((sum, disk) => sum + (disk.virtualSize ?? 0), 0)
    if (incremental.length > 0)
      sentences.push(`${formatSize(copied)} to copy instead of ${formatSize(whole)}`)
  }
  if (unknown.length > 0)
    sentences.push(`${unknown.map(({ target }) => target).join(', ')} cannot be told from here`)
  const { nextBest } = plan
  if (nextBest !== undefined) {
    const more = nextBest.disks.map(printable).join(', ')
    sentences.push(
      `since the ${nextBest.relation} checkpoint ${printable(nextBest.checkpoint)}, ${more} could be incremental`,
    )
  }
  return `${sentences.join('; ')}.`
}
