import type { BitmapEngine, Lane, MergeOperation } from '@tidemark/bitmap-wasm'
import type { BitmapSource, StretchState } from './source.js'

/** 256 KiB of bits for each step: fits a cache, and a kernel call stays short. */
export const WINDOW_BITS = 2 ** 21
export const WINDOW_BYTES = WINDOW_BITS / 8

/** All clear, all set, or to be looked at. */
export type WindowState = StretchState

/** Something that has a value for each window of fine bits; windows are asked for in ascending order. */
export interface Term {
  /** What is known of a window without reading bits. */
  peek(start: number, bits: number): Promise<WindowState>
  /** The window's bits in `target`, if they are `mixed`; else `target` is left as it is. */
  evaluate(target: Lane, start: number, bits: number): Promise<WindowState>
}

/** Several terms under one operation, from left to right. */
export class Combination implements Term {
  readonly #engine: BitmapEngine
  readonly #operation: MergeOperation
  readonly #terms: readonly Term[]
  readonly #operand: Lane

  /** @param operand a window to work in; combinations within one another must not share it */
  constructor(engine: BitmapEngine, operation: MergeOperation, terms: readonly Term[], operand: Lane) {
    this.#engine = engine
    this.#operation = operation
    this.#terms = terms
    this.#operand = operand
  }

  async peek(start: number, bits: number): Promise<WindowState> {
    let state: WindowState = 'zeros'
    for (const [index, term] of this.#terms.entries()) {
      const next = await term.peek(start, bits)
      const rule: Rule = index === 0 ? 'copy' : rules[this.#operation](state, next)
      if (rule === 'copy') state = next
      else if (rule === 'merge') state = 'mixed'
      else if (rule !== 'keep') state = rule
    }
    return state
  }

  async evaluate(target: Lane, start: number, bits: number): Promise<WindowState> {
    const bytes = Math.ceil(bits / 8)
    let state: WindowState = 'zeros'
    for (const [index, term] of this.#terms.entries()) {
      const next = await term.peek(start, bits)
      const rule: Rule = index === 0 ? 'copy' : rules[this.#operation](state, next)
      if (rule === 'zeros' || rule === 'ones') state = rule
      else if (rule === 'copy') state = await term.evaluate(target, start, bits)
      else if (rule === 'merge') {
        const operand = await term.evaluate(this.#operand, start, bits)
        if (state !== 'mixed') fill(target, state, bytes)
        if (operand !== 'mixed') fill(this.#operand, operand, bytes)
        this.#engine.merge(this.#operation, target, this.#operand, bytes)
        state = 'mixed'
      }
    }
    return state
  }
}

function fill(lane: Lane, state: WindowState, bytes: number): void {
  lane.bytes.fill(state === 'ones' ? 0xff : 0, 0, bytes)
}

type Rule = 'keep' | 'copy' | 'zeros' | 'ones' | 'merge'

/**
 * What an operation comes to where a side is all clear or all set: then nothing has to be read or merged. Each
 * state has been peeked at, so a damaged table is found even where its bits would not matter.
 */
const rules: Readonly<Record<MergeOperation, (result: WindowState, next: WindowState) => Rule>> = {
  union: (result, next) =>
    next === 'zeros' || result === 'ones'
      ? 'keep'
      : next === 'ones'
        ? 'ones'
        : result === 'zeros'
          ? 'copy'
          : 'merge',
  intersection: (result, next) =>
    next === 'ones' || result === 'zeros'
      ? 'keep'
      : next === 'zeros'
        ? 'zeros'
        : result === 'ones'
          ? 'copy'
          : 'merge',
  difference: (result, next) =>
    next === 'zeros' || result === 'zeros' ? 'keep' : next === 'ones' ? 'zeros' : 'merge',
  xor: (result, next) => (next === 'zeros' ? 'keep' : result === 'zeros' ? 'copy' : 'merge'),
}

/**
 * A bitmap's windows at a working granularity: its own, a finer one (each bit stands for several) or a coarser
 * one (a bit is set when any of its own bits is).
 *
 * @param shift log2 of the bitmap's granularity over the working one: positive to refine, negative to coarsen
 */
export function sourceTerm(engine: BitmapEngine, source: BitmapSource, shift: number): Term {
  if (shift < 0) return new CoarsenedTerm(engine, source, -shift)
  return new RefinedTerm(engine, source, shift)
}

class RefinedTerm implements Term {
  readonly #engine: BitmapEngine
  readonly #source: BitmapSource
  readonly #shift: number

  constructor(engine: BitmapEngine, source: BitmapSource, shift: number) {
    this.#engine = engine
    this.#source = source
    this.#shift = shift
  }

  async peek(start: number, bits: number): Promise<WindowState> {
    const { byteOffset, byteLength } = this.#stretch(start, bits)
    return this.#source.peek(byteOffset, byteLength)
  }

  async evaluate(target: Lane, start: number, bits: number): Promise<WindowState> {
    const { byteOffset, byteLength, firstBit } = this.#stretch(start, bits)
    const state = await this.#source.peek(byteOffset, byteLength)
    if (state !== 'mixed') return state
    if (this.#shift === 0) {
      await this.#source.readInto(target.bytes.subarray(0, byteLength), byteOffset)
      return 'mixed'
    }
    // At most half a window; small enough to pass through memory of its own.
    const coarse = new Uint8Array(byteLength)
    await this.#source.readInto(coarse, byteOffset)
    this.#engine.scratch(() => {
      const lane = this.#engine.lane(byteLength)
      lane.bytes.set(coarse)
      this.#engine.refine(lane, firstBit, this.#shift, target, bits)
    })
    return 'mixed'
  }

  /** The bytes of the bitmap that hold `bits` working bits from `start` on. */
  #stretch(start: number, bits: number): { byteOffset: number; byteLength: number; firstBit: number } {
    const scale = 2 ** this.#shift
    const first = Math.floor(start / scale)
    const last = Math.ceil((start + bits) / scale)
    const byteOffset = Math.floor(first / 8)
    return { byteOffset, byteLength: Math.ceil(last / 8) - byteOffset, firstBit: first % 8 }
  }
}

class CoarsenedTerm implements Term {
  readonly #engine: BitmapEngine
  readonly #source: BitmapSource
  readonly #shift: number

