import {
  type BitmapEngine,
  type BitmapSource,
  type ChainLayer,
  countDirty,
  dirtyExtents,
  findBitmap,
  openBitmap,
  Qcow2Error,
} from '@tidemark/qcow2'
import type {
  BodyError,
  BodyQuery,
  DiskMeasurement,
  Measurements,
  SubsetQuery,
  SubsetViolation,
} from '../plan/measure.js'
import type { DomainImages } from './images.js'

/**
 * Answers the planner's questions about bitmaps' bodies from the open images. A body that cannot be read is an
 * answer too, never a throw.
 *
 * @param engine with an arena of at least COMBINE_ARENA_BYTES
 */
export async function measureBodies(
  images: DomainImages,
  queries: readonly BodyQuery[],
  engine: BitmapEngine,
): Promise<Measurements> {
  const measurements = new Map<string, DiskMeasurement>()
  for (const query of queries) {
    measurements.set(
      query.target,
      await new DiskBodies(images.layers.get(query.target) ?? [], engine).measure(query),
    )
  }
  return measurements
}

/** The bitmaps of one disk's chain. */
class DiskBodies {
  readonly #layers: readonly ChainLayer[]
  readonly #engine: BitmapEngine
  readonly #errors: BodyError[] = []
  readonly #sources = new Map<string, BitmapSource>()

  constructor(layers: readonly ChainLayer[], engine: BitmapEngine) {
    this.#layers = layers
    this.#engine = engine
  }

  async measure({ union, subsets }: BodyQuery): Promise<DiskMeasurement> {
    // One after the other first: an error in the union would not tell whose it is.
    let dirtyBytes: number | undefined
    for (const { layer, bitmap } of union) {
      const counted = await this.#try(layer, bitmap, source => countDirty(this.#engine, [source]))
      dirtyBytes = counted?.bytes
    }
    if (this.#errors.length > 0) dirtyBytes = undefined
    else if (union.length > 1) {
      const sources = union.map(({ layer, bitmap }) => this.#open(layer, bitmap))
      dirtyBytes = (await countDirty(this.#engine, sources)).bytes
    }
    const violations: SubsetViolation[] = []
    if (this.#errors.length === 0) {
      for (const subset of subsets) {
        const violation = await this.#try(subset.layer, subset.newer, newer => this.#missing(subset, newer))
        if (violation !== undefined) violations.push(violation)
      }
    }
    return { dirtyBytes, violations, errors: this.#errors }
  }

  async #missing(subset: SubsetQuery, newer: BitmapSource): Promise<SubsetViolation | undefined> {
    const older = this.#open(subset.layer, subset.older)
    let missingBytes = 0
    let firstOffset: number | undefined
    const options = { operation: 'difference', granularity: subset.granularity, widenFirst: true } as const
    for await (const chunk of dirtyExtents(this.#engine, [newer, older], options)) {
      firstOffset ??= chunk[0]
      for (let i = 0; i < chunk.length; i += 2) missingBytes += chunk[i + 1]! - chunk[i]!
    }
    if (firstOffset === undefined) return undefined
    const { checkpoint, layer, filename, older: name } = subset
    return { checkpoint, older: name, layer, filename, missingBytes, firstOffset }
  }

  /** Once for each: a source keeps the part of its table that it read last, and the older one is compared with every newer. */
  #open(layer: number, bitmap: string): BitmapSource {
    const key = `${layer} ${bitmap}`
    let source = this.#sources.get(key)
    if (source === undefined) {
      const inspection = this.#layers[layer]!.inspection!
      source = openBitmap(inspection, findBitmap(inspection, bitmap), this.#engine)
      this.#sources.set(key, source)
    }
    return source
  }

  async #try<T>(
    layer: number,
    bitmap: string,
    use: (source: BitmapSource) => Promise<T>,
  ): Promise<T | undefined> {
    try {
      return await use(this.#open(layer, bitmap))
    } catch (error) {
      if (!(error instanceof Qcow2Error)) throw error
      const { filename } = this.#layers[layer]!
      // QEMU reads zeros there, and so takes the missing bits for clean.
      const qemuLoads = String(error.details.found).endsWith('(past-end-of-file)')
      this.#errors.push({ layer, filename, bitmap, message: error.message, qemuLoads })
      return undefined
    }
  }
}
