import type { Refcounts } from '../check/refcounts.js'
import { CorruptImageError, Qcow2Error } from '../errors.js'
import type { ImageInspection } from '../image/inspect.js'
import type { ReadOptions } from '../storage/storage.js'
import type { Allocator } from './allocator.js'

/** QEMU's limit (QCOW_MAX_REFTABLE_SIZE). */
const MAX_TABLE_BYTES = 8 * 1024 * 1024

const SECTOR = 512

/** How the refcounts of new clusters are written. Cluster numbers. */
export interface RefcountPlan {
  /** All that are taken: those asked for, and what counting them takes. */
  readonly taken: readonly number[]
  /** Blocks that there were not: which part of the file they count, and where they are. */
  readonly newBlocks: ReadonlyMap<number, number>
  /** A longer table, where the one there is has no entry for a block. */
  readonly newTable: { readonly first: number; readonly clusters: number } | undefined
}

/** Takes clusters for refcount blocks, and for a longer refcount table, as far as counting `clusters` needs them. */
export async function planRefcounts(
  image: ImageInspection,
  refcounts: Refcounts,
  allocator: Allocator,
  clusters: readonly number[],
): Promise<RefcountPlan> {
  const { clusterSize, header, storage } = image
  const taken = [...clusters]
  const newBlocks = new Map<number, number>()
  let newTable: { first: number; clusters: number } | undefined
  const entriesPerCluster = clusterSize / 8
  const entriesPerSector = SECTOR / 8
  const firstSector = () => Math.floor(Math.min(...newBlocks.keys()) / entriesPerSector)
  // Blocks and table are counted too, which may take more of them.
  for (let i = 0; i < taken.length; i++) {
    const block = Math.floor(taken[i]! / refcounts.clustersPerBlock)
    if (refcounts.blockOffset(block) === 0 && !newBlocks.has(block)) {
      const [cluster] = await allocator.take(1)
      newBlocks.set(block, cluster!)
      taken.push(cluster!)
    }
    const entries = (newTable?.clusters ?? header.refcountTableClusters) * entriesPerCluster
    // New blocks may count each other: their entries must come into force at once. Within a sector one write does that,
    // else a new table, which the header names.
    const apart =
      newTable === undefined && newBlocks.has(block) && Math.floor(block / entriesPerSector) !== firstSector()
    if (block < entries && !apart) continue
    // As much again by half, so that it need not grow for each cluster.
    const size = Math.max(Math.ceil(((block + 1) * 1.5) / entriesPerCluster), header.refcountTableClusters)
    if (size * clusterSize > MAX_TABLE_BYTES) {
      throw new Qcow2Error('no-space', `${storage.name}: its refcount table is as long as QEMU takes it`, {
        image: storage.name,
      })
    }
    // An earlier one, too short already, stays a hole in the plan: it was never written.
    if (newTable !== undefined) {
      for (let k = 0; k < newTable.clusters; k++) taken.splice(taken.indexOf(newTable.first + k), 1)
      i = -1
    }
    newTable = { first: await allocator.takeRun(size), clusters: size }
    for (let k = 0; k < size; k++) taken.push(newTable.first + k)
  }
  return { taken, newBlocks, newTable }
}

/** @throws {CorruptImageError} for a cluster that is to be free and that somebody else counts on */
export async function mustBeOurs(
  image: ImageInspection,
  refcounts: Refcounts,
  clusters: readonly number[],
  options: ReadOptions,
): Promise<void> {
  for (const cluster of [...clusters].sort((a, b) => a - b)) {
    const count = await refcounts.get(cluster, options)
    if (count === 1) continue
    throw new CorruptImageError(image.storage.name, {
      structure: 'refcount',
      offset: cluster * image.clusterSize,
      expected: '1, of a cluster that a bitmap alone refers to',
      found: String(count),
    })
  }
}
