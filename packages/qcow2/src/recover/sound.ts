import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import { Refcounts } from '../check/refcounts.js'
import { mapReferences, type ReferenceMap } from '../check/references.js'
import { dataClusters } from '../edit/bitmap-clusters.js'
import { clustersOf } from '../edit/cluster-runs.js'
import { mustBeEditable } from '../edit/editable.js'
import { mustBeOurs } from '../edit/refcount-plan.js'
import { unmarked } from '../edit/switch-states.js'
import { Qcow2Error } from '../errors.js'
import { type ImageInspection, inspectImage } from '../image/inspect.js'
import type { JournalDigests, JournalImage } from '../journal/content.js'
import { digestClusters, sha256 } from '../journal/digest.js'
import { overlaid } from '../storage/overlaid.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'

interface SoundImage {
  readonly image: ImageInspection
  readonly references: ReferenceMap
  readonly refcounts: Refcounts
}

/**
 * An image as it would be with this first cluster, but for the mark: one that tidemark would edit, all of whose
 * references can be.
 *
 * @throws {Qcow2Error} where it would not be
 */
async function soundWith(
  storage: ImageStorage,
  cluster0: Uint8Array,
  engine: BitmapEngine,
  options: ReadOptions,
): Promise<SoundImage> {
  const image = await inspectImage(overlaid(storage, unmarked(cluster0)), engine)
  mustBeEditable(image)
  const references = await mapReferences(image, engine, options)
  return { image, references, refcounts: await Refcounts.open(image, options) }
}

/** @throws {Qcow2Error} unless its bitmaps would be sound, and all they consist of is counted as theirs alone */
async function bitmapsMustHold(sound: SoundImage, options: ReadOptions): Promise<void> {
  const { image, references, refcounts } = sound
  const { storage, clusterSize, bitmapDirectory } = image
  if (bitmapDirectory === undefined) return
  const clusters: number[] = []
  const add = (offset: number, bytes: number): void => {
    for (let at = offset; at < offset + bytes; at += clusterSize) clusters.push(at / clusterSize)
  }
  const { extension, bitmaps } = bitmapDirectory
  add(extension.directoryOffset, extension.directorySize)
  for (const bitmap of bitmaps) {
    if (references.doubtful.has(bitmap)) continue
    add(bitmap.tableOffset, bitmap.tableSize * 8)
    for await (const { offset } of dataClusters(storage, bitmap, options)) add(offset, 1)
  }
  await mustBeOurs(image, refcounts, clusters, options)
}

/** @throws {Qcow2Error} unless all that was prepared is there, as it was, and makes a sound image with this header */
export async function newMustHold(
  storage: ImageStorage,
  entry: JournalImage,
  digests: JournalDigests,
  cluster0: Uint8Array,
  engine: BitmapEngine,
  options: ReadOptions,
): Promise<void> {
  const { clusterSize, taken } = entry
  const gone = new Qcow2Error(
    'read-failed',
    `${storage.name}: what was prepared for the new bitmaps is not there any more, or not as it was`,
    { image: storage.name },
  )
  const last = taken.at(-1)
  if (last !== undefined && (last.first + last.count) * clusterSize > storage.size) throw gone
  const sound = await soundWith(storage, cluster0, engine, options)
  for (const cluster of clustersOf(taken, sound.references.clusters)) {
    if (!sound.references.used.has(cluster)) throw gone
    if ((await sound.refcounts.get(cluster, options)) !== 1) throw gone
  }
  await bitmapsMustHold(sound, options)
  if ((await digestClusters(storage, clusterSize, taken, options)) !== digests.taken) throw gone
}

/** @throws {Qcow2Error} unless the old bitmaps are there, and make a sound image with this header */
export async function oldMustHold(
  storage: ImageStorage,
  digests: JournalDigests | undefined,
  cluster0: Uint8Array,
  engine: BitmapEngine,
  options: ReadOptions,
): Promise<void> {
  const sound = await soundWith(storage, cluster0, engine, options)
  await bitmapsMustHold(sound, options)
  const extension = sound.image.bitmapDirectory?.extension
  if (extension === undefined || digests === undefined) return
  const { directoryOffset, directorySize } = extension
  const directory = await readBytes(storage, directoryOffset, directorySize, options)
  if ((await sha256(directory)) === digests.before) return
  throw new Qcow2Error('read-failed', `${storage.name}: its old bitmap directory is not as it was`, {
    image: storage.name,
  })
}

/**
 * Clusters that the edit took or was to give back, which are counted, and nobody's, with this header. As `qemu-img
 * check -r leaks` finds them, but only among those.
 *
 * @throws {Qcow2Error} for an image of which that cannot be told
 */
export async function leaksOf(
  storage: ImageStorage,
  { taken, released }: JournalImage,
  cluster0: Uint8Array,
  engine: BitmapEngine,
  options: ReadOptions,
): Promise<number[]> {
  const { image, references, refcounts } = await soundWith(storage, cluster0, engine, options)
  if (references.doubtful.size > 0) {
    throw new Qcow2Error('cannot-edit', `${storage.name}: a bitmap in use has a damaged table`, {
      image: image.storage.name,
    })
  }
  const leaks = new Set<number>()
  for (const runs of [taken, released]) {
    for (const cluster of clustersOf(runs, references.clusters)) {
      if (references.used.has(cluster)) continue
      if ((await refcounts.get(cluster, options)) === 1) leaks.add(cluster)
    }
  }
  return [...leaks].sort((a, b) => a - b)
}
