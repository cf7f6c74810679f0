import type { OrphanBitmap, RebuiltCheckpoint, Sureness } from '@tidemark/planner'
import { isoTime } from '../checkpoint/time.js'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { table } from './table.js'
import { wrap } from './wrap.js'

/** Names in a sentence, at most. */
const MOST_NAMES = 12

/** What would be written, for people: parents first, how sure it is, and what it is known from. */
export function rebuiltToText(
  domain: string,
  checkpoints: readonly RebuiltCheckpoint[],
  left: readonly OrphanBitmap[],
  colors: Colors,
  width: number,
): string {
  const tone = { certain: colors.green, likely: colors.yellow, guess: colors.red } as const
  const rows = checkpoints.map(({ checkpoint, from, place, time, changed }) => [
    `${changed ? colors.cyan('+') : ' '} ${colors.bold(printable(checkpoint.name))}`,
    checkpoint.parent === undefined ? '-' : printable(checkpoint.parent),
    from,
    tone[place.sure](place.sure),
    isoTime(checkpoint.creationTime!),
    tone[time.sure](time.sure),
  ])
  const head = ['  NAME', 'PARENT', 'FROM', 'PLACE', 'CREATED (UTC)', 'TIME']
  const reasons = checkpoints
    .filter(({ from, changed }) => from === 'bitmaps' || changed)
    .map(each => wrap(`${printable(each.checkpoint.name)}: ${printable(evidence(each))}`, width - 2, '  '))
  const names = left.map(({ name }) => printable(name))
  const rest =
    names.length === 0
      ? []
      : [
          '\n',
          wrap(
            `Nothing is made of ${names.length} other bitmap${names.length === 1 ? '' : 's'} without metadata: ${names.slice(0, MOST_NAMES).join(', ')}${names.length > MOST_NAMES ? ', …' : ''}.`,
            width,
            '',
          ),
        ]
  return [
    `${colors.bold(`Checkpoints of ${printable(domain)} as they can be redefined`)}\n\n`,
    table(rows, { head }),
    checkpoints.some(({ changed }) => changed) ? colors.dim('+ libvirt does not know it, or not so\n') : '',
    ...(reasons.length > 0 ? ['\n', ...reasons] : []),
    ...rest,
    '\n',
    wrap('Nothing is written: -o DIR writes the files and prints the virsh commands.', width, ''),
  ].join('')
}

function evidence({ place, time }: RebuiltCheckpoint): string {
  return [...new Set([...place.evidence, ...time.evidence])].join('; ')
}

/** What is not certain of what was written, a sentence for each kind of doubt. */
export function doubts(checkpoints: readonly RebuiltCheckpoint[]): readonly string[] {
  const of = (sure: Sureness['sure'], what: 'place' | 'time') =>
    checkpoints.filter(each => each[what].sure === sure).map(({ checkpoint }) => checkpoint.name)
  const sentences: [readonly string[], string][] = [
    [of('guess', 'place'), 'the place among the others is a guess'],
    [of('likely', 'place'), 'the place among the others is likely, not certain'],
    [of('guess', 'time'), 'the time is invented: the earliest that can be'],
  ]
  return sentences
    .filter(([names]) => names.length > 0)
    .map(([names, what]) => {
      const shown = names.slice(0, MOST_NAMES).join(', ')
      return `${shown}${names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : ''}: ${what}`
    })
}
