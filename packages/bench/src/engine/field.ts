import { type BitmapEngine, createEngine, type Lane } from '@tidemark/bitmap-wasm'
import { fillPattern, type Pattern } from './patterns.js'

export const KiB = 1024
export const MiB = 1024 * KiB
/** A window of a streamed bitmap: what the engine takes at a time. */
export const WINDOW_BYTES = 256 * KiB
/** Fine bits for each coarse one, in the operations between granularities. */
export const REFINE_SHIFT = 4
/** For the extents: bytes that a bit stands for. */
export const GRANULARITY = 65536

/** How large, and where the bits are. */
export interface Size {
  name: string
  bytes: number
  /**
   * `arena`: operands lie in the engine's memory. `stream`: they lie elsewhere, resident, and pass through a fixed
   * arena in windows, are copied in, and the result is copied out again; peers work on them in place.
   */
  where: 'arena' | 'stream'
  /** Slow to prepare: only some patterns and operations. */
  large?: boolean
}

export const sizes: readonly Size[] = [
  { name: '256 KiB', bytes: 256 * KiB, where: 'arena' },
  { name: '2 MiB', bytes: 2 * MiB, where: 'arena' },
  { name: '32 MiB', bytes: 32 * MiB, where: 'arena' },
  { name: '512 MiB, streamed', bytes: 512 * MiB, where: 'stream', large: true },
  // An arena holds at most 1 GiB, edges and padding included.
  { name: '512 MiB, in an arena', bytes: 512 * MiB - 256 * KiB, where: 'arena', large: true },
]

/** Where a case is played: two operands of one size, filled with one pattern. All contenders work on these. */
export interface Field {
  size: Size
  pattern: Pattern
  engine: BitmapEngine
  /** The left operand, which holds results. */
  dst: Uint8Array
  src: Uint8Array
  /** The same places, where they are in the arena. */
  lanes: { dst: Lane; src: Lane } | undefined
  /** Gives `dst` back its bits. */
  reset(): void
}

/** Makes a field; its memory lives as long as it does. */
export function makeField(size: Size, pattern: Pattern): Field {
  const { bytes, where } = size
  const pristine = new Uint8Array(bytes)
  // Room for a third lane and for edges, but in the largest arena.
  const room = Math.min(1024 * MiB, 3 * bytes + MiB)
  const engine = createEngine({ arenaBytes: where === 'arena' ? room : 2 * MiB })
  const lanes = where === 'arena' ? { dst: engine.lane(bytes), src: engine.lane(bytes) } : undefined
  const dst = lanes?.dst.bytes ?? new Uint8Array(bytes)
  const src = lanes?.src.bytes ?? new Uint8Array(bytes)
  fillPattern(pattern, words32(pristine), words32(src))
  const reset = () => dst.set(pristine)
  reset()
  return { size, pattern, engine, dst, src, lanes, reset }
}

/** The same memory as 32-bit words. */
export function words32(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
}

/** The same memory as 16-bit words. */
export function words16(bytes: Uint8Array): Uint16Array {
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)
}

/** Offsets of the windows of a bitmap; each is whole. */
export function* windows(bytes: number): Generator<number, void, undefined> {
  for (let at = 0; at < bytes; at += WINDOW_BYTES) yield at
}

/** Text that is the same for the same bytes, and hardly for others: FNV-1a over words. */
export function fingerprint(bytes: Uint8Array): string {
  const words = words32(bytes)
  let hash = 0x811c9dc5
  for (let i = 0; i < words.length; i++) hash = Math.imul(hash ^ words[i]!, 0x01000193)
  return (hash >>> 0).toString(16)
}
