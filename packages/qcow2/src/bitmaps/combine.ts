import { type BitmapEngine, ExtentExtractor, type Lane, type MergeOperation } from '@tidemark/bitmap-wasm'
import { Qcow2Error } from '../errors.js'
import type { BitmapSource } from './source.js'
import { Combination, sourceTerm, type Term, WINDOW_BITS, WINDOW_BYTES, type WindowState } from './terms.js'

/** Bytes for an engine that combines any number of bitmaps: windows are shared, not one for each. */
export const COMBINE_ARENA_BYTES = 2 * 1024 * 1024

/** A bitmap, or several which are united first: one checkpoint's bitmaps down a backing chain, say. */
export type BitmapOperand = BitmapSource | readonly BitmapSource[]

export interface CombineOptions {
  /** Applied from left to right (default union). */
  operation?: MergeOperation
  /**
   * Marks every granule of this size (bytes, a power of two from 2^9 to 2^31) that the result touches.
   * Not larger than the finest bitmap's granularity: no effect, the result is a set of bytes anyway.
   */
  granularity?: number
  /**
   * Widen each bitmap to `granularity` before the operation, instead of the result after it. Makes no difference
   * to a union; a difference is then that of granules touched.
   */
  widenFirst?: boolean
  signal?: AbortSignal
}

/** Bits of the result, in order. `mixed`: in `lane`, valid until the next window is asked for. */
export interface ResultWindow {
  readonly state: WindowState
  readonly lane: Lane
  readonly bits: number
}

interface ResultWindows {
  /** Bytes for each bit. */
  readonly granularity: number
  readonly windows: AsyncGenerator<ResultWindow, void, undefined>
}

/**
 * The dirty extents of several bitmaps of one disk, combined as sets of bytes: exact, whatever their
 * granularities. Yields chunks of alternating start and end byte offsets, whole pairs, ascending, never touching;
 * a chunk is good until the next is asked for. Memory does not depend on the bitmaps' sizes.
 *
 * @param engine with an arena of at least COMBINE_ARENA_BYTES, used by nobody else meanwhile
 * @throws {Qcow2Error} `disk-size-differs`; whatever reading throws
 */
export async function* dirtyExtents(
  engine: BitmapEngine,
  operands: readonly BitmapOperand[],
  options: CombineOptions = {},
): AsyncGenerator<Float64Array, void, undefined> {
  const limit = sameDisk(operands)
  const mark = engine.mark()
  try {
    const { granularity, windows } = combine(engine, operands, limit, options)
    const extents = new ExtentExtractor(engine, { granularity, limit })
    for await (const { state, lane, bits } of windows) {
      options.signal?.throwIfAborted()
      if (state === 'mixed') yield* extents.push(lane, bits)
      else yield* extents.pushRun(state === 'ones' ? 1 : 0, bits)
    }
    const rest = extents.finish()
    if (rest !== undefined) yield rest
  } finally {
    engine.release(mark)
  }
}

/**
 * The bits of several bitmaps united, at a granularity not finer than theirs: a bit is set that any of them touches.
 * Windows of up to 2^21 bits, in order, whose bits after the disk's end are clear; the lane is good until the next.
 *
 * @param engine with an arena of at least COMBINE_ARENA_BYTES; its lanes are given back at the end
 */
export async function* unitedWindows(
  engine: BitmapEngine,
  sources: readonly BitmapSource[],
  granularity: number,
  signal?: AbortSignal,
): AsyncGenerator<ResultWindow, void, undefined> {
  const disk = sameDisk(sources)
  const mark = engine.mark()
  try {
    for await (const window of combineAt(engine, sources, 'union', granularity, disk)) {
      signal?.throwIfAborted()
      yield window
    }
  } finally {
    engine.release(mark)
  }
}

/** How many granules (of the result's granularity) and how many bytes are dirty, the last one clipped to the disk. */
export async function countDirty(
  engine: BitmapEngine,
  operands: readonly BitmapOperand[],
  options: CombineOptions = {},
): Promise<{ granularity: number; granules: number; bytes: number }> {
  const limit = sameDisk(operands)
  const mark = engine.mark()
  try {
    const { granularity, windows } = combine(engine, operands, limit, options)
    let granules = 0
    let position = 0
    let lastSet = false
    for await (const { state, lane, bits } of windows) {
      options.signal?.throwIfAborted()
      if (state === 'mixed') {
        granules += engine.count(lane, Math.ceil(bits / 8))
        lastSet = ((lane.bytes[(bits - 1) >> 3]! >> ((bits - 1) & 7)) & 1) === 1
      } else {
        if (state === 'ones') granules += bits
        lastSet = state === 'ones'
      }
      position += bits
    }
    const beyond = position * granularity - limit
    return { granularity, granules, bytes: granules * granularity - (lastSet ? beyond : 0) }
  } finally {
    engine.release(mark)
  }
}

