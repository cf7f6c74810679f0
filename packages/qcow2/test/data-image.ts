import { buildQcow2, type Qcow2Spec } from '@tidemark/testkit'

/** An L2 entry: 64 bits, or with extended entries two times 64; a cluster's bytes are placed, and COPIED set. */
export type EntrySpec = bigint | readonly [bigint, bigint] | Uint8Array

export interface DataImageSpec extends Qcow2Spec {
  /** Entries of the first L2 table. */
  readonly l2: readonly EntrySpec[]
  /** L1 entry 0 as it is, instead of one that names the table. */
  readonly l1?: bigint
  /** Bytes that the file keeps of what is behind the metadata (default: all). */
  readonly tail?: number
}

export interface DataImage {
  readonly bytes: Uint8Array
  readonly l1: number
  readonly l2: number
  /** Host offset of each cluster that was given as bytes. */
  readonly clusters: readonly number[]
}

export const COPIED = 1n << 63n
export const COMPRESSED = 1n << 62n

/** An image of metadata from testkit's builder, with an L2 table and clusters behind it. Refcounts are not kept. */
export function dataImage(spec: DataImageSpec): DataImage {
  const { bytes, layout } = buildQcow2(spec)
  const { clusterSize } = layout
  const width = ((spec.incompatibleFeatures ?? 0n) & 16n) === 0n ? 8 : 16
  const l2 = Math.ceil(bytes.length / clusterSize) * clusterSize
  const clusters: number[] = []
  const out = new Uint8Array(
    l2 + clusterSize * (1 + spec.l2.filter(each => each instanceof Uint8Array).length),
  )
  out.set(bytes)
  const view = new DataView(out.buffer)
  view.setBigUint64(layout.l1.offset, spec.l1 ?? COPIED | BigInt(l2))
  for (const [i, entry] of spec.l2.entries()) {
    const at = l2 + i * width
    if (entry instanceof Uint8Array) {
      const place = l2 + clusterSize * (1 + clusters.length)
      clusters.push(place)
      out.set(entry, place)
      view.setBigUint64(at, COPIED | BigInt(place))
      if (width === 16) view.setBigUint64(at + 8, 0xffffffffn)
    } else if (typeof entry === 'bigint') view.setBigUint64(at, entry)
    else {
      view.setBigUint64(at, entry[0])
      view.setBigUint64(at + 8, entry[1])
    }
  }
  const kept = spec.tail === undefined ? out : out.slice(0, l2 + spec.tail)
  return { bytes: kept, l1: layout.l1.offset, l2, clusters }
}
