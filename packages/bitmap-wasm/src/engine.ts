import { wholeNumber } from './check.js'
import { instantiate, type Kernels, wasmConstant } from './module.js'

const PAGE = 65536
/** Kernels load whole words and vectors: each lane can be read this far past its end. */
const LANE_PADDING = 64
const DEFAULT_ARENA_BYTES = 2 * 1024 * 1024
const MAX_ARENA_BYTES = 2 ** 30
/** Bits that one call may go through: the kernels' positions are u32, and their sums must not wrap. */
const MAX_CALL_BITS = 2 ** 31

/** How two bitmaps of one granularity are combined; the first operand holds the result. */
export type MergeOperation = 'union' | 'intersection' | 'difference' | 'xor'

/** A piece of one engine's arena: `ptr` for kernels, `bytes` to read into and out of. Other engines refuse it. */
export interface Lane {
  /** Address in the engine's memory, a multiple of 16. */
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
 * The kernels and an arena of their own. Engines are independent: make one for each stream of work, and let the
 * garbage collector have it afterwards.
 *
 * Bits are counted as in qcow2: bit i is byte i >> 3, mask 1 << (i & 7).
 *
 * All numbers are checked: what is negative, fractional or NaN, a lane that is too short, of another engine or
 * made by hand is a RangeError before a byte is touched. Lanes are the same or do not overlap.
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
  /**
   * Takes `byteLength` zeroed bytes from the arena.
   * @throws RangeError when the arena has no room left
   */
  lane(byteLength: number): Lane
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
  /** Clears what lies after the first `bits` bits, up to `byteLength`. More bits than that: nothing to clear. */
  maskTail(dst: Lane, bits: number, byteLength: number): void
  /** The number of set bits in the first `byteLength` bytes. */
  count(src: Lane, byteLength: number): number
  /**
   * Spreads coarse bits, from `coarseBit` on, over `1 << shift` fine bits each, until `fineBits` are written
   * (rounded up to whole bytes, whose last bits mean nothing: see maskTail). The first fine bit is taken for the
   * first of its coarse bit; one window may also lie within a coarse bit.
   *
   * @param coarseBit for a shift below 3 a multiple of 8
   * @param shift 1 … 22
   * @param fineBits at most 2^31
   */
  refine(src: Lane, coarseBit: number, shift: number, dst: Lane, fineBits: number): void
  /**
   * ORs `fineBits` bits into coarse bits of `1 << shift` each, the first at `dstBit`; bits after them are ignored.
   *
   * @param fineBits at most 2^31
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
  return new Engine(arenaBytes)
}

class Engine implements BitmapEngine {
  readonly kernels: Kernels
  readonly arenaBytes: number
  readonly #buffer: ArrayBuffer
  readonly #base: number
  #next: number

  constructor(arenaBytes: number) {
    // The module's own data lies below HEAP_BASE, which is far less than a page.
    const pages = Math.ceil(arenaBytes / PAGE) + 1
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
    this.kernels = instantiate(memory)
    this.arenaBytes = arenaBytes
    this.#buffer = memory.buffer
    this.#base = align(wasmConstant('HEAP_BASE'))
    this.#next = this.#base
  }

  lane(byteLength: number): Lane {
    wholeNumber('byteLength', byteLength)
    const ptr = this.#next
    const end = align(ptr + byteLength + LANE_PADDING)
    if (end > this.#buffer.byteLength) {
      throw new RangeError(`the arena of ${this.arenaBytes} bytes has no room for a lane of ${byteLength}`)
    }
    this.#next = end
    new Uint8Array(this.#buffer, ptr, end - ptr).fill(0)
    return { ptr, bytes: new Uint8Array(this.#buffer, ptr, byteLength) }
  }

  mark(): number {
    return this.#next
  }

  release(mark: number): void {
    wholeNumber('mark', mark, this.#base, this.#next)
    this.#next = mark
  }

  scratch<T>(use: () => T): T {
    const mark = this.mark()
    try {
      const result = use()
      if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
        throw new TypeError('scratch() takes no asynchronous function: use mark() and release()')
      }
      return result
    } finally {
      this.release(mark)
    }
  }

  merge(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): void {
    this.#holds(dst, byteLength)
    this.#holds(src, byteLength)
    this.kernels[operation](dst.ptr, src.ptr, byteLength)
  }

  maskTail(dst: Lane, bits: number, byteLength: number): void {
    wholeNumber('bits', bits)
    this.#holds(dst, byteLength)
    // Beyond u32 the kernel would take the rest modulo 2^32, and clear what it should keep.
    if (bits < byteLength * 8) this.kernels.maskTail(dst.ptr, bits, byteLength)
  }

  count(src: Lane, byteLength: number): number {
    this.#holds(src, byteLength)
    return this.kernels.count(src.ptr, byteLength)
  }

  refine(src: Lane, coarseBit: number, shift: number, dst: Lane, fineBits: number): void {
    this.#holdsBits(src, coarseBit, shift, dst, fineBits)
    if (shift < 3 && coarseBit % 8 !== 0) throw new RangeError(`coarse bit ${coarseBit} is no multiple of 8`)
    this.kernels.refine(src.ptr, coarseBit, shift, dst.ptr, fineBits)
  }

  coarsen(src: Lane, fineBits: number, shift: number, dst: Lane, dstBit: number): void {
    this.#holdsBits(dst, dstBit, shift, src, fineBits)
    this.kernels.coarsen(src.ptr, fineBits, shift, dst.ptr, dstBit)
  }

  /** Granularities go from 2^9 to 2^31, so two of them differ by 2^22 at most. */
  #holdsBits(coarse: Lane, coarseBit: number, shift: number, fine: Lane, fineBits: number): void {
    wholeNumber('shift', shift, 1, 22)
    wholeNumber('fineBits', fineBits, 0, MAX_CALL_BITS)
    wholeNumber('coarseBit', coarseBit, 0, MAX_CALL_BITS)
    this.#holds(coarse, Math.ceil((coarseBit + Math.ceil(fineBits / 2 ** shift)) / 8))
    this.#holds(fine, Math.ceil(fineBits / 8))
  }

  /** Kernels do not check: a wrong length or address would read and write another lane's bits. */
  #holds(lane: Lane, byteLength: number): void {
    const { ptr, bytes } = lane
    if (bytes.buffer !== this.#buffer || bytes.byteOffset !== ptr) {
      throw new RangeError('the lane is not one of this engine')
    }
    wholeNumber('byteLength', byteLength, 0, bytes.byteLength)
  }
}

function align(ptr: number): number {
  return Math.ceil(ptr / 16) * 16
}
