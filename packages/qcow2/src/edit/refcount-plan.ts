import type { Refcounts } from '../check/refcounts.js'
import { CorruptImageError, Qcow2Error } from '../errors.js'
import { putU64 } from '../format/bytes.js'
import { readRefcountTable } from '../format/refcounts.js'
import type { ImageInspection } from '../image/inspect.js'
import type { ReadOptions } from '../storage/storage.js'
import type { Allocator } from './allocator.js'
import type { EditWrite } from './edit-plan.js'

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
    const block = blockOf(taken[i]!, refcounts)
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

/** New refcount blocks and a new table, which nothing refers to yet; and what refers to them. */
export async function refcountWrites(
  image: ImageInspection,

  { taken, newBlocks, newTable }: RefcountPlan,
  refcounts: Refcounts,
  options: ReadOptions,
): Promise<{ structures: EditWrite[]; table: EditWrite[] }> {
  const { header, storage, clusterSize } = image
  const structures: EditWrite[] = []
  const blocks = new Map<number, Uint8Array>()
  for (const block of newBlocks.keys()) blocks.set(block, new Uint8Array(clusterSize))
  for (const cluster of taken) {
    const block = blocks.get(blockOf(cluster, refcounts))
    if (block !== undefined) putRefcount(block, cluster % refcounts.clustersPerBlock, header.refcountOrder, 1)
  }
  for (const [block, cluster] of newBlocks) {
    const bytes = blocks.get(block)!
    structures.push({
      kind: 'bytes',
      what: `refcount block ${block}`,
      offset: cluster * clusterSize,
      bytes,
    })
  }
  if (newBlocks.size === 0) return { structures, table: [] }
  const before = await readRefcountTable(storage, header, options)
  if (newTable === undefined) {
    // All of them in one write, within one sector: one may count the cluster that another is in.
    const first = Math.min(...newBlocks.keys())
    const last = Math.max(...newBlocks.keys())
    const bytes = new Uint8Array((last - first + 1) * 8)
    const view = new DataView(bytes.buffer)
    for (let block = first; block <= last; block++) {
      const cluster = newBlocks.get(block)
      putU64(view, (block - first) * 8, cluster === undefined ? before[block]! : cluster * clusterSize)
    }
    const what =
      first === last ? `refcount table entry ${first}` : `refcount table entries ${first} to ${last}`
    const offset = header.refcountTableOffset + first * 8
    return { structures, table: [{ kind: 'bytes', what, offset, bytes }] }
  }
  const bytes = new Uint8Array(newTable.clusters * clusterSize)
  const view = new DataView(bytes.buffer)
  for (const [i, offset] of before.entries()) putU64(view, i * 8, offset)
  for (const [block, cluster] of newBlocks) putU64(view, block * 8, cluster * clusterSize)
  const offset = newTable.first * clusterSize
  structures.push({ kind: 'bytes', what: 'a longer refcount table', offset, bytes })
  const fields = new Uint8Array(12)
  putU64(new DataView(fields.buffer), 0, offset)
  new DataView(fields.buffer).setUint32(8, newTable.clusters)
  return {
    structures,
    table: [{ kind: 'bytes', what: 'the header names the longer refcount table', offset: 48, bytes: fields }],
  }
}

/** Which part of the file a cluster is counted with. */
export function blockOf(cluster: number, refcounts: Refcounts): number {
  return Math.floor(cluster / refcounts.clustersPerBlock)
}

/** Sets one entry of a refcount block, or of a part of one: of 2^order bits, several in a byte from the lowest on. */
export function putRefcount(block: Uint8Array, index: number, order: number, value: 0 | 1): void {
  if (order >= 3) {
    const width = 2 ** (order - 3)
    block.fill(0, index * width, (index + 1) * width)
    block[(index + 1) * width - 1] = value
    return
  }
  const bits = 2 ** order
  const at = Math.floor((index * bits) / 8)
  const shift = (index * bits) % 8
  block[at] = (block[at]! & ~((2 ** bits - 1) << shift)) | (value << shift)
}
