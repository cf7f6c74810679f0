import { wholeNumber } from './check.js'
import type { Kernels } from './module.js'
import { LANE_PADDING, WasmEngine } from './wasm-engine.js'

const DEFAULT_ARENA_BYTES = 2 * 1024 * 1024
const MAX_ARENA_BYTES = 2 ** 30

/** How two bitmaps of one granularity are combined; the first operand holds the result. */
export type MergeOperation = 'union' | 'intersection' | 'difference' | 'xor'

/** A piece of one engine's arena: `ptr` for kernels, `bytes` to read into and out of. Other engines refuse it. */
export interface Lane {
  /** Address in the engine's memory; a multiple of 16 for lanes of {@link BitmapEngine.lane}. */
  readonly ptr: number
  /** The lane's bytes, a view: valid as long as the engine, since its memory never grows. */
  readonly bytes: Uint8Array
}

export interface EngineOptions {
  /**
   * Room for lanes, in bytes (default 2 MiB, at most 1 GiB); each lane takes up to 80 more than it holds.
   * Fixed for the engine's life: growing would detach every view, and a read into a detached view silently
   * reads nothing.
   */
  arenaBytes?: number
}

/**
 * The kernels and an arena of their own. Engines are independent: make one for each stream of work, and
 * {@link dispose} it, or let the garbage collector have it.
 *
 * Bits are counted as in qcow2: bit i is byte i >> 3, mask 1 << (i & 7). Operations take any length and bit, and
 * change no bit outside of the range that they name (but for {@link complement} and {@link refine}, which clear what
 * is left of their last byte). Long ones are cut into pieces of 256 KiB, so that V8 can replace a kernel's baseline
 * code while they run.
 *
 * All numbers are checked: what is negative, fractional or NaN, a lane that is too short, of another engine or
 * made by hand is a RangeError before a byte is touched. So are two lanes of which the parts that are used overlap;
 * a merge or comparison of a lane with itself is defined.
 *
 * @example
 * const engine = createEngine()
 * const a = engine.lane(4096)
 * const b = engine.lane(4096)
 * a.bytes[0] = 0b0011
 * b.bytes[0] = 0b0110
 * engine.merge('union', a, b, 4096)
 * engine.count(a, 4096) // 3
 */
export interface BitmapEngine {
  /** For the codecs of this package; pointers are not checked. */
  readonly kernels: Kernels
  readonly arenaBytes: number
  /** Has {@link dispose} been called? */
  readonly disposed: boolean
  /**
   * Lets go of the arena and the kernels: from now on every call throws, here and in what was made with this engine
   * (extractors, decoders). Views that the caller still has keep the memory alive. Twice is once.
   */
  dispose(): void
  /**
   * Takes `byteLength` zeroed bytes from the arena.
   * @throws RangeError when the arena has no room left
   */
  lane(byteLength: number): Lane
  /**
   * A part of a lane as a lane of its own, over the same bytes.
   * @param byteLength default: to the lane's end
   * @throws RangeError for a part that is not within the lane
   */
  subLane(lane: Lane, byteOffset: number, byteLength?: number): Lane
  /** Remembers how much of the arena is taken, for {@link release}. */
  mark(): number
  /**
   * Gives back all lanes that were taken since `mark`; they must not be used any more.
   * @throws RangeError for what is not a mark of lanes still taken
   */
  release(mark: number): void
  /**
   * Runs `use` and gives back to the arena all lanes that it took, after a throw too.
   * @throws TypeError when `use` returns a promise: it would go on with lanes that are no longer its own
   */
  scratch<T>(use: () => T): T

  /**
   * dst = dst ∘ src over the first `byteLength` bytes.
   * @throws RangeError when a lane is shorter
   */
  merge(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): void
  /** {@link merge}, and the number of bits that are then set in these bytes: in one way through memory. */
  mergeCount(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): number
  /** Inverts the first `bits` bits, and clears those that follow them in the last byte. */
  complement(dst: Lane, bits: number): void
  /** Gives `bits` bits from `firstBit` on one value. */
  fillRange(dst: Lane, firstBit: number, bits: number, value: 0 | 1): void
  /** Clears what lies after the first `bits` bits, up to `byteLength`. More bits than that: nothing to clear. */
  maskTail(dst: Lane, bits: number, byteLength: number): void

  /** The number of set bits in the first `byteLength` bytes. */
  count(src: Lane, byteLength: number): number
  /** The number of set bits among the `bits` bits from `firstBit` on. */
  countRange(src: Lane, firstBit: number, bits: number): number
  /** Are the first `byteLength` bytes of both the same? */
  equals(a: Lane, b: Lane, byteLength: number): boolean
  /** Is each of the first `bits` bits that a has set also set in b? */
  isSubset(a: Lane, b: Lane, bits: number): boolean
  /** The first of `bits` bits that is set in a but not in b; −1 where a is a subset. */
  firstViolation(a: Lane, b: Lane, bits: number): number
  /** The first set bit from `from` on, below `bits`; −1 where there is none. */
  nextSet(src: Lane, from: number, bits: number): number
  /** The first clear bit from `from` on, below `bits`; −1 where there is none. */
  nextClear(src: Lane, from: number, bits: number): number

  /**
   * Spreads coarse bits over `1 << shift` fine bits each, until `fineBits` are written; what is left of the last
   * byte is cleared. A window may begin and end anywhere: fine bit i becomes coarse bit
   * `coarseBit + ((phase + i) >> shift)`.
   *
   * @param coarseBit the coarse bit that the first fine one belongs to, in `src`
   * @param shift 1 … 22
   * @param fineBits at most 2^31
   * @param phase how many fine bits of `coarseBit` lie before the first one, 0 … 2^shift − 1 (default 0)
   */
  refine(src: Lane, coarseBit: number, shift: number, dst: Lane, fineBits: number, phase?: number): void
  /**
   * dst = dst ∘ refined src for the first `fineBits` bits, without a lane between: {@link refine} and {@link merge}
   * in one. Stretches of clear coarse bits cost next to nothing.
   */
  refineMerge(
    operation: MergeOperation,
    src: Lane,
    coarseBit: number,
    shift: number,
    dst: Lane,
    fineBits: number,
    phase?: number,
  ): void
  /**
   * ORs `fineBits` bits into coarse bits of `1 << shift` each, the first at `dstBit`; bits after them are ignored.
   * A union with what `dst` holds: clear it first for the coarsened bits alone.
   *
   * @param fineBits at most 2^31; the last coarse bit may have fewer than its `1 << shift`
   * @param shift 1 … 22
   */
  coarsen(src: Lane, fineBits: number, shift: number, dst: Lane, dstBit: number): void
}

/**
 * Makes an engine.
 *
 * @throws RangeError for an arena size out of range
 */
export function createEngine(options: EngineOptions = {}): BitmapEngine {
  const { arenaBytes = DEFAULT_ARENA_BYTES } = options
  wholeNumber('arenaBytes', arenaBytes, LANE_PADDING, MAX_ARENA_BYTES)
  return new WasmEngine(arenaBytes)
}
