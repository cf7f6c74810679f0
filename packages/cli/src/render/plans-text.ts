import type { BackupPlan, Reason } from '@tidemark/planner'
import type { Colors } from '../output.js'
import type { ManyPlans } from '../plan/plan-many.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { table } from './table.js'
import { wrap } from './wrap.js'

/** Many domains' plans, a line each: how many disks are what, how much there is to copy, and the worst reason. */
export function plansToText(
  { plans, errors }: ManyPlans,
  since: string,
  colors: Colors,
  width: number,
): string {
  const rows = plans.map(({ plan }) => row(plan, colors))
  const head = ['DOMAIN', 'DISKS', 'INCREMENTAL', 'FULL', 'UNKNOWN', 'TO COPY', 'WORST REASON']
  const all = plans.flatMap(({ plan }) => plan.disks)
  const count = (mode: string) => all.filter(disk => disk.mode === mode).length
  const sentence =
    `${plans.length} of ${plans.length + errors.length} domains planned: ${all.length} disks, ` +
    `${count('incremental')} incremental, ${count('full')} full, ${count('unknown')} unknown.`
  return [
    `${colors.bold(`Backups since checkpoint ${printable(since)}`)}\n\n`,
    plans.length === 0 ? '' : `${table(rows, { head, right: [1, 2, 3, 4, 5], indent: 2 })}\n`,
    ...errors.map(
      ({ domain, code, message }) =>
        `${colors.red(`${printable(domain)}: ${code}`)}\n${wrap(printable(message), width - 4, '    ')}`,
    ),
    errors.length === 0 ? '' : '\n',
    wrap(sentence, width, '', colors.bold),
  ].join('')
}

function row({ domain, disks }: BackupPlan, colors: Colors): string[] {
  const of = (wanted: string) => disks.filter(({ mode }) => mode === wanted)
  const [done, full, unknown] = [of('incremental'), of('full'), of('unknown')]
  const sizes = [
    ...done.map(({ dirtyBytes }) => dirtyBytes),
    ...full.map(({ virtualSize }) => virtualSize),
    ...unknown.map(() => undefined),
  ]
  const known = sizes.every(size => size !== undefined)
  const copied = known ? formatSize(sizes.reduce((sum, size) => sum + size, 0)) : '?'
  const worst = worstReason(disks.flatMap(({ reasons }) => reasons))
  const paint = { blocks: colors.yellow, unknown: colors.red, note: colors.dim }
  return [
    colors.bold(printable(domain)),
    String(disks.length),
    done.length === 0 ? '0' : colors.green(String(done.length)),
    full.length === 0 ? '0' : colors.yellow(String(full.length)),
    unknown.length === 0 ? '0' : colors.red(String(unknown.length)),
    copied,
    worst === undefined ? '' : paint[worst.severity](worst.code),
  ]
}

/** What cannot be told is worse than what must be copied whole; of equals the first. */
function worstReason(reasons: readonly Reason[]): Reason | undefined {
  const find = (wanted: string) => reasons.find(({ severity }) => severity === wanted)
  return find('unknown') ?? find('blocks') ?? find('note')
}
