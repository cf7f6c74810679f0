import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import type { PersistentBitmap } from '../bitmaps/directory.js'
import { Refcounts } from '../check/refcounts.js'
import { mapReferences } from '../check/references.js'
import { CorruptImageError } from '../errors.js'
import type { ImageInspection } from '../image/inspect.js'
import type { ReadOptions } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'
import { applyActions, type BitmapAction, type BitsTerm, type FutureBitmap } from './actions.js'
import { Allocator } from './allocator.js'
import { dataClusters } from './bitmap-clusters.js'
import { type BitsPlan, encodeTable, fate, planBits } from './bits.js'
import { directoryBytes, encodeDirectory, type PlacedTable } from './directory.js'
import type { EditCost, EditPlan, EditStep, EditWrite } from './edit-plan.js'
import { mustBeEditable } from './editable.js'
import { type HeaderWrite, type NewDirectory, planSwitch } from './header-switch.js'
import { blockOf, mustBeOurs, planRefcounts, refcountWrites } from './refcount-plan.js'
import { switchStates, withWrite } from './switch-states.js'

export interface PlanOptions extends ReadOptions {
  /** It is one of several images that go together: it is marked meanwhile. */
  readonly several?: boolean
}

/**
 * Plans the actions on an image, all of them as one edit. Reads what it needs to know, and writes nothing.
 *
 * @param engine with an arena of EDIT_ARENA_BYTES
 * @throws {Qcow2Error} for what cannot be done, before anything is
 */
export async function planEdit(
  image: ImageInspection & { readonly storage: WritableStorage },
  actions: readonly BitmapAction[],
  engine: BitmapEngine,
  options: PlanOptions = {},
): Promise<EditPlan> {
  mustBeEditable(image)
  const bitmaps = applyActions(image, actions)
  if (isUnchanged(image, bitmaps)) {
    const { clusterSize } = image
    const none = { steps: [], sources: [], taken: [], directory: undefined, released: [] }
    return { ...none, clusterSize, cost: noCost, bitmaps }
  }
  return new Planner(image, bitmaps, engine, options).plan()
}

const noCost: EditCost = {
  allocated: 0,
  freed: 0,
  data: 0,
  tables: 0,
  directory: 0,
  refcountStructures: 0,
  growth: 0,
}

/** What is written to the header, each write lasting before the next. */
function switchSteps(
  image: ImageInspection,
  directory: NewDirectory | undefined,
  start: Uint8Array,
  several: boolean,
): EditStep[] {
  const step = (name: EditStep['name'], write: HeaderWrite): EditStep => ({
    name,
    writes: [{ kind: 'bytes', ...write }],
  })
  if (!several) return planSwitch(image, directory, start).map(write => step('header', write))
  const { mark, writes, unmark } = switchStates(image, directory, start)
  return [step('mark', mark), ...writes.map(write => step('header', write)), step('unmark', unmark)]
}

function isUnchanged(image: ImageInspection, bitmaps: readonly FutureBitmap[]): boolean {
  const before = image.bitmapDirectory?.bitmaps ?? []
  return (
    before.length === bitmaps.length &&
    bitmaps.every(
      ({ origin, name, flags, bits }, i) =>
        origin === before[i] && origin?.name === name && origin.flags === flags && bits === undefined,
    )
  )
}

class Planner {
  readonly #image: ImageInspection & { readonly storage: WritableStorage }
  readonly #bitmaps: readonly FutureBitmap[]
  readonly #engine: BitmapEngine
  readonly #options: PlanOptions
  readonly #clusterSize: number
  readonly #clusterWrites: EditWrite[] = []
  readonly #taken: number[] = []
  readonly #freed: number[] = []

  constructor(
    image: ImageInspection & { readonly storage: WritableStorage },
    bitmaps: readonly FutureBitmap[],
    engine: BitmapEngine,
    options: PlanOptions,
  ) {
    this.#image = image
    this.#bitmaps = bitmaps
    this.#engine = engine
    this.#options = options
    this.#clusterSize = image.clusterSize
  }

