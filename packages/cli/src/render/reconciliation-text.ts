import type { Finding, FindingSeverity, Reconciliation, Way } from '@tidemark/planner'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { wrap } from './wrap.js'

/** Findings of one code that are shown in full. */
const MOST_OF_A_KIND = 20

/** What was found, for people: the gravest first, each with its ways out; commands stand as they can be copied. */
export function reconciliationToText(
  { domain, running, findings }: Reconciliation,
  colors: Colors,
  width: number,
): string {
  const counts = new Map<string, number>()
  const blocks: string[] = []
  const hidden = new Map<string, number>()
  for (const finding of findings) {
    const count = (counts.get(finding.code) ?? 0) + 1
    counts.set(finding.code, count)
    if (count <= MOST_OF_A_KIND) blocks.push(findingText(finding, colors, width))
    else hidden.set(finding.code, (hidden.get(finding.code) ?? 0) + 1)
  }
  const more = [...hidden].map(([code, count]) => `${count} more of ${code}; --output json has all.\n`)
  const verdict = wrap(summary(findings, running), width, '', colors.bold)
  return [
    `${colors.bold(`Checkpoints, bitmaps and disks of ${printable(domain)}`)}\n`,
    ...blocks,
    ...(more.length > 0 ? ['\n', ...more] : []),
    '\n',
    verdict,
  ].join('')
}

function findingText(finding: Finding, colors: Colors, width: number): string {
  const { code, severity, message, cost, ways } = finding
  const tone: Record<FindingSeverity, (text: string) => string> = {
    error: colors.red,
    warning: colors.yellow,
    info: colors.dim,
  }
  const size =
    cost === undefined
      ? ''
      : colors.dim(`  ${formatSize(cost.bytes)} (${cost.clusters} cluster${cost.clusters === 1 ? '' : 's'})`)
  return [
    `\n${tone[severity](`${severity} ${code}`)}${size}\n`,
    wrap(printable(message), width - 2, '  '),
    ...ways.map((way, i) => wayText(way, i > 0, colors, width)),
  ].join('')
}

function wayText({ title, needs, commands }: Way, other: boolean, colors: Colors, width: number): string {
  const when = needs === 'off' ? ' (while the domain is off)' : needs === 'running' ? ' (while it runs)' : ''
  const head = wrap(`${other ? 'Or: ' : 'To mend: '}${printable(title)}${when}`, width - 2, '  ')
  // Not wrapped, and nothing in them that a terminal would show otherwise: they are there to be copied.
  return `${head}${commands.map(command => `    ${colors.cyan(command)}\n`).join('')}`
}

function summary(findings: readonly Finding[], running: boolean): string {
  const of = (severity: FindingSeverity) => findings.filter(each => each.severity === severity).length
  const [errors, warnings, infos] = [of('error'), of('warning'), of('info')]
  const parts = [
    ...(errors > 0 ? [`${errors} error${errors === 1 ? '' : 's'}`] : []),
    ...(warnings > 0 ? [`${warnings} warning${warnings === 1 ? '' : 's'}`] : []),
    ...(infos > 0 ? [`${infos} to know`] : []),
  ]
  const found = parts.length === 0 ? 'Nothing found' : parts.join(', ')
  if (running) return `${found}. The domain runs: what its bitmaps are like now cannot be told from here.`
  return errors + warnings === 0 ? `${found}: metadata, bitmaps and disks go together.` : `${found}.`
}
