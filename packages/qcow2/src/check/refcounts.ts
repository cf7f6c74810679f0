import { CorruptImageError, hex } from '../errors.js'
import { readRefcountTable } from '../format/refcounts.js'
import type { ImageInspection } from '../image/inspect.js'
import { type ReadOptions, readBytes } from '../storage/storage.js'

const WINDOW_BYTES = 64 * 1024

/** An image's refcounts, read block by block as they are asked for; ascending clusters cost least. */
export class Refcounts {
  readonly #image: ImageInspection
  readonly #blocks: Float64Array
  readonly #bits: number
  #window: DataView = new DataView(new ArrayBuffer(0))
  #windowStart = -1

  private constructor(image: ImageInspection, blocks: Float64Array) {
    this.#image = image
    this.#blocks = blocks
    this.#bits = 2 ** image.header.refcountOrder
  }

  static async open(image: ImageInspection, options?: ReadOptions): Promise<Refcounts> {
    return new Refcounts(image, await readRefcountTable(image.storage, image.header, options))
  }

  /** Host offset of a refcount block; 0 where there is none. */
  blockOffset(block: number): number {
    return this.#blocks[block] ?? 0
  }

  /** How many clusters a refcount block counts. */
  get clustersPerBlock(): number {
    return (this.#image.clusterSize * 8) / this.#bits
  }

  /**
   * How often a cluster is referred to, as the image counts; 0 where no block counts it. Above 2^53 rounded.
   *
   * @throws {CorruptImageError} for a block that is not within the file, or not at a cluster boundary
   */
  async get(cluster: number, options?: ReadOptions): Promise<number> {
    const block = Math.floor(cluster / this.clustersPerBlock)
    const offset = this.blockOffset(block)
    if (offset === 0) return 0
    const bit = (cluster % this.clustersPerBlock) * this.#bits
    const byte = Math.floor(bit / 8)
    const start = offset + byte - (byte % WINDOW_BYTES)
    if (start !== this.#windowStart) await this.#read(block, offset, start, options)
    return this.#value(byte % WINDOW_BYTES, bit % 8)
  }

  async #read(block: number, offset: number, start: number, options?: ReadOptions): Promise<void> {
    const { storage, header, clusterSize } = this.#image
    if (offset % clusterSize !== 0 || offset + clusterSize > storage.size) {
      throw new CorruptImageError(storage.name, {
        structure: 'refcount table',
        field: `entry ${block}`,
        offset: header.refcountTableOffset + block * 8,
        expected: `a cluster within the file of ${storage.size} bytes`,
        found: hex(offset),
      })
    }
    const bytes = await readBytes(
      storage,
      start,
      Math.min(WINDOW_BYTES, offset + clusterSize - start),
      options,
    )
    this.#window = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#windowStart = start
  }

  #value(byte: number, bit: number): number {
    switch (this.#bits) {
      case 8:
        return this.#window.getUint8(byte)
      case 16:
        return this.#window.getUint16(byte)
      case 32:
        return this.#window.getUint32(byte)
      case 64:
        return this.#window.getUint32(byte) * 2 ** 32 + this.#window.getUint32(byte + 4)
      default:
        // Several in a byte, the lowest bits first.
        return (this.#window.getUint8(byte) >> bit) & (2 ** this.#bits - 1)
    }
  }
}
