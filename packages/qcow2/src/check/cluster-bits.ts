/** A set of clusters by number: one bit for each, 2 MiB for a file of 1 TiB in clusters of 64 KiB. */
export class ClusterBits {
  readonly size: number
  readonly #words: Uint32Array

  /** @param size clusters; numbers from 0 to `size` − 1 */
  constructor(size: number) {
    this.size = size
    this.#words = new Uint32Array(Math.ceil(size / 32))
  }

  has(cluster: number): boolean {
    return ((this.#words[Math.floor(cluster / 32)]! >>> (cluster % 32)) & 1) === 1
  }

  /** @returns whether it was there already */
  add(cluster: number): boolean {
    const word = Math.floor(cluster / 32)
    const bit = 1 << (cluster % 32)
    const before = this.#words[word]!
    this.#words[word] = before | bit
    return (before & bit) !== 0
  }

  /** The first one from `from` on that is not in the set; `size`, or `from` itself beyond it, where there is none. */
  nextMissing(from: number): number {
    for (let cluster = from; cluster < this.size; cluster += 32 - (cluster % 32)) {
      const missing = (~this.#words[Math.floor(cluster / 32)]! >>> (cluster % 32)) | 0
      if (missing !== 0) return Math.min(this.size, cluster + 31 - Math.clz32(missing & -missing))
    }
    return Math.max(this.size, from)
  }

  get count(): number {
    let count = 0
    for (const word of this.#words) {
      let v = word - ((word >>> 1) & 0x55555555)
      v = (v & 0x33333333) + ((v >>> 2) & 0x33333333)
      count += Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
    }
    return count
  }
}
