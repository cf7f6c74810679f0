import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import { Refcounts } from '../check/refcounts.js'
import { Qcow2Error } from '../errors.js'
import { type ImageInspection, inspectImage } from '../image/inspect.js'
import { type ReadOptions, readBytes } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'
import { changedMeanwhile, clusterContents, fate } from './bits.js'
import type { EditPlan, EditStep, EditWrite } from './plan.js'
import { putRefcount } from './refcount-plan.js'

const SECTOR = 512
/** What free clusters held is put back after a failure, up to so much: they are nobody's. Metadata always are. */
const MAX_UNDO_BYTES = 64 * 1024 * 1024

/**
 * Carries a plan out: each step's writes, then a flush. A failure before old clusters are released puts everything
 * back as it was; after it, the edit is done but for them, which then leak.
 *
 * @throws {Qcow2Error} `no-space`, `write-failed`, whatever reading throws; with `details.done` where only the release
 *   failed
 */
export async function execute(
  image: ImageInspection & { readonly storage: WritableStorage },
  plan: EditPlan,
  engine: BitmapEngine,
  options: ReadOptions = {},
): Promise<void> {
  const { storage } = image
  const undo = new Undo(storage)
  let at: EditStep['name'] = 'clusters'
  try {
    for (const { name, writes } of plan.steps) {
      if (name === 'header' && at !== 'header') await mustBeUnchanged(plan)
      // Half of a header's steps are no state to stop in.
      if (name !== 'header' && name !== 'release') options.signal?.throwIfAborted()
      at = name
      for (const write of writes) await carryOut(image, write, name, engine, undo, options)
      await storage.flush()
      undo.barrier()
    }
  } catch (error) {
    if (at === 'release') throw doneAllTheSame(error)
    await undo.all()
    throw error
  }
  await discard(image, plan.released)
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
async function discard(
  { storage, clusterSize }: ImageInspection & { readonly storage: WritableStorage },
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
  image: ImageInspection & { readonly storage: WritableStorage },
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
    case 'bytes':
      await undo.keep(write.offset, write.bytes.byteLength, step === 'clusters')
      return storage.writeFrom(write.bytes, write.offset)
    case 'bits':
      return writeBits(image, write, engine, undo, options)
    case 'refcounts':
      return writeRefcounts(image, write.clusters, write.value, undo)
  }
}

async function writeBits(
  image: ImageInspection & { readonly storage: WritableStorage },
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
async function writeRefcounts(
  image: ImageInspection & { readonly storage: WritableStorage },
  clusters: readonly number[],
  value: 0 | 1,
  undo: Undo,
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
    await undo.keep(offset, SECTOR, false)
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

interface Kept {
  readonly offset: number
  /** Undefined: zeros, a hole perhaps. */
  readonly bytes: Uint8Array | undefined
  readonly length: number
}

/** What was where something was written, to put it back. */
class Undo {
  readonly #storage: WritableStorage
  readonly #size: number
  /** Metadata, in steps: what refers to something goes before that does. */
  readonly #steps: Kept[][] = [[]]
  /** Clusters that nobody referred to. */
  readonly #free: Kept[] = []
  #bytes = 0

  constructor(storage: WritableStorage) {
    this.#storage = storage
    this.#size = storage.size
  }

  /** What is there now. @param free it is of a cluster that nobody refers to */
  async keep(offset: number, length: number, free: boolean): Promise<void> {
    const there = Math.min(length, this.#size - offset)
    if (there <= 0) return
    const found = await readBytes(this.#storage, offset, there)
    if (!free) {
      this.#steps.at(-1)!.push({ offset, bytes: found, length: there })
      return
    }
    const bytes = found.every(byte => byte === 0) ? undefined : found
    if (bytes !== undefined && this.#bytes + there > MAX_UNDO_BYTES) return
    this.#bytes += bytes?.byteLength ?? 0
    this.#free.push({ offset, bytes, length: there })
  }

  barrier(): void {
    this.#steps.push([])
  }

  /** Never throws: what failed is told already. */
  async all(): Promise<void> {
    const storage = this.#storage
    try {
      for (const step of this.#steps.reverse()) {
        if (step.length === 0) continue
        for (const { offset, bytes } of step.reverse()) await storage.writeFrom(bytes!, offset)
        await storage.flush()
      }
      // Only now is what is new nobody's. A full file system has room again.
      if (storage.resizable && storage.size !== this.#size) await storage.resize(this.#size)
    } catch {
      // New clusters that are counted, and nobody's: leaks, at worst.
      return
    }
    for (const { offset, bytes, length } of this.#free) {
      // Holes become holes again: writing zeros would take the room that there was not.
      const back = bytes === undefined ? storage.discard(offset, length) : storage.writeFrom(bytes, offset)
      await back.catch(() => {})
    }
    await storage.flush().catch(() => {})
  }
}
