import type { Refcounts } from '../check/refcounts.js'
import type { ReferenceMap } from '../check/references.js'
import { Qcow2Error } from '../errors.js'
import type { ImageInspection } from '../image/inspect.js'
import type { ReadOptions } from '../storage/storage.js'

/**
 * Finds free clusters: those that nothing refers to and whose refcount is 0, from the file's start on, then behind its
 * end. Numbers, not offsets. Nothing is written.
 */
export class Allocator {
  readonly #image: ImageInspection
  readonly #references: ReferenceMap
  readonly #refcounts: Refcounts
  readonly #options: ReadOptions
  /** Clusters of a device that cannot grow; infinity for a file. */
  readonly #most: number
  /** All before it are taken. */
  #next = 0
  readonly #taken = new Set<number>()
  /** No run of so many is free before this one. */
  readonly #nextRun = new Map<number, number>()

  constructor(parts: {
    readonly image: ImageInspection
    readonly references: ReferenceMap
    readonly refcounts: Refcounts
    readonly resizable: boolean
    readonly options: ReadOptions
  }) {
    this.#image = parts.image
    this.#references = parts.references
    this.#refcounts = parts.refcounts
    this.#options = parts.options
    this.#most = parts.resizable
      ? Number.POSITIVE_INFINITY
      : Math.floor(parts.image.storage.size / parts.image.clusterSize)
  }

  /** One after the other, wherever they are. @throws {Qcow2Error} `no-space` on a device that is full */
  async take(count: number): Promise<Float64Array> {
    const clusters = new Float64Array(count)
    for (let i = 0; i < count; i++) clusters[i] = await this.#first(1)
    return clusters
  }

  /** Side by side. @returns the first. @throws {Qcow2Error} `no-space` */
  async takeRun(count: number): Promise<number> {
    return this.#first(count)
  }

  async #first(count: number): Promise<number> {
    let run = 0
    for (let cluster = Math.max(this.#next, this.#nextRun.get(count) ?? 0); ; cluster++) {
      const unused = this.#references.used.nextMissing(cluster)
      if (unused > cluster) {
        run = 0
        cluster = unused
      }
      if (cluster >= this.#most) break
      if (await this.#isFree(cluster)) {
        if (++run < count) continue
        const first = cluster - count + 1
        for (let i = first; i <= cluster; i++) this.#taken.add(i)
        if (count === 1) this.#next = cluster + 1
        else this.#nextRun.set(count, cluster + 1)
        return first
      }
      run = 0
      // Nothing free was passed over: nobody need look here again.
      if (count === 1) this.#next = cluster + 1
    }
    const { storage, clusterSize } = this.#image
    throw new Qcow2Error(
      'no-space',
      `${storage.name} has no room for ${count} more cluster${count === 1 ? '' : 's'} side by side, and cannot grow`,
      { image: storage.name, clusters: count, clusterSize },
    )
  }

  /** @param cluster one that nothing refers to */
  async #isFree(cluster: number): Promise<boolean> {
    if (this.#taken.has(cluster)) return false
    return (await this.#refcounts.get(cluster, this.#options)) === 0
  }
}
