import { type BitmapEngine, createEngine } from '@tidemark/bitmap-wasm'
import { EDIT_ARENA_BYTES } from '../edit/bits.js'
import { Qcow2Error } from '../errors.js'
import type { Direction, JournalImage } from '../journal/content.js'
import { type EditJournal, type JournalContent, JournalWriter, readJournal } from '../journal/journal.js'
import type { ReadOptions } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'
import { decide, type Obstacles } from './decide.js'
import { type Found, type FoundState, foundState } from './found.js'
import { headerState } from './header-state.js'
import { newMustHold, oldMustHold } from './sound.js'
import { freeLeaks, takeAlong, unmark } from './walk.js'

export interface RecoverOptions extends ReadOptions {
  /**
   * Opens an image of the journal, and holds it. For a dry run it need not be writable.
   *
   * @throws {Qcow2Error} `image-missing` where there is none any more; anything else ends the recovery
   */
  readonly open: (filename: string) => Promise<WritableStorage>
  /** Tells what would be done, and does nothing (default false). */
  readonly dryRun?: boolean
}

export interface RecoveredImage {
  readonly filename: string
  readonly found: FoundState
  /** Clusters that were nobody's any more, and are free now. */
  readonly freed: number
  readonly clusterSize: number
  /** Why some may leak all the same (`qemu-img check -r leaks`). */
  readonly leaks: string | undefined
}

export interface Recovery {
  /** `nothing`: the edit had not begun to write. `back`: all have their old bitmaps; `forward`: the new ones. */
  readonly outcome: 'nothing' | Direction
  readonly images: readonly RecoveredImage[]
}

/**
 * Ends an edit of several images that was cut off: all of them get their new bitmaps, or all keep the old ones; then the
 * journal goes. What the journal says is not taken for true: an image is written to only where its own header is one
 * that this edit has made, as whole a switch as the edit itself would have written, and only if all that it then refers
 * to is there and sound; only clusters that nobody refers to are freed. It can be cut off, and begun again.
 *
 * @throws {Qcow2Error} `journal-invalid`; `recovery-impossible` where the images can go neither way together, with what
 *   each of them is in `details.images`; `image-locked`. Nothing was touched then. With `details.done` all is done, but
 *   the journal is still there
 */
export async function recoverImages(journal: EditJournal, options: RecoverOptions): Promise<Recovery> {
  const content = await readJournal(journal.storage)
  if (content.images === undefined) {
    if (!options.dryRun) await journal.remove()
    return { outcome: 'nothing', images: [] }
  }
  const engine = createEngine({ arenaBytes: EDIT_ARENA_BYTES })
  const found: Found[] = []
  try {
    await findAll(found, content, content.images, journal, options)
    const direction = await decide(found, content, journal.storage.name, each =>
      obstaclesOf(each, engine, options),
    )
    const images = await goAll(found, direction, content, journal, engine, options)
    if (!options.dryRun) await takeAway(journal, direction)
    return { outcome: direction, images }
  } finally {
    for (const { storage } of found) await storage?.close()
  }
}

async function takeAway(journal: EditJournal, outcome: Direction): Promise<void> {
  try {
    await journal.remove()
  } catch (error) {
    const { name } = journal.storage
    const done = outcome === 'forward' ? 'completed' : 'undone'
    throw new Qcow2Error(
      error instanceof Qcow2Error ? error.code : 'write-failed',
      `${(error as Error).message}; the edit is ${done} all the same: rm ${name}`,
      { journal: name, done: true, outcome },
      { cause: error },
    )
  }
}

async function findAll(
  found: Found[],
  content: JournalContent,
  images: readonly JournalImage[],
  journal: EditJournal,
  { open }: RecoverOptions,
): Promise<void> {
  for (const [i, entry] of images.entries()) {
    const storage = await opened(entry.filename, open)
    const digests = content.digests?.[i]
    found.push({ entry, digests, storage, state: { kind: 'foreign' } })
    if (storage === undefined) continue
    const same = found.find(
      other => other.storage !== storage && other.storage?.identity === storage.identity,
    )
    if (same !== undefined) {
      const message = `${journal.storage.name}: ${same.entry.filename} and ${entry.filename} are one and the same file`
      throw new Qcow2Error('journal-invalid', message, { journal: journal.storage.name })
    }
    found[i] = { ...found[i]!, state: await headerState(storage, entry) }
  }
}

async function opened(filename: string, open: RecoverOptions['open']): Promise<WritableStorage | undefined> {
  try {
    return await open(filename)
  } catch (error) {
    if (error instanceof Qcow2Error && error.code === 'image-missing') return undefined
    throw error
  }
}

/** Why an image cannot go forward, or back, if it is to be written to for that. */
async function obstaclesOf(
  { storage, state, entry, digests }: Found,
  engine: BitmapEngine,
  options: ReadOptions,
): Promise<Obstacles> {
  if (storage === undefined) return { forward: 'it is missing', back: 'it is missing' }
  if (state.kind === 'foreign') {
    const why = 'something else has written to it since, or it is another image'
    return { forward: why, back: why }
  }
  if (state.kind === 'old') return { forward: 'it has its old bitmaps, and may have been used since' }
  if (state.kind === 'new') return { back: 'it has its new bitmaps, and may have been used since' }
  const { states } = state.way
  const switched = state.step === states.length - 1
  const untouched = state.step === 0 && !state.torn
  const forward = switched
    ? undefined
    : digests === undefined
      ? 'the edit had not come so far'
      : await failure(newMustHold(storage, entry, digests, states.at(-1)!, engine, options))
  const back = untouched
    ? undefined
    : await failure(oldMustHold(storage, digests, states[0]!, engine, options))
  return { ...(forward && { forward }), ...(back && { back }) }
}

async function failure(check: Promise<void>): Promise<string | undefined> {
  try {
    await check
    return undefined
  } catch (error) {
    if (error instanceof Qcow2Error) return error.message
    throw error
  }
}

async function goAll(
  found: readonly Found[],
  direction: Direction,
  content: JournalContent,
  journal: EditJournal,
  engine: BitmapEngine,
  options: RecoverOptions,
): Promise<RecoveredImage[]> {
  if (!options.dryRun) {
    for (const each of found) await takeAlong(each, direction)
    // From here on it does not matter what anybody does to an image: all of them are where they are to be.
    // Where the journal has no room for that, recovery that is begun again finds the same out from the images.
    if (content.done === undefined) {
      await new JournalWriter(journal.storage, content.end).done(direction).catch(() => {})
    }
    for (const each of found) await unmark(each, direction)
  }
  const images: RecoveredImage[] = []
  for (const each of found) {
    const { filename, clusterSize } = each.entry
    const { freed, leaks } = await freeLeaks(each, direction, engine, options)
    images.push({ filename, found: foundState(each), freed, clusterSize, leaks })
  }
  return images
}
