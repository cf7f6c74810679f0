import { existsSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { BitmapAction, ImageEdit, ImageInspection, WritableStorage } from '@tidemark/qcow2'
import { CommandError } from '../errors.js'
import type { Output } from '../output.js'
import { identityOf, statOf } from './identity.js'
import { openSource, openTarget } from './images.js'
import { lastingName } from './lasting-name.js'
import type { EditOpenOptions } from './options.js'
import type { PlanFile, PlanImage } from './plan-file.js'

/** The images of a plan, open and held, and what is to be done to each. */
export interface OpenEdits {
  readonly edits: readonly ImageEdit[]
  close(): Promise<void>
}

/**
 * Opens all of them, in an order that is the same for everybody, so that of two such calls one gets them all.
 *
 * @throws {CommandError} `image-repeated`, `image-unnamed`; whatever opening an image throws. None is open then
 */
export async function openEdits(
  plan: PlanFile,
  options: EditOpenOptions,
  output: Output,
): Promise<OpenEdits> {
  const identities = new Map<string, string>()
  for (const { filename } of plan.images) {
    const identity = identityOf(filename)
    const before = identity === undefined ? undefined : identities.get(identity)
    if (before !== undefined)
      throw repeated(
        `${before} and ${filename} are one and the same image: give all its actions at once`,
        filename,
      )
    if (identity !== undefined) identities.set(identity, filename)
  }
  const targets = new Map<PlanImage, WritableStorage>()
  const sources = new Map<string, ImageInspection>()
  const close = async (): Promise<void> => {
    for (const { storage } of sources.values()) await storage.close()
    for (const storage of targets.values()) await storage.close()
  }
  try {
    for (const image of inOrderOfAll(plan.images))
      targets.set(image, await openTarget(image.filename, options, output))
    const edits: ImageEdit[] = []
    for (const image of plan.images) {
      const storage = targets.get(image)!
      const filename = lastingName(image.filename)
      if (filename === undefined) throw unnamed(image.filename)
      edits.push({ storage, filename, actions: await actionsOf(image, storage) })
    }
    return { edits, close }
  } catch (error) {
    await close()
    throw error
  }

  async function actionsOf(
    { filename, actions }: PlanImage,
    target: WritableStorage,
  ): Promise<BitmapAction[]> {
    const done: BitmapAction[] = []
    for (const action of actions) {
      if (action.action !== 'merge') {
        done.push(action)
        continue
      }
      const { from, ...merge } = action
      const image = from === undefined ? undefined : await sourceOf(from, filename, target)
      done.push({ ...merge, ...(image === undefined ? {} : { image }) })
    }
    return done
  }

  /** Undefined: the target itself. Each is opened once, whoever merges from it. */
  async function sourceOf(
    from: string,
    filename: string,
    target: WritableStorage,
  ): Promise<ImageInspection | undefined> {
    const identity = identityOf(from)
    const edited = identity === undefined ? undefined : identities.get(identity)
    if (edited !== undefined && edited !== filename) {
      throw repeated(
        `${filename} merges a bitmap of ${from}, which is edited too: do one after the other`,
        filename,
      )
    }
    const before = identity === undefined ? undefined : sources.get(identity)
    if (before !== undefined) return before
    const image = await openSource(from, target, options, output)
    if (image !== undefined) sources.set(image.storage.identity, image)
    return image
  }
}

/** By what they are, not by their names: the same for who calls them otherwise. */
function inOrderOfAll(images: readonly PlanImage[]): readonly PlanImage[] {
  const keyed = images.map(image => ({ image, key: identityOf(image.filename) ?? '' }))
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ image }) => image)
}

/**
 * Where the journal is unless the call says it: beside the first image, but for those in /dev, which is empty after a
 * crash.
 *
 * @throws {CommandError} `journal-place-needed`
 */
export function journalOf(images: readonly PlanImage[]): string {
  const first = images.find(({ filename }) => {
    const device = statOf(filename)?.isBlockDevice() === true
    return !(device && resolve(filename).startsWith('/dev/'))
  })
  if (first !== undefined) return journalBeside(first.filename)
  throw new CommandError(
    'journal-place-needed',
    'the images are devices, and what is noted in /dev is gone after a crash: ' +
      'say where the journal is to be (tidemark bitmap --multi PLAN --journal FILE)',
    { images: images.map(({ filename }) => filename) },
  )
}

/** Beside an image, hidden. */
export function journalBeside(filename: string): string {
  const name = lastingName(filename) ?? resolve(filename)
  return join(dirname(name), `.${basename(name)}.tidemark-journal`)
}

export function hasJournal(filename: string): boolean {
  return existsSync(journalBeside(filename))
}

function repeated(why: string, image: string): CommandError {
  return new CommandError('image-repeated', why, { image })
}

function unnamed(image: string): CommandError {
  return new CommandError(
    'image-unnamed',
    `${image} has no name by which it would be found after a crash (the file was removed, or is of another mount namespace)`,
    { image },
  )
}
