import { wholeNumber } from './check.js'
import type { BitmapEngine, Lane, MergeOperation } from './engine.js'
import { instantiate, type Kernels, wasmConstant } from './module.js'

const PAGE = 65536
/** Kernels load whole words and vectors: each lane can be read this far past its end. */
export const LANE_PADDING = 64
/**
 * Data of one call of a kernel. V8 does not leave its baseline code, several times slower, in mid-call; and positions
 * within a piece fit an i32.
 */
const PIECE_BYTES = 256 * 1024
const PIECE_BITS = PIECE_BYTES * 8
/** Bits that one change of granularity may go through. */
const MAX_CALL_BITS = 2 ** 31
/** Granularities go from 2^9 to 2^31, so two of them differ by 2^22 at most. */
const MAX_SHIFT = 22

/** In the kernels' order. */
const operations: Readonly<Record<MergeOperation, number>> = {
  union: 0,
  intersection: 1,
  difference: 2,
  xor: 3,
}

/** {@link BitmapEngine} over one instance of the module: checks, cuts into pieces, calls. */
export class WasmEngine implements BitmapEngine {
  readonly arenaBytes: number
  readonly #base: number
  // Until it is disposed of.
  #kernels: Kernels | undefined
  #buffer: ArrayBuffer | undefined
  #next: number

  constructor(arenaBytes: number) {
    // The module's own data lies below HEAP_BASE, which is less than a page.
    const pages = Math.ceil(arenaBytes / PAGE) + 1
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
    this.#kernels = instantiate(memory)
    this.arenaBytes = arenaBytes
    this.#buffer = memory.buffer
    this.#base = align(wasmConstant('HEAP_BASE'))
    this.#next = this.#base
  }

  get kernels(): Kernels {
    if (this.#kernels === undefined) throw new TypeError('the engine is disposed of')
    return this.#kernels
  }

  get disposed(): boolean {
    return this.#kernels === undefined
  }

  dispose(): void {
    this.#kernels = undefined
    this.#buffer = undefined
  }

  lane(byteLength: number): Lane {
    wholeNumber('byteLength', byteLength)
    const buffer = this.#memory()
    const ptr = this.#next
    const end = align(ptr + byteLength + LANE_PADDING)
    if (end > buffer.byteLength) {
      throw new RangeError(`the arena of ${this.arenaBytes} bytes has no room for a lane of ${byteLength}`)
    }
    this.#next = end
    new Uint8Array(buffer, ptr, end - ptr).fill(0)
    return { ptr, bytes: new Uint8Array(buffer, ptr, byteLength) }
  }

  subLane(lane: Lane, byteOffset: number, byteLength?: number): Lane {
    this.#holds(lane, 0)
    wholeNumber('byteOffset', byteOffset, 0, lane.bytes.byteLength)
    const length = byteLength ?? lane.bytes.byteLength - byteOffset
    wholeNumber('byteLength', length, 0, lane.bytes.byteLength - byteOffset)
    return { ptr: lane.ptr + byteOffset, bytes: lane.bytes.subarray(byteOffset, byteOffset + length) }
  }

  mark(): number {
    this.#memory()
    return this.#next
  }

  release(mark: number): void {
    this.#memory()
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
      // There is nothing to give back where `use` disposed of the engine.
      if (!this.disposed) this.release(mark)
    }
  }

