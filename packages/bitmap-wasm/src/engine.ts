import { instantiate, type Kernels } from './module.js'

const PAGE = 65536
/** Kernels load whole words and vectors: each lane can be read this far past its end. */
const LANE_PADDING = 64
const DEFAULT_ARENA_BYTES = 2 * 1024 * 1024

/** How two bitmaps of one granularity are combined; the first operand holds the result. */
export type MergeOperation = 'union' | 'intersection' | 'difference' | 'xor'

/** A piece of an engine's arena: `ptr` for kernels, `bytes` to read into and out of. */
export interface Lane {
  /** Address in the engine's memory, a multiple of 16. */
  readonly ptr: number
  /** The lane's bytes, a view: valid as long as the engine, since its memory never grows. */
  readonly bytes: Uint8Array
}

export interface EngineOptions {
  /**
   * Room for lanes, in bytes (default 2 MiB, at most 1 GiB). Fixed for the engine's life: growing would
   * detach every view, and a read into a detached view silently reads nothing.
   */
  arenaBytes?: number
}

/**
 * The kernels and an arena of their own. Engines are independent: make one for each stream of work, and let the
 * garbage collector have it afterwards.
 *
 * Bits are counted as in qcow2: bit i is byte i >> 3, mask 1 << (i & 7).
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
  /** Gives back all lanes that were taken since `mark`; they must not be used any more. */
  release(mark: number): void
  /** Runs `use` and gives back to the arena all lanes that it took. */
  scratch<T>(use: () => T): T
  /**
   * dst = dst ∘ src over the first `byteLength` bytes.
   * @throws RangeError when a lane is shorter
   */
  merge(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): void
  /** Clears what lies after the first `bits` bits, up to `byteLength`. */
  maskTail(dst: Lane, bits: number, byteLength: number): void
  /** The number of set bits in the first `byteLength` bytes. */
  count(src: Lane, byteLength: number): number
  /**
   * Spreads coarse bits, from `coarseBit` on, over `1 << shift` fine bits each, until `fineBits` are written
   * (rounded up to whole bytes). For a shift below 3 `coarseBit` is a multiple of 8.
   */
  refine(src: Lane, coarseBit: number, shift: number, dst: Lane, fineBits: number): void
  /** ORs `fineBits` bits into coarse bits of `1 << shift` each, the first at `dstBit`. */
  coarsen(src: Lane, fineBits: number, shift: number, dst: Lane, dstBit: number): void
}

/**
 * Makes an engine.
 *
 * @throws RangeError for an arena size out of range
 */
export function createEngine(options: EngineOptions = {}): BitmapEngine {
  const { arenaBytes = DEFAULT_ARENA_BYTES } = options
  if (!Number.isInteger(arenaBytes) || arenaBytes < LANE_PADDING || arenaBytes > 2 ** 30) {
    throw new RangeError(`arenaBytes is ${arenaBytes}, not a whole number from ${LANE_PADDING} to 2^30`)
  }
  return new Engine(arenaBytes)
}

class Engine implements BitmapEngine {
  readonly kernels: Kernels
  readonly arenaBytes: number
  readonly #buffer: ArrayBuffer
  #next: number

  constructor(arenaBytes: number) {
    // The module's own data lies below HEAP_BASE, which is far less than a page.
    const pages = Math.ceil(arenaBytes / PAGE) + 1
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
    const exports = instantiate(memory)
    this.kernels = exports
    this.arenaBytes = arenaBytes
    this.#buffer = memory.buffer
    this.#next = align((exports['HEAP_BASE'] as WebAssembly.Global).value as number)
  }

  lane(byteLength: number): Lane {
    if (!Number.isInteger(byteLength) || byteLength < 0) {
      throw new RangeError(`a lane of ${byteLength} bytes`)
    }
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
    if (!(mark <= this.#next)) throw new RangeError(`mark ${mark} lies beyond what is taken`)
    this.#next = mark
  }

  scratch<T>(use: () => T): T {
    const mark = this.mark()
    try {
      return use()
    } finally {
      this.release(mark)
    }
  }

  merge(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): void {
    holds(dst, byteLength)
    holds(src, byteLength)
    this.kernels[operation](dst.ptr, src.ptr, byteLength)
  }

  maskTail(dst: Lane, bits: number, byteLength: number): void {
    holds(dst, byteLength)
    this.kernels.maskTail(dst.ptr, bits, byteLength)
  }

  count(src: Lane, byteLength: number): number {
    holds(src, byteLength)
    return this.kernels.count(src.ptr, byteLength)
  }

  refine(src: Lane, coarseBit: number, shift: number, dst: Lane, fineBits: number): void {
    inShift(shift)
    if (shift < 3 && coarseBit % 8 !== 0) throw new RangeError(`coarse bit ${coarseBit} is no multiple of 8`)
    holds(src, Math.ceil((coarseBit + Math.ceil(fineBits / 2 ** shift)) / 8))
    holds(dst, Math.ceil(fineBits / 8))
    this.kernels.refine(src.ptr, coarseBit, shift, dst.ptr, fineBits)
  }

  coarsen(src: Lane, fineBits: number, shift: number, dst: Lane, dstBit: number): void {
    inShift(shift)
    holds(src, Math.ceil(fineBits / 8))
    holds(dst, Math.ceil((dstBit + Math.ceil(fineBits / 2 ** shift)) / 8))
    this.kernels.coarsen(src.ptr, fineBits, shift, dst.ptr, dstBit)
  }
}

function align(ptr: number): number {
  return Math.ceil(ptr / 16) * 16
}

/** Kernels do not check: a wrong length would read another lane's bits. */
function holds(lane: Lane, byteLength: number): void {
  if (!(byteLength >= 0 && byteLength <= lane.bytes.byteLength)) {
    throw new RangeError(`${byteLength} bytes of a lane that holds ${lane.bytes.byteLength}`)
  }
}

/** Granularities go from 2^9 to 2^31, so two of them differ by 2^22 at most. */
function inShift(shift: number): void {
  if (!(Number.isInteger(shift) && shift >= 1 && shift <= 22))
    throw new RangeError(`shift ${shift} is not in 1…22`)
}
