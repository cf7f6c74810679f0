import type { BitmapEngine, Lane } from './engine.js'

/** Room for 8,192 extents: large enough that handing chunks over costs nothing, small enough for a cache. */
const DEFAULT_ROOM_BYTES = 128 * 1024
/** The kernel takes a 64-bit word at a time, and each of its bits can be an edge. */
const EDGES_PER_WORD = 64

/**
 * Turns windows of bits, in order, into dirty extents as typed chunks: alternating start and end byte offsets,
 * whole pairs, ascending, neighbours across windows joined, clipped to the disk.
 *
 * A chunk is a view into the engine's memory, good until the next call: copy what you keep.
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
  readonly #room: Lane
  readonly #edges: Float64Array
  #held = 0
  #position = 0
  #previous = 0

  /**
   * @param options.granularity bytes for each bit
   * @param options.limit the disk's size in bytes: no extent ends after it
   * @param options.roomBytes for edges, at least 1,024
   */
  constructor(engine: BitmapEngine, options: { granularity: number; limit: number; roomBytes?: number }) {
    const { granularity, limit, roomBytes = DEFAULT_ROOM_BYTES } = options
    if (roomBytes < 1024) throw new RangeError(`room of ${roomBytes} bytes, at least 1024 are needed`)
    this.#engine = engine
    this.#granularity = granularity
    this.#limit = limit
    this.#room = engine.lane(roomBytes - (roomBytes % 8))
    this.#edges = new Float64Array(this.#room.bytes.buffer, this.#room.ptr, this.#room.bytes.byteLength / 8)
  }

  /** The next `bits` bits; a multiple of 64 but for the last window. The lane's bits after them are ignored. */
  *push(src: Lane, bits: number): Generator<Float64Array, void, undefined> {
    if (Math.ceil(bits / 8) > src.bytes.byteLength) throw new RangeError(`${bits} bits are not in the lane`)
    const { kernels } = this.#engine
    let at = 0
    while (at < bits) {
      if (this.#edges.length - this.#held < EDGES_PER_WORD) yield* this.#flush()
      const written = kernels.edges(
        src.ptr + at / 8,
        bits - at,
        this.#previous,
        this.#position * this.#granularity,
        this.#granularity,
        this.#room.ptr + this.#held * 8,
        this.#edges.length - this.#held,
      )
      const done = kernels.lastBits.value as number
      this.#previous = kernels.lastBit.value as number
      this.#held += written
      this.#position += done
      at += done
      if (at < bits) yield* this.#flush()
    }
  }

  /** `bits` bits of one value, without a lane: for stretches that are known to be all clear or all set. */
  *pushRun(value: 0 | 1, bits: number): Generator<Float64Array, void, undefined> {
    if (bits === 0) return
    if (value !== this.#previous) {
      if (this.#held === this.#edges.length) yield* this.#flush()
      this.#edges[this.#held++] = this.#position * this.#granularity
      this.#previous = value
    }
    this.#position += bits
  }

  /** What is left, with an extent that reaches the end closed; undefined when nothing is. */
  finish(): Float64Array | undefined {
    if (this.#held % 2 === 1) this.#edges[this.#held++] = this.#limit
    this.#previous = 0
    const rest = this.#edges.subarray(0, this.#held)
    this.#held = 0
    if (rest.length === 0) return undefined
    return this.#clip(rest)
  }

  /** All whole pairs; a start whose end is not known yet moves to the front. */
  *#flush(): Generator<Float64Array, void, undefined> {
    const whole = this.#held - (this.#held % 2)
    if (whole === 0) return
    const open = this.#held > whole ? this.#edges[whole] : undefined
    yield this.#clip(this.#edges.subarray(0, whole))
    this.#held = 0
    if (open !== undefined) this.#edges[this.#held++] = open
  }

  /** Only the very last edge can lie past the disk's end, within its last granule. */
  #clip(edges: Float64Array): Float64Array {
    const last = edges.length - 1
    if (edges[last]! > this.#limit) edges[last] = this.#limit
    return edges
  }
}
