/** A stretch of an image's own guest data, clusters side by side of one kind. Offsets and lengths in bytes. */
export type ClusterRun =
  /** Nothing here: what lies below shows. With `hostOffset` a cluster has room for it (subclusters). */
  | {
      readonly kind: 'unallocated'
      readonly start: number
      readonly length: number
      readonly hostOffset: number | undefined
    }
  /** Reads as zeros. With `hostOffset` its clusters keep their place in the file. */
  | {
      readonly kind: 'zero'
      readonly start: number
      readonly length: number
      readonly hostOffset: number | undefined
    }
  /** Stored as it is, from `hostOffset` on. */
  | { readonly kind: 'data'; readonly start: number; readonly length: number; readonly hostOffset: number }
  /** A part of one compressed cluster, which begins at guest offset `clusterStart`. */
  | {
      readonly kind: 'compressed'
      readonly start: number
      readonly length: number
      readonly clusterStart: number
      readonly hostOffset: number
      /** At most so many: the stream ends somewhere before. */
      readonly hostBytes: number
    }

type PlainKind = Exclude<ClusterRun['kind'], 'compressed'>

interface PlainRun {
  readonly kind: PlainKind
  readonly start: number
  length: number
  readonly hostOffset: number | undefined
}

/** Runs in order; what goes on with the last one is joined to it. */
export class RunList {
  readonly list: ClusterRun[] = []
  #last: PlainRun | undefined

  add(kind: PlainKind, start: number, length: number, hostOffset: number | undefined): void {
    const last = this.#last
    if (
      last?.kind === kind &&
      hostOffset === (last.hostOffset === undefined ? undefined : last.hostOffset + last.length)
    ) {
      last.length += length
      return
    }
    this.#last = { kind, start, length, hostOffset }
    this.list.push(this.#last as ClusterRun)
  }

  /** One that stands for itself. */
  push(run: ClusterRun): void {
    this.#last = undefined
    this.list.push(run)
  }
}
