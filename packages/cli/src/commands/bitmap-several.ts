import { resolve } from 'node:path'
import { editSeveral } from '../bitmap/edit-several.js'
import { type BitmapEditOptions, checkOpenOptions } from '../bitmap/options.js'
import { type PlanFile, parsePlanFile } from '../bitmap/plan-file.js'
import { journalOf } from '../bitmap/several.js'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Interruption } from '../interruption.js'
import type { Output } from '../output.js'
import { readInput } from '../read-input.js'
import { severalSummary, severalToJson, severalToText } from '../render/several.js'

const MOST_PLAN_BYTES = 64 * 1024 * 1024

export interface SeveralOptions extends BitmapEditOptions {
  readonly multi: string
  readonly journal?: string
}

/** `tidemark bitmap --multi`: changes the bitmaps of several images, all of them or none. */
export async function bitmapSeveral(
  names: readonly string[],
  options: SeveralOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  checkOptions(names, options)
  const dryRun = options.dryRun === true
  const plan = await readPlan(options.multi)
  const journal = options.journal === undefined ? journalOf(plan.images) : resolve(options.journal)
  const shown = await editSeveral(plan, journal, options, interruption, output)
  if (output.format === 'json') await output.json(severalToJson(shown, { dryRun, journal }))
  else if (dryRun) await output.write(severalToText(shown, journal, output.colors))
  else output.note(severalSummary(shown))
  return exitStatus.ok
}

function checkOptions(names: readonly string[], options: SeveralOptions): void {
  const { steps, multi, journal } = options
  if (names.length > 0) throw new UsageError('--multi PLAN names the images: give no FILE and no NAME')
  const single = [
    ...steps.map(({ action }) => `--${action}`),
    ...(options.granularity === undefined ? [] : ['-g']),
    ...(['b', 'F', 'f'] as const).filter(key => options[key] !== undefined).map(key => `-${key}`),
    ...(options.object === undefined ? [] : ['--object']),
    ...(options.imageOpts === undefined ? [] : ['--image-opts']),
  ]
  if (single.length > 0) throw new UsageError(`${single[0]} is for one image: with --multi the plan says it`)
  if (multi === '') throw new UsageError('the name of the plan is empty')
  if (journal === '') throw new UsageError('the name of the journal is empty')
  checkOpenOptions(options)
}

async function readPlan(file: string): Promise<PlanFile> {
  const what = file === '-' ? 'standard input' : file
  const bytes = await readInput(
    file,
    MOST_PLAN_BYTES,
    why => new CommandError('plan-unreadable', `cannot read the plan from ${what}: ${why}`, { file }),
  )
  return parsePlanFile(bytes, what)
}