/** @returns the disk's size that all bitmaps share */
function sameDisk(operands: readonly BitmapOperand[]): number {
  const [first, ...rest] = operands.flatMap(sourcesOf)
  if (first === undefined) throw new RangeError('no bitmap to combine')
  for (const other of rest) {
    if (other.diskBytes !== first.diskBytes) {
      throw new Qcow2Error(
        'disk-size-differs',
        `${first.label} is of a disk of ${first.diskBytes} bytes, ${other.label} of one of ${other.diskBytes}`,
        { sizes: [first.diskBytes, other.diskBytes] },
      )
    }
  }
  return first.diskBytes
}

function sourcesOf(operand: BitmapOperand): readonly BitmapSource[] {
  return 'readInto' in operand ? [operand] : operand
}

function combine(
  engine: BitmapEngine,
  operands: readonly BitmapOperand[],
  disk: number,
  options: CombineOptions,
): ResultWindows {
  const { operation = 'union', granularity: asked } = options
  if (asked !== undefined && !(asked >= 2 ** 9 && asked <= 2 ** 31 && Number.isInteger(Math.log2(asked)))) {
    throw new RangeError(`granularity ${asked} is not a power of two from 2^9 to 2^31`)
  }
  const finest = operands
    .flatMap(sourcesOf)
    .reduce((least, { granularity }) => Math.min(least, granularity), 2 ** 31)
  const wider = asked !== undefined && asked > finest
  const working = wider && (operation === 'union' || options.widenFirst) ? asked : finest
  const exact = combineAt(engine, operands, operation, working, disk)
  if (!wider || working === asked) return { granularity: working, windows: exact }
  const bits = Math.ceil(disk / asked)
  return { granularity: asked, windows: coarsen(engine, exact, Math.log2(asked / finest), bits) }
}

/** The operation on bits of one working granularity. */
async function* combineAt(
  engine: BitmapEngine,
  operands: readonly BitmapOperand[],
  operation: MergeOperation,
  working: number,
  disk: number,
): AsyncGenerator<ResultWindow, void, undefined> {
  // Groups are evaluated one after the other: one window serves them all, however many there are.
  const within = operands.some(operand => sourcesOf(operand).length !== 1)
    ? engine.lane(WINDOW_BYTES)
    : undefined
  const terms = operands.map(operand => termOf(engine, operand, working, within))
  const term = new Combination(engine, operation, terms, engine.lane(WINDOW_BYTES))
  const lane = engine.lane(WINDOW_BYTES)
  const granules = Math.ceil(disk / working)
  for (let start = 0; start < granules; start += WINDOW_BITS) {
    const bits = Math.min(WINDOW_BITS, granules - start)
    const state = await term.evaluate(lane, start, bits)
    if (state === 'mixed') engine.maskTail(lane, bits, Math.ceil(bits / 8))
    yield { state, lane, bits }
  }
}

function termOf(
  engine: BitmapEngine,
  operand: BitmapOperand,
  working: number,
  within: Lane | undefined,
): Term {
  const terms = sourcesOf(operand).map(source =>
    sourceTerm(engine, source, Math.log2(source.granularity / working)),
  )
  return within === undefined || terms.length === 1
    ? terms[0]!
    : new Combination(engine, 'union', terms, within)
}

/**
 * Gathers fine windows into windows of coarse bits. A coarse bit may take many fine windows: the lane is filled
 * until it is full.
 */
async function* coarsen(
  engine: BitmapEngine,
  windows: AsyncGenerator<ResultWindow, void, undefined>,
  shift: number,
  coarseBits: number,
): AsyncGenerator<ResultWindow, void, undefined> {
  const lane = engine.lane(WINDOW_BYTES)
  let base = 0
  let fine = 0
  let touched = false
  const flush = function* (upTo: number): Generator<ResultWindow, void, undefined> {
    yield { state: touched ? 'mixed' : 'zeros', lane, bits: upTo - base }
    lane.bytes.fill(0)
    touched = false
    base = upTo
  }
  for await (const window of windows) {
    const first = Math.floor(fine / 2 ** shift)
    fine += window.bits
    if (Math.ceil(fine / 2 ** shift) - base > WINDOW_BITS) yield* flush(base + WINDOW_BITS)
    if (window.state === 'zeros') continue
    if (window.state === 'ones') window.lane.bytes.fill(0xff, 0, Math.ceil(window.bits / 8))
    engine.coarsen(window.lane, window.bits, shift, lane, first - base)
    touched = true
  }
  yield* flush(coarseBits)
}
