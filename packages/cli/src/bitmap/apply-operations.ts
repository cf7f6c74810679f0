import { resolve } from 'node:path'
import { type BackupFacts, type OperationsPlan, operationsToEdits } from '@tidemark/planner'
import type { OperationOptions } from '../commands/plan-operations.js'
import { UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Interruption } from '../interruption.js'
import type { Output } from '../output.js'
import type { Afterwards } from '../plan/afterwards.js'
import { mustBeAsPlanned } from '../plan/as-planned.js'
import { printable } from '../printable.js'
import { severalSummary, severalToJson, severalToText } from '../render/several.js'
import { editSeveral } from './edit-several.js'
import type { PlanAction, PlanFile } from './plan-file.js'
import { journalOf } from './several.js'

/**
 * Changes the bitmaps of all the plan's images, or of none. The data stay where they are: what is left to do is told.
 *
 * @param facts that the plan was made of
 * @throws {PlanError} `plan-unknown` where a running domain holds an image
 * @throws {CommandError} `changed-meanwhile` where an image has other bitmaps by now; what the edit throws
 */
export async function applyOperations(
  plan: OperationsPlan,
  facts: Pick<BackupFacts, 'chains'>,
  { leftToDo: left }: Pick<Afterwards, 'leftToDo'>,
  { dryRun = false, unsafeNoLock }: OperationOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  if (plan.action === 'copy' || plan.action === 'snapshot') {
    throw new UsageError(
      `--apply changes bitmaps of images that are there: a ${plan.action} makes one, which --format sh does (… --format sh | sh -e)`,
    )
  }
  const file = planFile(plan)
  if (file.images.length === 0) {
    if (output.format === 'json') await output.json({ images: [], remaining: left })
    else await output.write(`No bitmap changes.\n${leftText(left)}`)
    return exitStatus.ok
  }
  const journal = journalOf(file.images)
  const options = { dryRun, ...(unsafeNoLock === undefined ? {} : { unsafeNoLock }) }
  const shown = await editSeveral(file, journal, options, interruption, output, edits =>
    mustBeAsPlanned(edits, facts),
  )
  if (output.format === 'json') {
    await output.json({ ...severalToJson(shown, { dryRun, journal }), remaining: left })
    return exitStatus.ok
  }
  if (dryRun) await output.write(severalToText(shown, journal, output.colors))
  else output.note(severalSummary(shown))
  await output.write(leftText(left))
  return exitStatus.ok
}

function leftText(left: readonly string[]): string {
  return left.length === 0 ? '' : `Left to do:\n${left.map(each => `  ${printable(each)}\n`).join('')}`
}

function planFile(plan: OperationsPlan): PlanFile {
  const images = operationsToEdits(plan).map(({ filename, actions }) => ({
    filename: resolve(filename),
    actions: actions.map((action): PlanAction => {
      if (action.action !== 'merge') return action
      const { sourceFilename, ...rest } = action
      return sourceFilename === undefined ? rest : { ...rest, from: resolve(sourceFilename) }
    }),
  }))
  return { images }
}
