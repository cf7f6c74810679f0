/** Which clusters of a file hold metadata: asked whether a stretch of data overlaps one. */
export class ClusterSet {
  readonly #clusterSize: number
  readonly #starts: Float64Array

  /** @param starts byte offsets of clusters, in any order, also twice; sorted in place */
  constructor(clusterSize: number, starts: Float64Array) {
    this.#clusterSize = clusterSize
    this.#starts = starts.sort()
  }

  /** The first cluster (its byte offset) that shares a byte with [start, end), or −1. Both are cluster boundaries. */
  firstShared(start: number, end: number): number {
    const starts = this.#starts
    let low = 0
    let high = starts.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (starts[middle]! + this.#clusterSize <= start) low = middle + 1
      else high = middle
    }
    const found = starts[low]
    return found === undefined || found >= end ? -1 : found
  }
}
