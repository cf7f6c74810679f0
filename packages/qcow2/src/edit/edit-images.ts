import { createEngine } from '@tidemark/bitmap-wasm'
import { Qcow2Error } from '../errors.js'
import { inspectImage } from '../image/inspect.js'
import type { JournalDigests, JournalImage } from '../journal/content.js'
import { digestClusters, sha256 } from '../journal/digest.js'
import { type EditJournal, JournalWriter } from '../journal/journal.js'
import { type ReadOptions, readBytes } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'
import type { BitmapAction } from './actions.js'
import { EDIT_ARENA_BYTES } from './bits.js'
import { runsOf } from './cluster-runs.js'
import type { EditPlan } from './edit-plan.js'
import { type EditedImage, Execution } from './execute.js'
import { planEdit } from './plan.js'

/** An image, and what is to be done to its bitmaps. */
export interface ImageEdit {
  /** Held by the caller alone. */
  readonly storage: WritableStorage
  /** By which it is found again after a crash: absolute. */
  readonly filename: string
  readonly actions: readonly BitmapAction[]
}

export interface EditImagesOptions extends ReadOptions {
  /** Asked for when all is planned and something is to be written; closed in the end, whatever that is. */
  readonly journal: () => Promise<EditJournal>
  /** Plan only (default false). */
  readonly dryRun?: boolean
  /** Told before anything is written: a plan for each image. */
  readonly onPlan?: (plans: readonly EditPlan[]) => void
}

interface Prepared {
  readonly image: EditedImage
  readonly filename: string
  readonly plan: EditPlan
  readonly execution: Execution
}

/**
 * Edits the bitmaps of several images: all the actions on all of them, or none. What fails is undone, in every image;
 * what is cut off is ended by `recoverImages`, from the journal: see docs/durability.md. A signal counts until the edit
 * is decided.
 *
 * @returns what was done to each image, or would be
 * @throws {Qcow2Error} for what cannot be done, then nothing was: as `editBitmaps`; `image-repeated`. With
 *   `details.done` all was done but the last of it, with `details.unfinished` not even the undoing: then the journal is
 *   still there, for `recoverImages`
 *
 * @example
 * const edits = await Promise.all(['/vm/a.qcow2', '/vm/b.qcow2'].map(async filename => (
 *   { storage: await openWritableFile(filename), filename, actions: [{ action: 'add', name: 'monday' }] }
 * )))
 * await editImages(edits, { journal: () => createJournalFile('/vm/.journal') })
 */
export async function editImages(
  edits: readonly ImageEdit[],
  options: EditImagesOptions,
): Promise<EditPlan[]> {
  mustDiffer(edits)
  const engine = createEngine({ arenaBytes: EDIT_ARENA_BYTES })
  const all: Prepared[] = []
  for (const { storage, filename, actions } of edits) {
    const image = { ...(await inspectImage(storage, engine)), storage }
    const plan = await planEdit(image, actions, engine, { ...options, several: true })
    all.push({ image, filename, plan, execution: new Execution(image, plan, engine) })
  }
  const plans = all.map(({ plan }) => plan)
  mustNotReadEach(edits, plans)
  options.onPlan?.(plans)
  const changed = all.filter(({ plan }) => plan.steps.length > 0)
  if (options.dryRun !== true && changed.length > 0) {
    options.signal?.throwIfAborted()
    const journal = await options.journal()
    try {
      await carryOutAll(changed, journal, options)
    } finally {
      // All that counts of it lasts already. One that stays is for recovery, which holds it for itself.
      await journal.storage.close().catch(() => {})
    }
  }
  return plans
}

/** @throws {Qcow2Error} `image-repeated` */
function mustDiffer(edits: readonly ImageEdit[]): void {
  const seen = new Map<string, string>()
  for (const { storage, filename } of edits) {
    if (!filename.startsWith('/')) throw new TypeError(`${filename} is not absolute`)
    const before = seen.get(storage.identity)
    if (before !== undefined) {
      const message =
        before === filename
          ? `${filename} is there twice: give all its actions at once`
          : `${before} and ${filename} are one and the same image: give all its actions at once`
      throw new Qcow2Error('image-repeated', message, { image: filename, same: before })
    }
    seen.set(storage.identity, filename)
  }
}

