/** The steps in which QEMU copies: what a backup has of a disk is a set of these. */
import type { ByteSet } from '../sets.js'

/** QEMU copies for a backup in steps of 64 KiB at least, which is the target's cluster too. */
export const STEP = 65536

/** Starts of the steps in which two contents differ, or one of them is shorter. */
export function differing(a: Uint8Array, b: Uint8Array): number[] {
  const found: number[] = []
  for (let at = 0; at < Math.max(a.length, b.length); at += STEP) {
    if (Buffer.compare(a.subarray(at, at + STEP), b.subarray(at, at + STEP)) !== 0) found.push(at)
  }
  return found
}

/** The bytes of clusters, by their guest offsets. */
export function setOf(own: ReadonlyMap<number, Uint8Array>): ByteSet {
  const bounds: number[] = []
  for (const [offset, { length }] of [...own].sort(([a], [b]) => a - b)) {
    if (bounds.at(-1) === offset) bounds.pop()
    else bounds.push(offset)
    bounds.push(offset + length)
  }
  return bounds
}

/** Starts of the steps that a set touches. */
export function stepsOf(set: ByteSet): Set<number> {
  const steps = new Set<number>()
  for (let i = 0; i < set.length; i += 2) {
    for (let at = set[i]! - (set[i]! % STEP); at < set[i + 1]!; at += STEP) steps.add(at)
  }
  return steps
}
