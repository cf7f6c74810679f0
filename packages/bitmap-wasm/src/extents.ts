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
/** 256 KiB a call: V8 does not leave its baseline code in mid-call. */
const PIECE_BITS = 2 ** 21

/** What extents are: the same for taking them out of bits and for putting them back. */
export interface ExtentOptions {
  /** Bytes for each bit, a whole number. */
  readonly granularity: number
  /** The disk's size in bytes: no extent ends after it. */
  readonly limit: number
  /** Of which bits: 1 dirty ones (default), 0 clean ones. */
  readonly value?: 0 | 1
}

/** An extent as an object: for convenience, where there are few. */
export interface Extent {
  /** Bytes from the disk's start. */
  readonly offset: number
  /** Bytes, never 0. */
  readonly length: number
}

/**
 * Turns windows of bits, in order, into dirty (or clean) extents as typed chunks: alternating start and end byte offsets,
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
  /** As if the bit before the first one had the other value: then its edges are the extents' starts and ends. */
  readonly #other: 0 | 1
  #held = 0
  #position = 0
  #previous: number

  /**
   * @param options see {@link ExtentOptions}
   * @param options.roomBytes for edges, at least 1,024 (default 128 KiB), taken from the engine's arena
   * @throws RangeError for numbers out of range, or a full arena
   */
  constructor(engine: BitmapEngine, options: ExtentOptions & { readonly roomBytes?: number }) {
    const { granularity, limit, value, roomBytes = DEFAULT_ROOM_BYTES } = checked(options)
    wholeNumber('roomBytes', roomBytes, MIN_ROOM_BYTES)
    this.#engine = engine
    this.#granularity = granularity
    this.#limit = limit
    this.#other = value === 1 ? 0 : 1
    this.#previous = this.#other
    this.#granules = granulesOf(limit, granularity)
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
    this.#previous = this.#other
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
        Math.min(bits - at, PIECE_BITS),
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

/** Edges that {@link extentsOf} takes out at a time: 8 KiB, for as long as a call takes. */
const BATCH_EDGES = 1024

/**
 * The extents of the first `bits` bits of a lane, as objects: for convenience, where there are few. In bulk take
 * {@link ExtentExtractor}, which is some forty times as fast.
 *
 * Takes 8 KiB of the arena while it looks for the next ones and gives them back at once; the lane is read while
 * extents are taken, so leave it as it is until the last.
 *
 * @param options `limit`: default, where the bits end
 * @throws RangeError at once, for numbers out of range or a lane that is too short or of another engine
 *
 * @example
 * for (const { offset, length } of extentsOf(engine, lane, 4096, { granularity: 65536 })) copy(offset, length)
 */
export function extentsOf(
  engine: BitmapEngine,
  src: Lane,
  bits: number,
  options: Pick<ExtentOptions, 'granularity' | 'value'> & { readonly limit?: number },
): Generator<Extent, void, undefined> {
  const { granularity } = options
  wholeNumber('granularity', granularity, 1)
  const { limit, value } = checked({ ...options, limit: options.limit ?? bits * granularity })
  engine.countRange(src, bits, 0)
  return extents(engine, src.ptr, Math.min(bits, granulesOf(limit, granularity)), granularity, limit, value)
}

function* extents(
  engine: BitmapEngine,
  ptr: number,
  bits: number,
  granularity: number,
  limit: number,
  value: 0 | 1,
): Generator<Extent, void, undefined> {
  let previous = 1 - value
  let open: number | undefined
  for (let at = 0; at < bits; ) {
    const edges = engine.scratch(() => {
      const room = engine.lane(BATCH_EDGES * 8)
      const some = Math.min(PIECE_BITS, bits - at)
      const { kernels } = engine
      const count = kernels.edges(
        ptr + at / 8,
        some,
        previous,
        at * granularity,
        granularity,
        room.ptr,
        BATCH_EDGES,
      )
      at += kernels.lastBits.value as number
      previous = kernels.lastBit.value as number
      // A copy: the room is somebody else's before the first is handed over.
      return new Float64Array(room.bytes.buffer, room.ptr, count).slice()
    })
    for (const edge of edges) {
      if (open === undefined) open = edge
      else {
        yield { offset: open, length: edge - open }
        open = undefined
      }
    }
  }
  if (open !== undefined) yield { offset: open, length: Math.min(bits * granularity, limit) - open }
}

/** @throws RangeError for numbers out of range */
export function checked<T extends ExtentOptions>(options: T): T & { readonly value: 0 | 1 } {
  const { granularity, limit, value = 1 } = options
  wholeNumber('granularity', granularity, 1)
  wholeNumber('limit', limit)
  wholeNumber('value', value, 0, 1)
  return { ...options, value }
}

/** Bits that a disk has, the last one clipped. */
export function granulesOf(limit: number, granularity: number): number {
  const clipped = limit % granularity
  return (limit - clipped) / granularity + (clipped > 0 ? 1 : 0)
}