/** What is merged would depend on which image comes first. @throws {Qcow2Error} `image-repeated` */
function mustNotReadEach(edits: readonly ImageEdit[], plans: readonly EditPlan[]): void {
  for (const [i, { sources }] of plans.entries()) {
    for (const { storage } of sources) {
      const edited = edits.find(edit => edit.storage.identity === storage.identity)
      if (edited === undefined) continue
      const { filename } = edits[i]!
      throw new Qcow2Error(
        'image-repeated',
        `${filename} merges a bitmap of ${edited.filename}, which is edited too: do one after the other`,
        { image: filename, source: edited.filename },
      )
    }
  }
}

async function carryOutAll(
  images: readonly Prepared[],
  journal: EditJournal,
  options: ReadOptions,
): Promise<void> {
  const writer = new JournalWriter(journal.storage)
  let begun: readonly Prepared[] = []
  try {
    await writer.begin(await Promise.all(images.map(entryOf)))
    for (const [i, { execution }] of images.entries()) {
      begun = images.slice(0, i + 1)
      await execution.prepare(options)
    }
    const digests: JournalDigests[] = []
    for (const each of images) digests.push(await digestsOf(each, options))
    options.signal?.throwIfAborted()
    await writer.commit(digests)
    for (const { execution } of images) await execution.switchOver()
  } catch (error) {
    let undone = true
    for (const { execution } of [...begun].reverse()) undone = (await execution.undo()) && undone
    if (!undone) throw unfinished(error, journal)
    await takeAway(journal, error)
    throw error
  }
  // Half of it may last even where it fails, so there is no way back from here; and without it recovery knows enough.
  await writer.done('forward').catch(() => {})
  try {
    for (const { execution } of images) await execution.release()
    await journal.remove()
  } catch (error) {
    throw doneAllTheSame(error, journal)
  }
}

async function entryOf({ image, filename, plan }: Prepared): Promise<JournalImage> {
  const { storage, clusterSize } = image
  const start = await readBytes(storage, 0, Math.min(clusterSize, storage.size))
  return {
    filename,
    clusterSize,
    start: start.subarray(0, start.findLastIndex(byte => byte !== 0) + 1),
    directory: plan.directory,
    taken: runsOf(plan.taken),
    released: runsOf(plan.released),
  }
}

async function digestsOf({ image, plan }: Prepared, options: ReadOptions): Promise<JournalDigests> {
  const { storage, clusterSize, bitmapDirectory } = image
  const extension = bitmapDirectory?.extension
  return {
    before:
      extension === undefined
        ? ''
        : await sha256(await readBytes(storage, extension.directoryOffset, extension.directorySize, options)),
    taken: await digestClusters(storage, clusterSize, runsOf(plan.taken), options),
  }
}

/** All images are as they were: a journal that stays does no harm but to stand in the way. */
async function takeAway(journal: EditJournal, error: unknown): Promise<void> {
  try {
    await journal.remove()
  } catch {
    throw unfinished(error, journal)
  }
}

function unfinished(error: unknown, { storage }: EditJournal): Qcow2Error {
  const { code, details } = error as Partial<Qcow2Error>
  return new Qcow2Error(
    error instanceof Qcow2Error ? error.code : 'write-failed',
    `${(error as Error).message}; and not all of it could be undone: tidemark recover ${storage.name}`,
    { ...(code === undefined ? {} : details), journal: storage.name, unfinished: true },
    { cause: error },
  )
}

function doneAllTheSame(error: unknown, { storage }: EditJournal): Qcow2Error {
  const { details } = error as Partial<Qcow2Error>
  return new Qcow2Error(
    error instanceof Qcow2Error ? error.code : 'write-failed',
    `${(error as Error).message}; the bitmaps of all images are changed all the same, and tidemark recover ` +
      `${storage.name} frees what is left of the old ones`,
    { ...details, journal: storage.name, done: true },
    { cause: error },
  )
}
