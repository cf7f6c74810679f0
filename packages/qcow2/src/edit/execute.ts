import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import { Refcounts } from '../check/refcounts.js'
import { Qcow2Error } from '../errors.js'
import { type ImageInspection, inspectImage } from '../image/inspect.js'
import { type ReadOptions, readBytes } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'
import { changedMeanwhile, clusterContents, fate } from './bits.js'
import type { EditPlan, EditStep, EditWrite } from './edit-plan.js'
import { putRefcount } from './refcount-plan.js'
import { Undo } from './undo.js'

const SECTOR = 512

/**
 * Carries a plan out: each step's writes, then a flush. A failure before old clusters are released puts everything
 * back as it was; after it, the edit is done but for them, which then leak.
 *
 * @throws {Qcow2Error} `no-space`, `write-failed`, whatever reading throws; with `details.done` where only the release
 *   failed
 */
export async function execute(
  image: EditedImage,
  plan: EditPlan,
  engine: BitmapEngine,
  options: ReadOptions = {},
): Promise<void> {
  const edit = new Execution(image, plan, engine)
  try {
    await edit.prepare(options)
    await edit.switchOver()
  } catch (error) {
    await edit.undo()
    throw error
  }
  try {
    await edit.release()
  } catch (error) {
    throw doneAllTheSame(error)
  }
}

/** An image that is held for writing. */
export type EditedImage = ImageInspection & { readonly storage: WritableStorage }

/** When a step is carried out: several images are all prepared before the first is switched, and so on. */
const PHASES: Readonly<Record<EditStep['name'], 'prepare' | 'switch' | 'release'>> = {
  clusters: 'prepare',
  'refcount table': 'prepare',
  mark: 'prepare',
  header: 'switch',
  unmark: 'release',
  release: 'release',
}

/** One image's plan on its way, phase by phase. What a phase throws is for the caller: until the release it can be undone. */
export class Execution {
  readonly #image: EditedImage
  readonly #plan: EditPlan
  readonly #engine: BitmapEngine
  readonly #undo: Undo

  constructor(image: EditedImage, plan: EditPlan, engine: BitmapEngine) {
    this.#image = image
    this.#plan = plan
    this.#engine = engine
    this.#undo = new Undo(image.storage)
  }

