import { wholeNumber } from './check.js'
import type { BitmapEngine, Lane } from './engine.js'
import { checked, type ExtentOptions, granulesOf } from './extents.js'

/** 256 KiB of bits. */
const WINDOW_BITS = 2 ** 21
/** Extents that are not in the engine's memory go there 2,048 at a time: 32 KiB. */
const BATCH_NUMBERS = 4096

/** Where a window of bits lies. */
export interface PaintWindow extends ExtentOptions {
  /** The granule that the window's first bit stands for. */
  readonly firstBit: number
  /** Bits of the window. */
  readonly bits: number
  /** No extent may begin before it: where the one before the first ended (default 0). Bytes. */
  readonly after?: number
}

/**
 * From extents back to bits: sets, in the window at `dst`, each granule that an extent touches; with `value: 0` it
 * clears each granule that an extent covers, so that a bit that is not known to be clean stays dirty (the disk's last
 * granule, which is clipped, is covered by an extent that ends with the disk). Other bits stay as they are. What lies
 * before the window or after it is not painted.
 *
 * Extents that are in the engine's memory, as the chunks of an extractor are, are read where they are; of others
 * 32 KiB at a time are copied to the arena.
 *
 * @param extents alternating start and end byte offsets, whole pairs, ascending, none of them empty
 * @returns how many of these numbers are done with, since they end with the window or before it: begin the next
 *   window with `extents.subarray(n)`
 * @throws RangeError for a window that the lane does not hold or the disk has not, numbers out of range, a full arena;
 *   for extents that descend, overlap, are empty, fractional, NaN or end after the disk: then part of the window may
 *   be painted
 */
export function paintExtents(
  engine: BitmapEngine,
  dst: Lane,
  extents: Float64Array,
  window: PaintWindow,
): number {
  const { granularity, limit, value, firstBit, bits, after = 0 } = checked(window)
  wholeNumber('after', after)
  wholeNumber('bits', bits, 0, 2 ** 31)
  engine.countRange(dst, bits, 0)
  const granules = granulesOf(limit, granularity)
  wholeNumber('firstBit', firstBit, 0, Math.max(0, granules - bits))
  if (bits > granules) throw new RangeError(`the disk has ${granules} granules, not ${bits}`)
  if (extents.length % 2 !== 0) throw new RangeError(`${extents.length} offsets are not whole pairs`)

  const { kernels } = engine
  let ends = after
  const paint = (ptr: number, from: number, numbers: number): number => {
    const done = kernels.paint(ptr, numbers / 2, ends, firstBit, bits, granularity, limit, dst.ptr, value)
    if (done < 0) throw badExtent(extents, from + (-1 - done) * 2)
    ends = kernels.lastEnd.value as number
    return done * 2
  }
  if (extents.buffer === dst.bytes.buffer) return paint(extents.byteOffset, 0, extents.length)
  return engine.scratch(() => {
    const batch = Math.min(BATCH_NUMBERS, extents.length)
    const lane = engine.lane(batch * 8)
    const room = new Float64Array(lane.bytes.buffer, lane.ptr, batch)
    for (let at = 0; at < extents.length; ) {
      const some = extents.subarray(at, at + batch)
      room.set(some)
      const done = paint(lane.ptr, at, some.length)
      at += done
      if (done < some.length) return at
    }
    return extents.length
  })
}

function badExtent(extents: Float64Array, at: number): RangeError {
  return new RangeError(
    `extent ${at / 2}, from ${extents[at]} to ${extents[at + 1]}, is empty, not of whole bytes, out of order or past the disk's end`,
  )
}

/** One window that a painter is done with. */
export interface PaintedWindow {
  /** The painter's own: good until the next window is asked for. Bits after `bits` in the last byte are clear. */
  readonly lane: Lane
  readonly firstBit: number
  readonly bits: number
  /** Does any extent reach into the window? If not, all its bits are as they were before: all clear or, for clean extents, all set. */
  readonly touched: boolean
}

/**
 * Turns extents, in order and in chunks, into windows of bits: the way back from {@link ExtentExtractor}, for disks
 * of any size. Every window of the disk comes once, in order, those without extents too.
 *
 * With `value: 1` bits are clear but for the granules that an extent touches; with `value: 0` (clean extents) they are
 * set but for the granules that an extent covers.
 *
 * @example
 * const painter = new ExtentPainter(engine, { granularity: 65536, limit: diskBytes })
 * for (const window of painter.push(Float64Array.of(0, 65536))) use(window)
 * for (const window of painter.finish()) use(window)
 */
export class ExtentPainter {
  readonly #engine: BitmapEngine
  readonly #options: ExtentOptions & { readonly value: 0 | 1 }
  readonly #granules: number
  readonly #windowBits: number
  readonly #lane: Lane
  #firstBit = 0
  #after = 0
  #touched = false

  /**
   * @param options.windowBits bits of a window, a multiple of 8 (default 2^21, which takes 256 KiB of the arena)
   * @throws RangeError for numbers out of range, or a full arena
   */
  constructor(engine: BitmapEngine, options: ExtentOptions & { readonly windowBits?: number }) {
    const { windowBits = WINDOW_BITS, granularity, limit, value } = checked(options)
    wholeNumber('windowBits', windowBits, 8, 2 ** 31)
    if (windowBits % 8 !== 0) throw new RangeError(`windowBits is ${windowBits}, no multiple of 8`)
    this.#engine = engine
    this.#options = { granularity, limit, value }
    this.#granules = granulesOf(limit, granularity)
    this.#windowBits = windowBits
    this.#lane = engine.lane(windowBits / 8)
    this.#clear()
  }

  /**
   * The next extents; see {@link paintExtents} for what they must be. Works only as far as its windows are taken, and
   * reads `extents` until then.
   * @throws RangeError for extents that cannot be
   */
  *push(extents: Float64Array): Generator<PaintedWindow, void, undefined> {
    for (let rest = extents; ; ) {
      const window = { ...this.#options, firstBit: this.#firstBit, bits: this.#bits(), after: this.#after }
      const done = paintExtents(this.#engine, this.#lane, rest, window)
      if (done > 0) this.#after = rest[done - 1]!
      const next = rest[done]
      this.#touched ||= done > 0
      if (next === undefined) return
      // It goes on after this window, and may begin in it.
      this.#touched ||= next < (this.#firstBit + this.#bits()) * this.#options.granularity
      rest = rest.subarray(done)
      yield* this.#flush()
    }
  }

  /** The rest of the disk. The painter then begins again. */
  *finish(): Generator<PaintedWindow, void, undefined> {
    while (this.#firstBit < this.#granules) yield* this.#flush()
    this.#firstBit = 0
    this.#after = 0
    this.#touched = false
    this.#clear()
  }

  *#flush(): Generator<PaintedWindow, void, undefined> {
    const bits = this.#bits()
    yield { lane: this.#lane, firstBit: this.#firstBit, bits, touched: this.#touched }
    this.#firstBit += bits
    this.#touched = false
    this.#clear()
  }

  #bits(): number {
    return Math.min(this.#windowBits, this.#granules - this.#firstBit)
  }

  #clear(): void {
    this.#lane.bytes.fill(0)
    if (this.#options.value === 0) this.#engine.fillRange(this.#lane, 0, this.#bits(), 1)
  }
}