  async plan(): Promise<EditPlan> {
    const image = this.#image
    const { storage, header } = image
    const references = await mapReferences(image, this.#engine, this.#options)
    const refcounts = await Refcounts.open(image, this.#options)
    const { resizable } = storage
    const allocator = new Allocator({ image, references, refcounts, resizable, options: this.#options })

    let data = 0
    let tables = 0
    const placed: (PlacedTable | undefined)[] = []
    for (const bitmap of this.#bitmaps) {
      const { bits } = bitmap
      if (bits === undefined) {
        placed.push(undefined)
        continue
      }
      const changed = { ...bitmap, bits }
      const plan = await planBits(image, this.#engine, changed, this.#options)
      const offsets = await this.#take(allocator, plan.written)
      const table = await this.#takeRun(allocator, Math.ceil((plan.fates.length * 8) / this.#clusterSize))
      data += plan.written
      tables += Math.ceil((plan.fates.length * 8) / this.#clusterSize)
      this.#writeTable(changed, plan, offsets, table)
      placed.push({ offset: table, entries: plan.fates.length })
      if (bitmap.origin !== undefined) await this.#freeTable(bitmap.origin, plan)
    }
    const remaining = new Set(this.#bitmaps.map(({ origin }) => origin))
    for (const origin of image.bitmapDirectory?.bitmaps ?? []) {
      // What a damaged table of one in use refers to may be others': it leaks rather than that.
      if (!remaining.has(origin) && !references.doubtful.has(origin)) await this.#freeTable(origin, undefined)
    }
    const directory = await this.#placeDirectory(allocator, placed)
    const old = image.bitmapDirectory?.extension
    if (old !== undefined) this.#free(old.directoryOffset, old.directorySize)

    const counted = await planRefcounts(image, refcounts, allocator, this.#taken)
    if (counted.newTable !== undefined) {
      this.#free(header.refcountTableOffset, header.refcountTableClusters * this.#clusterSize)
    }
    await mustBeOurs(image, refcounts, this.#freed, this.#options)
    const { structures, table } = await refcountWrites(image, counted, refcounts, this.#options)
    const existing = counted.taken.filter(cluster => !counted.newBlocks.has(blockOf(cluster, refcounts)))
    existing.sort((a, b) => a - b)

    const last = counted.taken.reduce((most, cluster) => Math.max(most, cluster), -1)
    const end = (last + 1) * this.#clusterSize
    const growth = Math.max(0, end - storage.size)
    const grow: EditWrite[] = growth === 0 ? [] : [{ kind: 'grow', what: 'the file', bytes: end }]
    const counts: EditWrite[] =
      existing.length === 0
        ? []
        : [{ kind: 'refcounts', what: 'of new clusters', clusters: existing, value: 1 }]
    // A longer refcount table is in the header by then.
    const start = table
      .filter(write => write.kind === 'bytes' && write.offset < this.#clusterSize)
      .reduce((bytes, write) => withWrite(bytes, write as HeaderWrite), await this.#cluster0())
    const released = [...this.#freed].sort((a, b) => a - b)
    const sources = new Set(this.#bitmaps.flatMap(({ bits }) => bits ?? []).map(term => term.image))
    sources.delete(image)
    const steps: EditStep[] = [
      // In one: until the table or the header refers to them they are nobody's, counted or not.
      { name: 'clusters', writes: [...grow, ...this.#clusterWrites, ...structures, ...counts] },
      { name: 'refcount table', writes: table },
      ...switchSteps(image, directory, start, this.#options.several === true),
      {
        name: 'release',
        writes:
          released.length === 0
            ? []
            : [{ kind: 'refcounts', what: 'of old clusters', clusters: released, value: 0 }],
      },
    ]
    const allocated = counted.taken.length
    const directoryClusters = directory === undefined ? 0 : Math.ceil(directory.bytes / this.#clusterSize)
    return {
      clusterSize: this.#clusterSize,
      steps: steps.filter(({ writes }) => writes.length > 0),
      bitmaps: this.#bitmaps,
      sources: [...sources],
      taken: [...counted.taken].sort((a, b) => a - b),
      directory,
      released,
      cost: {
        allocated,
        freed: released.length,
        data,
        tables,
        directory: directoryClusters,
        refcountStructures: allocated - data - tables - directoryClusters,
        growth,
      },
    }
  }

  async #take(allocator: Allocator, count: number): Promise<Float64Array> {
    const clusters = await allocator.take(count)
    for (const cluster of clusters) this.#taken.push(cluster)
    return clusters.map(cluster => cluster * this.#clusterSize)
  }

  async #takeRun(allocator: Allocator, count: number): Promise<number> {
    const first = await allocator.takeRun(count)
    for (let i = 0; i < count; i++) this.#taken.push(first + i)
    return first * this.#clusterSize
  }

  #writeTable(
    bitmap: FutureBitmap & { readonly bits: readonly BitsTerm[] },
    plan: BitsPlan,
    offsets: Float64Array,
    at: number,
  ): void {
    // The rest of its cluster is not kept until then: there may be 65,535 of them.
    const bytes = encodeTable(plan, offsets)
    const length = Math.ceil(bytes.byteLength / this.#clusterSize) * this.#clusterSize
    if (offsets.length > 0) {
      this.#clusterWrites.push({ kind: 'bits', what: `bits of '${bitmap.name}'`, bitmap, plan, offsets })
    }
    this.#clusterWrites.push({ kind: 'bytes', what: `table of '${bitmap.name}'`, offset: at, bytes, length })
  }

  /** The clusters of a bitmap's old table, and the table: but for those that its new one keeps. */
  async #freeTable(origin: PersistentBitmap, plan: BitsPlan | undefined): Promise<void> {
    for await (const { entry, offset } of dataClusters(this.#image.storage, origin, this.#options)) {
      if (plan?.fates[entry] !== fate.kept) this.#free(offset, 1)
    }
    this.#free(origin.tableOffset, origin.tableSize * 8)
  }

  #free(offset: number, bytes: number): void {
    const end = Math.ceil((offset + bytes) / this.#clusterSize)
    for (let cluster = offset / this.#clusterSize; cluster < end; cluster++) this.#freed.push(cluster)
  }

  async #placeDirectory(
    allocator: Allocator,
    placed: readonly (PlacedTable | undefined)[],
  ): Promise<NewDirectory | undefined> {
    if (this.#bitmaps.length === 0) return undefined
    const size = directoryBytes(this.#image, this.#bitmaps)
    const clusters = Math.ceil(size / this.#clusterSize)
    const bytes = encodeDirectory(this.#bitmaps, placed, clusters * this.#clusterSize)
    const offset = await this.#takeRun(allocator, clusters)
    this.#clusterWrites.push({ kind: 'bytes', what: 'bitmap directory', offset, bytes })
    return { count: this.#bitmaps.length, offset, bytes: size }
  }

  async #cluster0(): Promise<Uint8Array> {
    const { header, storage, clusterSize } = this.#image
    const bytes = new Uint8Array(clusterSize)
    await storage.readInto(bytes.subarray(0, Math.min(clusterSize, storage.size)), 0, this.#options)
    if (header.backingFileOffset + header.backingFileSize <= clusterSize) return bytes
    throw new CorruptImageError(storage.name, {
      structure: 'header',
      field: 'backing_file_offset',
      offset: 8,
      expected: 'a name within cluster 0',
      found: String(header.backingFileOffset),
    })
  }
}
