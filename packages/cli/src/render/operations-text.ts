import { basename } from 'node:path'
import type { BitmapOperation, DataStep, OperationProblem, OperationsPlan } from '@tidemark/planner'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { table } from './table.js'
import { wrap } from './wrap.js'

/** What happens to the bitmaps, for people: a row for each bitmap of each image, in order; then what must be known. */
export function operationsToText(
  plan: OperationsPlan,
  remaining: readonly string[],
  colors: Colors,
  width: number,
): string {
  const parts = [`${colors.bold(titleOf(plan))}\n\n`]
  const rows = rowsOf(plan.operations, colors)
  parts.push(
    rows.length === 0
      ? '  No bitmap changes.\n'
      : table(rows, { head: ['DISK', 'LAYER', 'IMAGE', 'BITMAP', 'WHAT HAPPENS'], indent: 2 }),
  )
  const todo = [...plan.data.map(dataText), ...remaining]
  if (todo.length > 0) {
    parts.push(`\n${colors.bold('Besides')}\n`, ...todo.map(each => wrap(printable(each), width, '  ')))
  }
  parts.push(...problemBlocks(plan.problems, colors, width))
  const blocked = plan.problems.some(({ severity }) => severity === 'blocks')
  if (blocked) parts.push(`\n${colors.bold('So nothing of it can be done.')}\n`)
  else if (rows.length > 0) {
    const makesImage = plan.action === 'copy' || plan.action === 'snapshot'
    const hint = makesImage
      ? 'All bitmaps are made or none: --format sh prints the commands for a domain that is off, --format qmp those for a running QEMU.'
      : 'All of it happens or nothing: --apply does it while the domain is off, --format qmp or sh prints it.'
    parts.push(`\n${wrap(hint, width, '')}`)
  }
  return parts.join('')
}

function titleOf({ action, checkpoint, domain, disks, dialect }: OperationsPlan): string {
  const what = {
    delete: `Delete checkpoint ${checkpoint}`,
    commit: `Commit layers of ${disks.join(', ')}`,
    pull: `Pull layers of ${disks.join(', ')}`,
    copy: `Copy ${disks.join(', ')}`,
    snapshot: `External snapshot of ${disks.join(', ')}`,
  }[action]
  return printable(`${what}: domain ${domain}, ${dialect} bitmaps`)
}

/** An add and the merge after it are one row. */
function rowsOf(operations: readonly BitmapOperation[], colors: Colors): string[][] {
  const rows: string[][] = []
  let before: BitmapOperation | undefined
  for (const operation of operations) {
    const { disk, layer, filename, bitmap } = operation
    const text = whatHappens(operation, colors)
    const same = before?.disk === disk && before.layer === layer && before.bitmap === bitmap
    if (same && before?.kind === 'add' && operation.kind === 'merge') rows.at(-1)![4] += `, ${text}`
    else {
      const place = [disk, String(layer), basename(filename), bitmap].map(printable)
      rows.push([colors.bold(place[0]!), ...place.slice(1), text])
    }
    before = operation
  }
  return rows
}

function whatHappens(operation: BitmapOperation, colors: Colors): string {
  switch (operation.kind) {
    case 'add': {
      const state = operation.disabled ? 'disabled' : 'recording'
      return `${colors.green('added')}, ${state} (${formatSize(operation.granularity)})`
    }
    case 'merge': {
      const layers = operation.sources.map(({ layer }) => layer)
      const own = layers.every(layer => layer === operation.layer)
      const other = operation.sources.find(({ bitmap }) => bitmap !== operation.bitmap)?.bitmap
      if (own) return other === undefined ? 'stays as it is' : printable(`gets the marks of ${other}`)
      return printable(`merged from layer${layers.length === 1 ? '' : 's'} ${layers.join(', ')}`)
    }
    case 'remove':
      return colors.yellow('removed')
    case 'enable':
      return colors.green('records again')
    case 'disable':
      return colors.yellow('disabled')
  }
}

function dataText(step: DataStep): string {
  const name = ({ filename }: { filename: string }) => basename(filename)
  switch (step.kind) {
    case 'commit': {
      const [first, last] = [Number(step.top.layer), Number(step.base.layer) - 1]
      const what = first === last ? `layer ${first} goes` : `layers ${first} to ${last} go`
      return `data: ${what} into ${name(step.base)} (qemu-img commit; --format sh has the command)`
    }
    case 'pull':
      return step.base === undefined
        ? `data: everything below goes into ${name(step.top)} (qemu-img rebase; --format sh has the command)`
        : `data: what lies between goes into ${name(step.top)}, onto ${name(step.base)} (qemu-img rebase; --format sh has the command)`
    case 'copy':
      return `data: ${name(step.top)} is copied to ${step.target.filename} (qemu-img convert; --format sh has the command)`
    case 'snapshot':
      return `data: ${step.overlay.filename} is made over ${name(step.top)} (qemu-img create; --format sh has the command)`
  }
}

const TITLES: Record<OperationProblem['severity'], string> = {
  blocks: 'Why not',
  unknown: 'What cannot be told',
  note: 'Beware',
}

function problemBlocks(problems: readonly OperationProblem[], colors: Colors, width: number): string[] {
  const paint = { blocks: colors.red, unknown: colors.red, note: colors.yellow }
  return (['blocks', 'unknown', 'note'] as const).flatMap(severity => {
    const own = problems.filter(problem => problem.severity === severity)
    if (own.length === 0) return []
    const lines = own.map(
      ({ code, message }) => `  ${paint[severity](code)}\n${wrap(printable(message), width - 4, '    ')}`,
    )
    return [`\n${colors.bold(TITLES[severity])}\n`, ...lines]
  })
}