  merge(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): void {
    this.#pair(operation, dst, src, byteLength)
    const merge = this.kernels[operation]
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      merge(dst.ptr + at, src.ptr + at, Math.min(PIECE_BYTES, byteLength - at))
    }
  }

  mergeCount(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): number {
    const number = this.#pair(operation, dst, src, byteLength)
    const { mergeCount } = this.kernels
    let total = 0
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      total += mergeCount(number, dst.ptr + at, src.ptr + at, Math.min(PIECE_BYTES, byteLength - at))
    }
    return total
  }

  complement(dst: Lane, bits: number): void {
    this.#holdsBits(dst, bits)
    const { complement } = this.kernels
    for (let at = 0; at < bits; at += PIECE_BITS) {
      complement(dst.ptr + at / 8, Math.min(PIECE_BITS, bits - at))
    }
  }

  fillRange(dst: Lane, firstBit: number, bits: number, value: 0 | 1): void {
    this.#holdsRange(dst, firstBit, bits)
    wholeNumber('value', value, 0, 1)
    const { fillRange } = this.kernels
    pieces(firstBit, bits, (byte, bit, some) => fillRange(dst.ptr + byte, bit, some, value))
  }

  maskTail(dst: Lane, bits: number, byteLength: number): void {
    wholeNumber('bits', bits)
    this.#holds(dst, byteLength)
    const byte = Math.floor(bits / 8)
    if (byte < byteLength) this.kernels.maskTail(dst.ptr + byte, bits % 8, byteLength - byte)
  }

  count(src: Lane, byteLength: number): number {
    this.#holds(src, byteLength)
    const { count } = this.kernels
    let total = 0
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      total += count(src.ptr + at, Math.min(PIECE_BYTES, byteLength - at))
    }
    return total
  }

  countRange(src: Lane, firstBit: number, bits: number): number {
    this.#holdsRange(src, firstBit, bits)
    const { countRange } = this.kernels
    let total = 0
    pieces(firstBit, bits, (byte, bit, some) => {
      total += countRange(src.ptr + byte, bit, some)
    })
    return total
  }

  equals(a: Lane, b: Lane, byteLength: number): boolean {
    this.#holds(a, byteLength)
    this.#holds(b, byteLength)
    const { equals } = this.kernels
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      if (equals(a.ptr + at, b.ptr + at, Math.min(PIECE_BYTES, byteLength - at)) === 0) return false
    }
    return true
  }

  isSubset(a: Lane, b: Lane, bits: number): boolean {
    return this.firstViolation(a, b, bits) < 0
  }

  firstViolation(a: Lane, b: Lane, bits: number): number {
    this.#holdsBits(a, bits)
    this.#holdsBits(b, bits)
    const { firstViolation } = this.kernels
    for (let at = 0; at < bits; at += PIECE_BITS) {
      const found = firstViolation(a.ptr + at / 8, b.ptr + at / 8, Math.min(PIECE_BITS, bits - at))
      if (found >= 0) return at + found
    }
    return -1
  }

  nextSet(src: Lane, from: number, bits: number): number {
    return this.#nextBit(src, from, bits, 1)
  }

  nextClear(src: Lane, from: number, bits: number): number {
    return this.#nextBit(src, from, bits, 0)
  }

  #nextBit(src: Lane, from: number, bits: number, value: 0 | 1): number {
    this.#holdsBits(src, bits)
    wholeNumber('first bit', from)
    const { nextBit } = this.kernels
    let bit = from % 8
    for (let at = from - bit; at < bits; at += PIECE_BITS) {
      const found = nextBit(src.ptr + at / 8, bit, Math.min(PIECE_BITS, bits - at), value)
      if (found >= 0) return at + found
      bit = 0
    }
    return -1
  }

  refine(src: Lane, coarseBit: number, shift: number, dst: Lane, fineBits: number, phase = 0): void {
    const first = this.#refines(src, coarseBit, shift, dst, fineBits, phase)
    const { refine } = this.kernels
    for (let at = 0; at < fineBits; at += PIECE_BITS) {
      refine(src.ptr, first + at, shift, dst.ptr + at / 8, Math.min(PIECE_BITS, fineBits - at))
    }
  }

  refineMerge(
    operation: MergeOperation,
    src: Lane,
    coarseBit: number,
    shift: number,
    dst: Lane,
    fineBits: number,
    phase = 0,
  ): void {
    const number = operationNumber(operation)
    const first = this.#refines(src, coarseBit, shift, dst, fineBits, phase)
    const { refineMerge } = this.kernels
    for (let at = 0; at < fineBits; at += PIECE_BITS) {
      refineMerge(number, src.ptr, first + at, shift, dst.ptr + at / 8, Math.min(PIECE_BITS, fineBits - at))
    }
  }

  coarsen(src: Lane, fineBits: number, shift: number, dst: Lane, dstBit: number): void {
    this.#changes(dst, dstBit, shift, src, fineBits, 0)
    const { coarsen } = this.kernels
    for (let at = 0; at < fineBits; at += PIECE_BITS) {
      // A piece is a multiple of the coarse bit, or lies within one.
      const bit = dstBit + Math.floor(at / 2 ** shift)
      coarsen(
        src.ptr + at / 8,
        Math.min(PIECE_BITS, fineBits - at),
        shift,
        dst.ptr + Math.floor(bit / 8),
        bit % 8,
      )
    }
  }

  /** @returns the position of the first fine bit, where the first one of the lane's first coarse bit is 0 */
  #refines(src: Lane, coarseBit: number, shift: number, dst: Lane, fineBits: number, phase: number): number {
    this.#changes(src, coarseBit, shift, dst, fineBits, phase)
    return coarseBit * 2 ** shift + phase
  }

  #changes(
    coarse: Lane,
    coarseBit: number,
    shift: number,
    fine: Lane,
    fineBits: number,
    phase: number,
  ): void {
    wholeNumber('shift', shift, 1, MAX_SHIFT)
    wholeNumber('fineBits', fineBits, 0, MAX_CALL_BITS)
    wholeNumber('coarseBit', coarseBit, 0, MAX_CALL_BITS)
    wholeNumber('phase', phase, 0, 2 ** shift - 1)
    const coarseBytes = Math.ceil((coarseBit + Math.ceil((phase + fineBits) / 2 ** shift)) / 8)
    const fineBytes = Math.ceil(fineBits / 8)
    this.#holds(coarse, coarseBytes)
    this.#holds(fine, fineBytes)
    const first = Math.floor(coarseBit / 8)
    apart(coarse.ptr + first, coarseBytes - first, fine.ptr, fineBytes)
  }

  /** @returns the operation's number */
  #pair(operation: MergeOperation, dst: Lane, src: Lane, byteLength: number): number {
    this.#holds(dst, byteLength)
    this.#holds(src, byteLength)
    if (dst.ptr !== src.ptr) apart(dst.ptr, byteLength, src.ptr, byteLength)
    return operationNumber(operation)
  }

  #holdsBits(lane: Lane, bits: number): void {
    this.#holds(lane, 0)
    wholeNumber('bits', bits, 0, lane.bytes.byteLength * 8)
  }

  #holdsRange(lane: Lane, firstBit: number, bits: number): void {
    this.#holdsBits(lane, bits)
    wholeNumber('firstBit', firstBit, 0, lane.bytes.byteLength * 8 - bits)
  }

  /** Kernels do not check: a wrong length or address would read and write another lane's bits. */
  #holds(lane: Lane, byteLength: number): void {
    const buffer = this.#memory()
    const { ptr, bytes } = lane
    if (bytes.buffer !== buffer || bytes.byteOffset !== ptr) {
      throw new RangeError('the lane is not one of this engine')
    }
    wholeNumber('byteLength', byteLength, 0, bytes.byteLength)
  }

  #memory(): ArrayBuffer {
    if (this.#buffer === undefined) throw new TypeError('the engine is disposed of')
    return this.#buffer
  }
}

/** A range of bits in pieces: of each the byte that it begins in, the bit in there, and its length. */
function pieces(
  firstBit: number,
  bits: number,
  use: (byte: number, bit: number, some: number) => void,
): void {
  let first = firstBit
  for (let left = bits; left > 0; ) {
    const bit = first % 8
    const some = Math.min(left, PIECE_BITS - bit)
    use((first - bit) / 8, bit, some)
    first += some
    left -= some
  }
}

function operationNumber(operation: MergeOperation): number {
  const number = operations[operation]
  if (typeof number !== 'number') throw new RangeError(`no operation '${String(operation)}'`)
  return number
}

/** @throws RangeError for two ranges that have a byte in common: what is read there would depend on the kernel */
function apart(a: number, aBytes: number, b: number, bBytes: number): void {
  if (a < b + bBytes && b < a + aBytes && aBytes > 0 && bBytes > 0) {
    throw new RangeError('the lanes overlap')
  }
}

function align(ptr: number): number {
  return Math.ceil(ptr / 16) * 16
}