  /** All that is new is on the disk, and the image has its old bitmaps. */
  async prepare(options: ReadOptions = {}): Promise<void> {
    await this.#phase('prepare', options)
    await mustBeUnchanged(this.#plan)
    options.signal?.throwIfAborted()
  }

  /** The image has its new bitmaps. Half of a header's steps are no state to stop in: no signal ends it. */
  async switchOver(): Promise<void> {
    await this.#phase('switch', {})
  }

  /** What nobody refers to any more is free. Cannot be undone. */
  async release(): Promise<void> {
    await this.#phase('release', {})
    await discard(this.#image, this.#plan.released)
  }

  /** @returns false where the disk did not take what was to be put back */
  async undo(): Promise<boolean> {
    return this.#undo.all()
  }

  async #phase(phase: (typeof PHASES)[EditStep['name']], options: ReadOptions): Promise<void> {
    for (const { name, writes } of this.#plan.steps) {
      if (PHASES[name] !== phase) continue
      options.signal?.throwIfAborted()
      for (const write of writes) await carryOut(this.#image, write, name, this.#engine, this.#undo, options)
      await this.#image.storage.flush()
      this.#undo.barrier()
    }
  }
}

/** Bitmaps of other images are read without their lock: who opened one meanwhile has written its directory anew. */
async function mustBeUnchanged(plan: EditPlan): Promise<void> {
  for (const image of plan.sources) {
    if (fingerprint(await inspectImage(image.storage)) !== fingerprint(image)) {
      throw changedMeanwhile(image, 'a bitmap of another image')
    }
  }
}

function fingerprint({ header, bitmapDirectory }: ImageInspection): string {
  const { extension, bitmaps = [] } = bitmapDirectory ?? {}
  const entries = bitmaps.map(({ name, flags, tableOffset, tableSize }) => [
    name,
    flags,
    tableOffset,
    tableSize,
  ])
  return JSON.stringify([String(header.autoclearFeatures), extension, entries])
}

function doneAllTheSame(error: unknown): unknown {
  if (!(error instanceof Qcow2Error)) return error
  const message = `${error.message}; the bitmaps are changed all the same, and old clusters leak (qemu-img check -r leaks)`
  return new Qcow2Error(error.code, message, { ...error.details, done: true }, { cause: error })
}

/** Neighbours at once. The file may end within its last cluster. */
export async function discard(
  { storage, clusterSize }: EditedImage,
  clusters: readonly number[],
): Promise<void> {
  for (let i = 0; i < clusters.length; ) {
    const first = clusters[i++]!
    let end = first + 1
    while (clusters[i] === end) {
      end++
      i++
    }
    const offset = first * clusterSize
    const length = Math.min(end * clusterSize, storage.size) - offset
    if (length > 0) await storage.discard(offset, length)
  }
}

async function carryOut(
  image: EditedImage,
  write: EditWrite,
  step: EditStep['name'],
  engine: BitmapEngine,
  undo: Undo,
  options: ReadOptions,
): Promise<void> {
  const { storage } = image
  switch (write.kind) {
    case 'grow':
      return storage.resize(write.bytes)
    case 'bytes': {
      const bytes = filledUp(write.bytes, write.length)
      await undo.keep(write.offset, bytes.byteLength, step === 'clusters')
      return storage.writeFrom(bytes, write.offset)
    }
    case 'bits':
      return writeBits(image, write, engine, undo, options)
    case 'refcounts':
      return writeRefcounts(image, write.clusters, write.value, undo)
  }
}

function filledUp(bytes: Uint8Array, length = bytes.byteLength): Uint8Array {
  if (length === bytes.byteLength) return bytes
  const whole = new Uint8Array(length)
  whole.set(bytes)
  return whole
}

async function writeBits(
  image: EditedImage,
  { bitmap, plan, offsets }: EditWrite & { kind: 'bits' },
  engine: BitmapEngine,
  undo: Undo,
  options: ReadOptions,
): Promise<void> {
  const seen = new Uint8Array(plan.fates.length)
  let next = 0
  for await (const { index, content } of clusterContents(image, engine, bitmap, options)) {
    seen[index] = 1
    if (plan.fates[index] === fate.kept) continue
    // What was all clear when the plan was made, and no longer is, has no place.
    if (plan.fates[index] !== fate.written) throw changedMeanwhile(image, bitmap.name)
    const offset = offsets[next++]!
    await undo.keep(offset, content.byteLength, true)
    await image.storage.writeFrom(content, offset)
  }
  if (plan.fates.some((each, i) => (each === fate.zeros) === (seen[i] === 1))) {
    throw changedMeanwhile(image, bitmap.name)
  }
}

/** Whole sectors, as they are but for these entries. */
export async function writeRefcounts(
  image: EditedImage,
  clusters: readonly number[],
  value: 0 | 1,
  undo?: Undo,
): Promise<void> {
  const { storage, header } = image
  const refcounts = await Refcounts.open(await refreshed(image))
  const bits = 2 ** header.refcountOrder
  const perSector = (SECTOR * 8) / bits
  for (let i = 0; i < clusters.length; ) {
    const block = Math.floor(clusters[i]! / refcounts.clustersPerBlock)
    const inBlock = clusters[i]! % refcounts.clustersPerBlock
    const sector = Math.floor(inBlock / perSector)
    const first = block * refcounts.clustersPerBlock + sector * perSector
    const offset = refcounts.blockOffset(block) + sector * SECTOR
    const bytes = await readBytes(storage, offset, SECTOR)
    for (; i < clusters.length && clusters[i]! < first + perSector; i++) {
      putRefcount(bytes, clusters[i]! - first, header.refcountOrder, value)
    }
    await undo?.keep(offset, SECTOR, false)
    await storage.writeFrom(bytes, offset)
  }
}

/** The refcount table may have moved: its place is read again. */
async function refreshed(image: ImageInspection): Promise<ImageInspection> {
  const bytes = await readBytes(image.storage, 48, 12)
  const view = new DataView(bytes.buffer)
  const refcountTableOffset = (view.getUint32(0) * 2 ** 32 +
    view.getUint32(4)) as typeof image.header.refcountTableOffset
  const header = { ...image.header, refcountTableOffset, refcountTableClusters: view.getUint32(8) }
  return { ...image, header }
}
