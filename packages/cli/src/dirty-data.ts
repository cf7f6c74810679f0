import type { DiskExtent, GuestDisk, ImageInspection } from '@tidemark/qcow2'

/** A part of a disk, in bytes, and what it is as far as that is known without reading. */
export type Stretch = Pick<DiskExtent, 'start' | 'length' | 'zero' | 'data'>

/**
 * What dirty extents are now: split where that changes, in order.
 *
 * @param dirty chunks of alternating start and end offsets, as dirtyExtents gives them
 * @param range only what is within
 * @param near extents that lie this near are looked up together, and what is between them in vain
 */
export async function* dirtyStretches(
  disk: GuestDisk,
  dirty: AsyncIterable<Float64Array>,
  range: { readonly start: number; readonly end: number },
  near: number,
): AsyncGenerator<readonly Stretch[], void, undefined> {
  for await (const all of dirty) {
    const chunk = clipped(all, range)
    for (let first = 0; first < chunk.length; ) {
      let last = first
      while (last + 2 < chunk.length && chunk[last + 2]! - chunk[last + 1]! <= near) last += 2
      let at = first
      const start = chunk[first]!
      for await (const extents of disk.extents(start, chunk[last + 1]! - start)) {
        const cut: Stretch[] = []
        for (const { start, length, zero, data } of extents) {
          const end = start + length
          while (at <= last && chunk[at]! < end) {
            const from = Math.max(start, chunk[at]!)
            const to = Math.min(end, chunk[at + 1]!)
            cut.push({ start: from, length: to - from, zero, data })
            if (to < chunk[at + 1]!) break
            at += 2
          }
        }
        if (cut.length > 0) yield cut
      }
      first = last + 2
    }
  }
}

/** Dirty extents nearer than this are looked up together: a piece of a table has as many entries at least. */
export function nearOf({ clusterSize }: ImageInspection): number {
  return 64 * clusterSize
}

function clipped(
  chunk: Float64Array,
  { start, end }: { readonly start: number; readonly end: number },
): Float64Array {
  let first = 0
  let last = chunk.length
  while (first < last && chunk[first + 1]! <= start) first += 2
  while (last > first && chunk[last - 2]! >= end) last -= 2
  const within = chunk.slice(first, last)
  if (first < last) {
    within[0] = Math.max(within[0]!, start)
    within[within.length - 1] = Math.min(within.at(-1)!, end)
  }
  return within
}
