/** Where the builder put things. All offsets are file offsets in bytes. */
export interface Qcow2Layout {
  clusterSize: number
  virtualSize: number
  refcountTable: { offset: number; clusters: number }
  /** Offset of each refcount block. */
  refcountBlocks: number[]
  l1: { offset: number; entries: number }
  /** Each header extension without END: where its magic is and where its data is. */
  extensions: { magic: number; offset: number; dataOffset: number; length: number }[]
  backingFile?: { offset: number; length: number }
  /** The payload of the bitmaps extension: nb_bitmaps at +0, reserved +4, size +8, offset +16. */
  bitmapsExtension?: number
  directory?: { offset: number; size: number }
  bitmaps: BitmapLayout[]
  /** First byte behind the last cluster; the file may be cut or grown. */
  end: number
}

/** Where one bitmap is. */
export interface BitmapLayout {
  name: Uint8Array
  /** Its directory entry, its length with padding, and the places of extra data and name. */
  entry: { offset: number; length: number; extraDataOffset: number; nameOffset: number }
  table: { offset: number; entries: number }
  /** File offset of each data cluster, by index of its table entry. */
  data: Map<number, number>
}

/** Hands out clusters one after the other, in the order in which they are asked for. */
export class ClusterAllocator {
  readonly clusterSize: number
  #next: number

  constructor(clusterSize: number, firstOffset: number) {
    this.clusterSize = clusterSize
    this.#next = firstOffset
  }

  /** The offset of as many whole clusters as `bytes` need. */
  take(bytes: number): number {
    const offset = this.#next
    this.#next += Math.ceil(bytes / this.clusterSize) * this.clusterSize
    return offset
  }

  get end(): number {
    return this.#next
  }
}

/** Clusters of the refcount structures for an image with `others` further clusters. */
export interface RefcountSize {
  tableClusters: number
  blocks: number
}

/** Refcounts must also count the clusters that hold them, so their number is a fixed point. */
export function refcountSize(others: number, clusterSize: number, refcountOrder: number): RefcountSize {
  const perBlock = (clusterSize * 8) / 2 ** refcountOrder
  let size: RefcountSize = { tableClusters: 1, blocks: 1 }
  for (;;) {
    const total = others + size.tableClusters + size.blocks
    const blocks = Math.ceil(total / perBlock)
    const tableClusters = Math.max(1, Math.ceil((blocks * 8) / clusterSize))
    if (blocks <= size.blocks && tableClusters <= size.tableClusters) return size
    size = { tableClusters, blocks }
  }
}

/** Writes refcount 1 for the clusters 0 … count−1; widths below a byte fill it from the low bits. */
export function writeRefcounts(
  bytes: Uint8Array,
  blocks: readonly number[],
  count: number,
  clusterSize: number,
  refcountOrder: number,
): void {
  const width = 2 ** refcountOrder
  const perBlock = (clusterSize * 8) / width
  for (let cluster = 0; cluster < count; cluster++) {
    const block = blocks[Math.floor(cluster / perBlock)]
    if (block === undefined) throw new Error(`no refcount block for cluster ${cluster}`)
    const bit = (cluster % perBlock) * width
    // From one byte on the numbers are big-endian: the 1 is in the last byte.
    const at = block + (width >= 8 ? bit / 8 + width / 8 - 1 : bit >> 3)
    bytes[at] = bytes[at]! | (width >= 8 ? 1 : 1 << (bit & 7))
  }
}

/** Entries of an L1 table for a disk of this size. @throws RangeError beyond QEMU's 32 MiB. */
export function l1Entries(virtualSize: number, clusterSize: number, entryBytes: number): number {
  const entries = Math.ceil(virtualSize / (clusterSize * (clusterSize / entryBytes)))
  if (entries * 8 > 32 * 2 ** 20) {
    throw new RangeError(`${virtualSize} bytes need an L1 table of ${entries * 8} bytes at this cluster size`)
  }
  return entries
}