  constructor(engine: BitmapEngine, source: BitmapSource, shift: number) {
    this.#engine = engine
    this.#source = source
    this.#shift = shift
  }

  async peek(start: number, bits: number): Promise<WindowState> {
    const scale = 2 ** this.#shift
    const fineStart = start * scale
    const fineEnd = Math.min((start + bits) * scale, this.#source.granules)
    return this.#source.peek(fineStart / 8, Math.ceil(fineEnd / 8) - fineStart / 8)
  }

  async evaluate(target: Lane, start: number, bits: number): Promise<WindowState> {
    const known = await this.peek(start, bits)
    if (known !== 'mixed') return known
    // Terms are evaluated one after the other, so that they can take turns with one piece of the arena.
    const mark = this.#engine.mark()
    try {
      await this.#gather(target, this.#engine.lane(WINDOW_BYTES), start, bits)
    } finally {
      this.#engine.release(mark)
    }
    return 'mixed'
  }

  /** Goes through as many fine windows as the coarse one takes; stretches without data cost nothing. */
  async #gather(target: Lane, fine: Lane, start: number, bits: number): Promise<void> {
    const scale = 2 ** this.#shift
    const fineEnd = Math.min((start + bits) * scale, this.#source.granules)
    target.bytes.fill(0, 0, Math.ceil(bits / 8))
    for (let at = start * scale; at < fineEnd; at += WINDOW_BITS) {
      const fineBits = Math.min(WINDOW_BITS, fineEnd - at)
      const bytes = Math.ceil(fineBits / 8)
      const state = await this.#source.peek(at / 8, bytes)
      if (state === 'zeros') continue
      if (state === 'ones') fine.bytes.fill(0xff, 0, bytes)
      else await this.#source.readInto(fine.bytes.subarray(0, bytes), at / 8)
      this.#engine.coarsen(fine, fineBits, this.#shift, target, Math.floor(at / scale) - start)
    }
  }
}
