import { type BitmapAction, type EditPlan, editBitmaps, type ImageInspection } from '@tidemark/qcow2'
import { journalExists } from '@tidemark/qcow2/node'
import { openSource, openTarget } from '../bitmap/images.js'
import { type BitmapEditOptions, type BitmapStep, checkBitmapOptions } from '../bitmap/options.js'
import { hasJournal, journalBeside } from '../bitmap/several.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Interruption } from '../interruption.js'
import type { Output } from '../output.js'
import { editSummary, editToJson } from '../render/edit.js'
import { planToText } from '../render/edit-plan-text.js'

/** `tidemark bitmap`: changes the bitmaps of an image, by all the actions or by none. */
export async function bitmap(
  file: string,
  name: string,
  options: BitmapEditOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  checkBitmapOptions(file, name, options)
  const dryRun = options.dryRun === true
  if (hasJournal(file)) {
    const unfinished = journalExists(journalBeside(file))
    if (!dryRun) throw unfinished
    output.warn(unfinished.message)
  }
  const signal = interruption.hold()
  const target = await openTarget(file, options, output)
  let source: ImageInspection | undefined
  let plan: EditPlan
  try {
    if (options.b !== undefined) source = await openSource(options.b, target, options, output)
    const actions = options.steps.map(step => actionOf(step, name, options, source))
    signal.throwIfAborted()
    plan = await editBitmaps(target, actions, { dryRun, signal })
  } finally {
    await source?.storage.close()
    await target.close()
  }
  if (signal.aborted && !dryRun) output.warn('the signal came too late: all of it is done')
  const edit = { filename: file, name, options, plan, resizable: target.resizable }
  if (output.format === 'json') await output.json(editToJson(edit))
  else if (dryRun) await output.write(planToText({ ...edit, summary: editSummary(edit) }, output.colors))
  else output.note(editSummary(edit))
  return exitStatus.ok
}

/** Each action is on the bitmap that has the name by then. */
function actionOf(
  step: BitmapStep,
  name: string,
  { granularity }: BitmapEditOptions,
  image: ImageInspection | undefined,
): BitmapAction {
  switch (step.action) {
    case 'add':
      return { action: 'add', name, ...(granularity ? { granularity } : {}) }
    case 'merge':
      return { ...step, name, ...(image === undefined ? {} : { image }) }
    default:
      return { ...step, name }
  }
}
