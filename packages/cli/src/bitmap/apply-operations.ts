import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { type OperationsPlan, operationsToEdits, operationsToSh, remaining } from '@tidemark/planner'
import { type EditPlan, editImages } from '@tidemark/qcow2'
import { createJournalFile, journalExists } from '@tidemark/qcow2/node'
import type { OperationOptions } from '../commands/plan-operations.js'
import { UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Interruption } from '../interruption.js'
import type { Output } from '../output.js'
import { severalSummary, severalToJson, severalToText } from '../render/several.js'
import type { PlanAction, PlanFile } from './plan-file.js'
import { journalBeside, openEdits } from './several.js'

/**
 * Changes the bitmaps of all the plan's images, or of none. The data stay where they are: what is left to do is told.
 *
 * @throws {PlanError} `plan-unknown` where a running domain holds an image; what the edit throws
 */
export async function applyOperations(
  plan: OperationsPlan,
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
  const [first] = file.images
  const left = leftToDo(plan)
  if (first === undefined) {
    if (output.format === 'json') await output.json({ images: [], remaining: left })
    else await output.write('No bitmap changes.\n')
    return exitStatus.ok
  }
  const journal = journalBeside(first.filename)
  if (existsSync(journal) && !dryRun) throw journalExists(journal)
  const signal = interruption.hold()
  const options = { dryRun, ...(unsafeNoLock === undefined ? {} : { unsafeNoLock }) }
  const { edits, close } = await openEdits(file, options, output)
  let plans: readonly EditPlan[]
  try {
    plans = await editImages(edits, {
      dryRun,
      signal,
      journal: () => createJournalFile(journal, { lock: unsafeNoLock ? 'none' : 'required' }),
    })
  } finally {
    await close()
  }
  if (signal.aborted && !dryRun) output.warn('the signal came too late: all of it is done')
  const shown = plans.map((each, i) => ({
    filename: file.images[i]!.filename,
    actions: file.images[i]!.actions,
    plan: each,
    resizable: edits[i]!.storage.resizable,
  }))
  if (output.format === 'json') {
    await output.json({ ...severalToJson(shown, { dryRun, journal }), remaining: left })
    return exitStatus.ok
  }
  if (dryRun) await output.write(severalToText(shown, journal, output.colors))
  else output.note(severalSummary(shown))
  if (left.length > 0) await output.write(`Left to do:\n${left.map(each => `  ${each}\n`).join('')}`)
  return exitStatus.ok
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

/** The data's commands, as in the script, and what is left by hand. */
function leftToDo(plan: OperationsPlan): string[] {
  const resolvePath = (path: string) => resolve(path)
  const commands = operationsToSh({ ...plan, operations: [], checkpoint: undefined }, { resolvePath })
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
  return [...commands, ...remaining(plan, resolvePath)]
}
