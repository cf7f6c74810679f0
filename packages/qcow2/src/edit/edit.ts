import { type BitmapEngine, createEngine } from '@tidemark/bitmap-wasm'
import { type ImageInspection, inspectImage } from '../image/inspect.js'
import type { ReadOptions } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'
import type { BitmapAction } from './actions.js'
import { EDIT_ARENA_BYTES } from './bits.js'
import type { EditPlan } from './edit-plan.js'
import { execute } from './execute.js'
import { planEdit } from './plan.js'

export interface EditOptions extends ReadOptions {
  /** Plan only (default false). */
  readonly dryRun?: boolean
  /** Told before anything is written. */
  readonly onPlan?: (plan: EditPlan) => void
}

/**
 * Edits the bitmaps of an image: all the actions, in order, or none of them. Whatever ends it, and when, the image has
 * its bitmaps as before or as they are to be, and leaked clusters at worst: see docs/durability.md.
 *
 * Bitmaps that do not change are not touched; none is ever marked in use.
 *
 * @param storage held by the caller alone
 * @returns what was done, or would be
 * @throws {Qcow2Error} for what cannot be done, then nothing was; `no-space`, `write-failed`
 *
 * @example
 * const storage = await openWritableFile('vm.qcow2')
 * await editBitmaps(storage, [{ action: 'add', name: 'monday' }, { action: 'disable', name: 'sunday' }])
 * await storage.close()
 */
export async function editBitmaps(
  storage: WritableStorage,
  actions: readonly BitmapAction[],
  options: EditOptions = {},
): Promise<EditPlan> {
  const engine: BitmapEngine = createEngine({ arenaBytes: EDIT_ARENA_BYTES })
  const inspection: ImageInspection = await inspectImage(storage, engine)
  const image = { ...inspection, storage }
  // Terms of this image's own bitmaps are recognised by it.
  const plan = await planEdit(image, actions, engine, options)
  options.onPlan?.(plan)
  if (options.dryRun !== true && plan.steps.length > 0) await execute(image, plan, engine, options)
  return plan
}
