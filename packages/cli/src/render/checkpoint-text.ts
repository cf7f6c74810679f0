import { basename } from 'node:path'
import type { LayerBitmap, ShownCheckpoint, ShownDisk } from '@tidemark/planner'
import { isoTime } from '../checkpoint/time.js'
import type { LayerCounts } from '../commands/checkpoint-show.js'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatShare, formatSize } from '../units.js'
import { table } from './table.js'
import { wrap } from './wrap.js'

/** One checkpoint for people: what it is, then disk by disk what there is of it and what it would take. */
export function shownToText(
  shown: ShownCheckpoint,
  domain: string,
  counts: LayerCounts | undefined,
  colors: Colors,
  width: number,
): string {
  const { checkpoint, current, children, disks, gone } = shown
  const { name, parent, creationTime, description, libvirtSkips } = checkpoint
  const facts = [
    ['parent', parent === undefined ? '-' : printable(parent)],
    ['children', children.length === 0 ? '-' : children.map(printable).join(', ')],
    ['created', creationTime === undefined ? '?' : isoTime(creationTime)],
    ...(description === undefined ? [] : [['description', printable(description)]]),
    ...(libvirtSkips === undefined ? [] : [['libvirt', `does not load it: ${printable(libvirtSkips)}`]]),
  ]
  return [
    `${colors.bold(`Checkpoint ${printable(name)} of ${printable(domain)}`)}${current ? ' (current)' : ''}\n\n`,
    table(facts, { indent: 2 }),
    ...disks.map(disk => diskText(disk, counts?.get(disk.plan.target), colors, width)),
    ...gone.map(({ target, source }) =>
      wrap(
        `${printable(target)}${source === undefined ? '' : ` (${printable(source)})`} was in it, and is not a disk of the domain any more.`,
        width,
        '',
        line => `${line}`,
      ).replace(/^/, '\n'),
    ),
  ].join('')
}

function diskText(
  { plan, recorded, layers }: ShownDisk,
  counts: readonly (number | undefined)[] | undefined,
  colors: Colors,
  width: number,
): string {
  const paint = plan.mode === 'incremental' ? colors.green : plan.mode === 'full' ? colors.yellow : colors.red
  const size =
    plan.mode === 'incremental' && plan.dirtyBytes !== undefined && plan.virtualSize !== undefined
      ? `: ${formatSize(plan.dirtyBytes)} to copy (${formatShare(plan.dirtyBytes, plan.virtualSize)})`
      : ''
  const rows = layers.map((layer, i) => [
    String(layer.layer),
    printable(basename(layer.filename)),
    flagsText(layer, colors),
    layer.bitmap === undefined ? '' : formatSize(layer.bitmap.granularity),
    counts?.[i] === undefined ? '' : formatSize(counts[i]),
  ])
  const head = ['LAYER', 'FILE', 'BITMAP', 'GRANULARITY', ...(counts === undefined ? [] : ['DIRTY'])]
  return [
    `\n${colors.bold(printable(plan.target))}  ${paint(plan.mode)}${size}\n`,
    `  then  ${thenText(recorded)}\n  now   ${printable(plan.source)}\n`,
    rows.length === 0 ? '' : table(rows, { head, right: [3, 4], indent: 2 }),
    ...plan.reasons.map(({ code, severity, message }) => {
      const tone = severity === 'blocks' ? colors.yellow : severity === 'unknown' ? colors.red : colors.dim
      return `  ${tone(code)}\n${wrap(printable(message), width - 4, '    ')}`
    }),
  ].join('')
}

function thenText(recorded: ShownDisk['recorded']): string {
  if (recorded === undefined) return 'not in it'
  const where = recorded.source === undefined ? printable(recorded.target) : printable(recorded.source)
  const as = recorded.bitmap === undefined ? '' : `, bitmap ${printable(recorded.bitmap)}`
  return recorded.checkpoint === 'no' ? `${where}, left out (checkpoint='no')` : `${where}${as}`
}

function flagsText({ bitmap, stale, problem }: LayerBitmap, colors: Colors): string {
  if (problem !== undefined) return colors.red('unreadable')
  if (bitmap === undefined) return '-'
  const words = [
    bitmap.recording ? 'recording' : colors.yellow('disabled'),
    ...(bitmap.inconsistent ? [colors.yellow('in-use')] : []),
    ...(stale ? [colors.yellow('stale')] : []),
    ...(bitmap.corrupt === undefined ? [] : [colors.red('corrupt')]),
  ]
  return words.join(', ')
}
