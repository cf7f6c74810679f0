// Naive models and small helpers for the tests: one bit at a time, nothing shared with what they judge.
import type { BitmapEngine, Lane } from '../src/index.js'

/** Mulberry32: whole numbers below `limit`, the same in each run. */
export function seeded(seed: number): (limit: number) => number {
  let state = seed
  return limit => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
}

/** qcow2's bit order: bit i is byte i >> 3, mask 1 << (i & 7). */
export function bitAt(bytes: Uint8Array, bit: number): number {
  return (bytes[bit >>> 3]! >> (bit & 7)) & 1
}

export function setBit(bytes: Uint8Array, bit: number, value: number): void {
  const mask = 1 << (bit & 7)
  bytes[bit >>> 3] = value ? bytes[bit >>> 3]! | mask : bytes[bit >>> 3]! & ~mask
}

/** Fills with random bits of about one density: none, all, and some between. */
export function randomBits(bytes: Uint8Array, random: (limit: number) => number): Uint8Array {
  const density = [0, 1, 8, 128, 248, 256][random(6)]!
  for (let i = 0; i < bytes.length * 8; i++) setBit(bytes, i, random(256) < density ? 1 : 0)
  return bytes
}

export const densities = ['none', 'sparse', 'half', 'dense', 'full', 'alternating'] as const
export type Density = (typeof densities)[number]

/** Fills with bits of one density. */
export function patterned(bytes: Uint8Array, density: Density, random: (limit: number) => number): void {
  const share = { none: 0, sparse: 4, half: 128, dense: 252, full: 256, alternating: 0 }[density]
  for (let i = 0; i < bytes.length; i++) {
    if (density === 'alternating') bytes[i] = 0x55
    else for (let bit = 0; bit < 8; bit++) setBit(bytes, i * 8 + bit, random(256) < share ? 1 : 0)
  }
}

/** Much faster than expect().toEqual() on typed arrays, and says where. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (actual.length !== expected.length)
    throw new Error(`${what}: ${actual.length} bytes, ${expected.length}`)
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) {
      throw new Error(
        `${what}: byte ${i} is 0x${actual[i]!.toString(16)}, not 0x${expected[i]!.toString(16)}`,
      )
    }
  }
}

/** What the arena has given away so far. */
export function arenaMark(engine: BitmapEngine): number {
  return engine.mark()
}

/** The lane from byte `offset` on: kernels take any address. */
export function laneFrom(lane: Lane, offset: number): Lane {
  return { ptr: lane.ptr + offset, bytes: lane.bytes.subarray(offset) }
}

/** Byte extents of the set bits, [start, end, start, end …], clipped to the disk. */
export function naiveExtents(bits: readonly number[], granularity: number, limit: number): number[] {
  const extents: number[] = []
  for (let i = 0; i < bits.length && i * granularity < limit; i++) {
    const start = i * granularity
    const end = Math.min(start + granularity, limit)
    if (!bits[i]) continue
    if (extents.at(-1) === start) extents[extents.length - 1] = end
    else extents.push(start, end)
  }
  return extents
}
