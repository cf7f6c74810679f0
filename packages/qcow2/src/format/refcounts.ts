import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'
import { fieldsOf, nextEntry } from './bytes.js'
import type { Qcow2Header } from './header.js'

const WINDOW_BYTES = 64 * 1024

/** Host offsets of the refcount blocks that the table names, 0 for those that it does not. */
export async function readRefcountTable(
  storage: ImageStorage,
  header: Qcow2Header,
  options?: ReadOptions,
): Promise<Float64Array> {
  const claimed = header.refcountTableClusters * 2 ** header.clusterBits
  const bytes = Math.max(0, Math.min(claimed, storage.size - header.refcountTableOffset))
  const table = await readBytes(storage, header.refcountTableOffset, bytes, options)
  const { u64 } = fieldsOf(table)
  const count = Math.floor(bytes / 8)
  const offsets = new Float64Array(count)
  const words = new Int32Array(table.buffer, 0, count * 2)
  for (let i = nextEntry(words, 0, count); i < count; i = nextEntry(words, i + 1, count)) {
    const entry = u64(i * 8)
    // Bits 0–8 are reserved.
    offsets[i] = entry - (entry % 512)
  }
  return offsets
}

/**
 * Whether at least `many` of the file's clusters have a refcount. Reads no more than it takes to know.
 *
 * @param blocks see {@link readRefcountTable}
 */
export async function hasReferencedClusters(
  storage: ImageStorage,
  header: Qcow2Header,
  blocks: Float64Array,
  many: number,
  options?: ReadOptions,
): Promise<boolean> {
  const clusterSize = 2 ** header.clusterBits
  const bits = 2 ** header.refcountOrder
  const blockEntries = (clusterSize * 8) / bits
  const clusters = Math.ceil(storage.size / clusterSize)
  let count = 0
  // Not as many blocks as the file has room for: a file of holes may have exbibytes.
  for (let block = 0; block < blocks.length && block * blockEntries < clusters && count < many; block++) {
    const offset = blocks[block]!
    if (offset === 0) continue
    const entries = Math.min(blockEntries, clusters - block * blockEntries)
    for (let first = 0; first < entries && count < many; first += (WINDOW_BYTES * 8) / bits) {
      const some = Math.min(entries - first, (WINDOW_BYTES * 8) / bits)
      const at = offset + (first * bits) / 8
      const bytes = Math.max(0, Math.min(Math.ceil((some * bits) / 8), storage.size - at))
      count += nonzero(await readBytes(storage, bytes === 0 ? 0 : at, bytes, options), some, bits)
    }
  }
  return count >= many
}

/** How many of the first entries of `bits` bits are not 0. What the bytes' order is makes no difference to that. */
function nonzero(bytes: Uint8Array, entries: number, bits: number): number {
  let count = 0
  if (bits < 8) {
    const mask = 2 ** bits - 1
    for (let i = 0; i < Math.min(entries, (bytes.byteLength * 8) / bits); i++) {
      if (((bytes[(i * bits) >> 3]! >> ((i * bits) & 7)) & mask) !== 0) count++
    }
    return count
  }
  const width = bits / 8
  for (let at = 0; at + width <= bytes.byteLength; at += width) {
    let any = 0
    for (let i = 0; i < width; i++) any |= bytes[at + i]!
    if (any !== 0) count++
  }
  return count
}
