import type { FoundState, Recovery } from '@tidemark/qcow2'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { table } from './table.js'

export interface ShownRecovery {
  readonly journal: string
  readonly dryRun: boolean
  readonly recovery: Recovery
}

const FOUND: Readonly<Record<FoundState, string>> = {
  old: 'as before the edit',
  prepared: 'prepared, not switched',
  switching: 'half switched',
  switched: 'switched',
  new: 'edited',
  changed: 'changed by others',
  missing: 'missing',
}

/** What was found, and what came of it. */
export function recoveryToText({ journal, dryRun, recovery }: ShownRecovery, colors: Colors): string {
  const { outcome, images } = recovery
  if (outcome === 'nothing') {
    const gone = dryRun ? 'would be removed' : 'is removed'
    return `The edit had not begun: nothing was written to any image. ${printable(journal)} ${gone}.\n`
  }
  const rows = images.map(({ filename, found, freed, clusterSize, leaks }) => [
    printable(filename),
    FOUND[found],
    nowText(found, outcome, colors),
    leaks === undefined
      ? freed === 0
        ? '–'
        : `${freed} (${formatSize(freed * clusterSize)})`
      : printable(`none: ${leaks}`),
  ])
  const but = images.some(({ found }) => isLeft(found, outcome)) ? ', but for those that were left alone' : ''
  const parts = [
    ...(dryRun ? ['dry run: nothing was written.\n'] : []),
    outcome === 'forward'
      ? `The edit ${dryRun ? 'would be' : 'is'} completed: all images have their new bitmaps${but}.\n\n`
      : `The edit ${dryRun ? 'would be' : 'is'} undone: all images have their bitmaps as before${but}.\n\n`,
    table(rows, { head: ['IMAGE', 'FOUND', dryRun ? 'WOULD BE' : 'NOW', 'CLUSTERS FREED'], indent: 2 }),
  ]
  if (images.some(({ leaks }) => leaks !== undefined)) {
    parts.push('\nWhat leaks is given back by: qemu-img check -r leaks FILE\n')
  }
  return parts.join('')
}

/** Old where all are new, or the other way round: it has gone on since, or was taken from a backup. */
function isLeft(found: FoundState, outcome: 'forward' | 'back'): boolean {
  return found === 'changed' || found === 'missing' || found === (outcome === 'forward' ? 'old' : 'new')
}

function nowText(found: FoundState, outcome: 'forward' | 'back', colors: Colors): string {
  if (isLeft(found, outcome)) return colors.yellow('left alone')
  return outcome === 'forward' ? colors.green('new bitmaps') : colors.green('old bitmaps')
}

export function recoveryToJson({ journal, dryRun, recovery }: ShownRecovery): Record<string, unknown> {
  const { outcome, images } = recovery
  return {
    journal,
    'dry-run': dryRun,
    outcome: { nothing: 'not-begun', back: 'rolled-back', forward: 'completed' }[outcome],
    images: images.map(({ filename, found, freed, clusterSize, leaks }) => ({
      filename,
      found,
      'freed-clusters': freed,
      'freed-bytes': freed * clusterSize,
      ...(leaks === undefined ? {} : { leaks }),
    })),
  }
}
