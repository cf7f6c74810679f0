import { wholeNumber } from './check.js'
import type { BitmapEngine, Lane } from './engine.js'

/** Room for 8,192 extents: large enough that handing chunks over costs nothing, small enough for a cache. */
const DEFAULT_ROOM_BYTES = 128 * 1024
/** Two for each of the kernel's words, so that a start kept from before leaves room for another one. */
const MIN_ROOM_BYTES = 1024
/** An extent is two f64: with room for whole ones only, there is always a place for the end of one begun. */
const EXTENT_BYTES = 16
/** The kernel takes a 64-bit word at a time, and each of its bits can be an edge. */
const EDGES_PER_WORD = 64
/** A multiple of 64: the kernel's positions are u32. */
const MAX_CALL_BITS = 2 ** 31

/**
 * Turns windows of bits, in order, into dirty extents as typed chunks: alternating start and end byte offsets,
 * whole pairs, ascending, never touching (neighbours across windows are joined), clipped to the disk. Bits past
 * the disk's last granule are ignored.
 *
 * A chunk is a view into the engine's memory, good until the next is asked for: copy what you keep. `push` and
 * `pushRun` work only as far as their chunks are taken: go through all of them, even where there will be none.
 *
 * @example
 * const extents = new ExtentExtractor(engine, { granularity: 65536, limit: diskBytes })
 * for (const chunk of extents.push(lane, bits)) for (let i = 0; i < chunk.length; i += 2) use(chunk[i], chunk[i + 1])
 * const last = extents.finish()
 */
export class ExtentExtractor {
  readonly #engine: BitmapEngine
  readonly #granularity: number
  readonly #limit: number
  /** Granules of the disk, the last one clipped. */
  readonly #granules: number
  readonly #room: Lane
  readonly #edges: Float64Array
  #held = 0
  #position = 0
  #previous = 0

  /**
   * @param options.granularity bytes for each bit
   * @param options.limit the disk's size in bytes: no extent ends after it
   * @param options.roomBytes for edges, at least 1,024 (default 128 KiB), taken from the engine's arena
   * @throws RangeError for numbers out of range, or a full arena
   */
  constructor(engine: BitmapEngine, options: { granularity: number; limit: number; roomBytes?: number }) {
    const { granularity, limit, roomBytes = DEFAULT_ROOM_BYTES } = options
    wholeNumber('granularity', granularity, 1)
    wholeNumber('limit', limit)
    wholeNumber('roomBytes', roomBytes, MIN_ROOM_BYTES)
    this.#engine = engine
    this.#granularity = granularity
    this.#limit = limit
    const clipped = limit % granularity
    this.#granules = (limit - clipped) / granularity + (clipped > 0 ? 1 : 0)
    this.#room = engine.lane(roomBytes - (roomBytes % EXTENT_BYTES))
    this.#edges = new Float64Array(this.#room.bytes.buffer, this.#room.ptr, this.#room.bytes.byteLength / 8)
  }

  /**
   * The next `bits` bits, any number. The lane's bits after them are ignored.
   * @throws RangeError at once, for a lane that is shorter or of another engine
   */
  push(src: Lane, bits: number): Generator<Float64Array, void, undefined> {
    wholeNumber('bits', bits, 0, src.bytes.byteLength * 8)
    if (src.bytes.buffer !== this.#room.bytes.buffer || src.bytes.byteOffset !== src.ptr) {
      throw new RangeError('the lane is not one of the engine that extracts')
    }
    return this.#extract(src.ptr, bits)
  }

  /**
   * `bits` bits of one value, without a lane: for stretches that are known to be all clear or all set.
   * @throws RangeError at once, for another value or a number of bits that is none
   */
  pushRun(value: 0 | 1, bits: number): Generator<Float64Array, void, undefined> {
    wholeNumber('value', value, 0, 1)
    wholeNumber('bits', bits)
    return this.#extend(value, bits)
  }

  /**
   * What is left, with an extent that is still open closed where the bits end; undefined when nothing is.
   * The extractor then begins again, for the next bitmap of the same disk.
   */
  finish(): Float64Array | undefined {
    if (this.#held % 2 === 1) {
      this.#edges[this.#held++] = Math.min(this.#position * this.#granularity, this.#limit)
    }
    const rest = this.#held > 0 ? this.#edges.subarray(0, this.#held) : undefined
    this.#held = 0
    this.#position = 0
    this.#previous = 0
    return rest
  }

  *#extract(ptr: number, pushed: number): Generator<Float64Array, void, undefined> {
    const { kernels } = this.#engine
    const bits = Math.min(pushed, this.#granules - this.#position)
    let at = 0
    while (at < bits) {
      if (this.#edges.length - this.#held < EDGES_PER_WORD) yield* this.#flush()
      this.#held += kernels.edges(
        ptr + at / 8,
        Math.min(bits - at, MAX_CALL_BITS),
        this.#previous,
        this.#position * this.#granularity,
        this.#granularity,
        this.#room.ptr + this.#held * 8,
        this.#edges.length - this.#held,
      )
      const done = kernels.lastBits.value as number
      this.#previous = kernels.lastBit.value as number
      this.#position += done
      at += done
    }
  }

  *#extend(value: 0 | 1, run: number): Generator<Float64Array, void, undefined> {
    const bits = Math.min(run, this.#granules - this.#position)
    if (bits === 0) return
    if (value !== this.#previous) {
      if (this.#held === this.#edges.length) yield* this.#flush()
      this.#edges[this.#held++] = this.#position * this.#granularity
      this.#previous = value
    }
    this.#position += bits
  }

  /** All whole pairs; a start whose end is not known yet moves to the front. */
  *#flush(): Generator<Float64Array, void, undefined> {
    const whole = this.#held - (this.#held % 2)
    const open = this.#held > whole ? this.#edges[whole] : undefined
    yield this.#edges.subarray(0, whole)
    this.#held = 0
    if (open !== undefined) this.#edges[this.#held++] = open
  }
}
