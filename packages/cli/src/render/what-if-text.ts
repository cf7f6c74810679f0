import { type DiskPlan, PlanError, type WhatIf } from '@tidemark/planner'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { table } from './table.js'
import { wrap } from './wrap.js'

/** Before and after, disk by disk; then why, where it differs. */
export function whatIfToText(
  results: readonly WhatIf[],
  changes: readonly string[],
  colors: Colors,
  width: number,
): string {
  const domain = results[0]?.before.domain ?? ''
  const title = `Backups of ${printable(domain)}, if ${changes.map(printable).join(', then ')}`
  const parts = [`${colors.bold(title)}\n`]
  for (const { before, after } of results) {
    parts.push(`\n${colors.bold(`Since ${printable(before.incremental)}`)}\n`)
    if (after instanceof PlanError) {
      parts.push(wrap(`no backup any more: ${printable(after.message)}`, width, '  '))
      continue
    }
    const later = (target: string) => after.disks.find(disk => disk.target === target)
    const rows = before.disks.map(disk => [
      colors.bold(printable(disk.target)),
      state(disk, colors),
      '→',
      state(later(disk.target), colors),
    ])
    parts.push(table(rows, { head: ['DISK', 'NOW', '', 'THEN'], indent: 2 }))
    for (const disk of before.disks) parts.push(why(disk, later(disk.target), colors, width))
  }
  return parts.join('')
}

function state(disk: DiskPlan | undefined, colors: Colors): string {
  if (disk === undefined) return colors.dim('not there')
  const { mode, dirtyBytes, libvirt } = disk
  if (mode === 'incremental') {
    return colors.green(dirtyBytes === undefined ? mode : `${mode} (${formatSize(dirtyBytes)})`)
  }
  const trap = mode === 'full' && libvirt === 'accept' ? ', libvirt accepts' : ''
  return mode === 'full' ? colors.yellow(`full${trap}`) : colors.red(mode)
}

/** What decides then and did not before. */
function why(before: DiskPlan, after: DiskPlan | undefined, colors: Colors, width: number): string {
  const codes = new Set(before.reasons.filter(({ severity }) => severity !== 'note').map(({ code }) => code))
  const fresh = (after?.reasons ?? []).filter(({ severity, code }) => severity !== 'note' && !codes.has(code))
  return fresh
    .map(
      ({ code, message }) =>
        `  ${colors.bold(printable(before.target))} ${colors.yellow(code)}\n${wrap(printable(message), width - 4, '    ')}`,
    )
    .join('')
}
