import { existsSync } from 'node:fs'
import { type EditPlan, editImages, type ImageEdit } from '@tidemark/qcow2'
import { createJournalFile, journalExists } from '@tidemark/qcow2/node'
import type { Interruption } from '../interruption.js'
import type { Output } from '../output.js'
import type { ShownImage } from '../render/several.js'
import type { EditOpenOptions } from './options.js'
import type { PlanFile } from './plan-file.js'
import { openEdits } from './several.js'

/**
 * Carries out a plan of edits, in all images or in none; for a dry run only plans it.
 *
 * @param journal absolute
 * @param check looks at the images once they are held
 * @returns what was done to each image, or would be
 * @throws {Qcow2Error} `journal-exists`; what `check`, and opening and editing the images throws
 */
export async function editSeveral(
  { images }: PlanFile,
  journal: string,
  options: EditOpenOptions,
  interruption: Interruption,
  output: Output,
  check: (edits: readonly ImageEdit[]) => Promise<void> = async () => {},
): Promise<ShownImage[]> {
  const dryRun = options.dryRun === true
  if (existsSync(journal)) {
    if (!dryRun) throw journalExists(journal)
    output.warn(`${journalExists(journal).message}; until then this is refused`)
  }
  const signal = interruption.hold()
  const { edits, close } = await openEdits({ images }, options, output)
  let plans: readonly EditPlan[]
  try {
    await check(edits)
    plans = await editImages(edits, {
      dryRun,
      signal,
      journal: () => createJournalFile(journal, { lock: options.unsafeNoLock ? 'none' : 'required' }),
    })
  } finally {
    await close()
  }
  if (signal.aborted && !dryRun) output.warn('the signal came too late: all of it is done')
  return plans.map((plan, i) => ({
    filename: images[i]!.filename,
    actions: images[i]!.actions,
    plan,
    resizable: edits[i]!.storage.resizable,
  }))
}
