/**
 * Sets of bytes as sorted lists of boundaries (start, end, start, end, …): a model of what bitmaps stand for that
 * knows nothing of granularities, slow and plain.
 */
import type { DirtyExtent } from '@tidemark/testkit'

export type ByteSet = readonly number[]

/** The dirty bytes of a map as nbdinfo has it. */
export function byteSet(extents: readonly DirtyExtent[]): ByteSet {
  const bounds: number[] = []
  for (const { offset, length, type } of extents) {
    if (type === 0) continue
    if (bounds.at(-1) === offset) bounds.pop()
    else bounds.push(offset)
    bounds.push(offset + length)
  }
  return bounds
}

/** Any operation of two sets, by asking it of each stretch between two boundaries. */
export function combine(a: ByteSet, b: ByteSet, operation: (a: boolean, b: boolean) => boolean): ByteSet {
  const bounds = [...new Set([...a, ...b])].sort((x, y) => x - y)
  const out: number[] = []
  let inside = false
  let i = 0
  let j = 0
  for (const at of bounds) {
    while (i < a.length && a[i]! <= at) i++
    while (j < b.length && b[j]! <= at) j++
    const now = operation(i % 2 === 1, j % 2 === 1)
    if (now !== inside) out.push(at)
    inside = now
  }
  return out
}

export const operations = {
  union: (a: boolean, b: boolean) => a || b,
  intersection: (a: boolean, b: boolean) => a && b,
  difference: (a: boolean, b: boolean) => a && !b,
  xor: (a: boolean, b: boolean) => a !== b,
} as const

export type Operation = keyof typeof operations

/** From left to right. */
export function combineAll(sets: readonly ByteSet[], operation: Operation): ByteSet {
  return sets.slice(1).reduce((all, set) => combine(all, set, operations[operation]), sets[0] ?? [])
}

export function union(sets: readonly ByteSet[]): ByteSet {
  return combineAll(sets, 'union')
}

/** Every granule that the set touches, the last clipped to the disk. */
export function widen(set: ByteSet, granularity: number, size: number): ByteSet {
  const pieces: ByteSet[] = []
  for (let i = 0; i < set.length; i += 2) {
    const start = Math.floor(set[i]! / granularity) * granularity
    const end = Math.min(Math.ceil(set[i + 1]! / granularity) * granularity, size)
    const last = pieces.at(-1)
    if (last !== undefined && start <= last[1]!) pieces[pieces.length - 1] = [last[0]!, end]
    else pieces.push([start, end])
  }
  return pieces.flat()
}

/** As nbdinfo prints it: the whole disk, clean stretches too. */
export function extentsOfSet(set: ByteSet, size: number): DirtyExtent[] {
  const extents: DirtyExtent[] = []
  const add = (offset: number, end: number, type: number): void => {
    if (end > offset)
      extents.push({ offset, length: end - offset, type, description: type === 1 ? 'dirty' : 'clean' })
  }
  let at = 0
  for (let i = 0; i < set.length; i += 2) {
    add(at, set[i]!, 0)
    add(set[i]!, set[i + 1]!, 1)
    at = set[i + 1]!
  }
  add(at, size, 0)
  return extents
}
