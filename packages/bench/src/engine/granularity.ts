import type { Contender } from '../harness/rounds.js'
import { type Field, fingerprint, REFINE_SHIFT, WINDOW_BYTES, windows, words16 } from './field.js'
import type { NativeKernels } from './native.js'
import * as plain from './plain.js'

const COARSE_WINDOW = WINDOW_BYTES >> REFINE_SHIFT

/** ORs 16 bits of `src` into one of a bitmap 16 times smaller. No library of sets does that. */
export function coarsenContenders(field: Field, natives: readonly NativeKernels[]): Contender[] {
  const { engine, lanes, src, size } = field
  const coarseBytes = size.bytes >> REFINE_SHIFT
  const lane = lanes ? engine.lane(coarseBytes) : undefined
  const coarse = lane?.bytes ?? new Uint8Array(coarseBytes)
  const window = { fine: engine.lane(lanes ? 0 : WINDOW_BYTES), coarse: engine.lane(COARSE_WINDOW) }
  const contender = (name: string, run: () => void): Contender => ({
    name,
    run,
    answer() {
      coarse.fill(0)
      run()
      return fingerprint(coarse)
    },
  })
  const tidemark = () => {
    if (lanes && lane) return engine.coarsen(lanes.src, size.bytes * 8, REFINE_SHIFT, lane, 0)
    for (const at of windows(size.bytes)) {
      const coarseAt = at >> REFINE_SHIFT
      window.fine.bytes.set(src.subarray(at, at + WINDOW_BYTES))
      window.coarse.bytes.set(coarse.subarray(coarseAt, coarseAt + COARSE_WINDOW))
      engine.coarsen(window.fine, WINDOW_BYTES * 8, REFINE_SHIFT, window.coarse, 0)
      coarse.set(window.coarse.bytes, coarseAt)
    }
  }
  return [
    contender('tidemark', tidemark),
    ...natives.map(native => contender(native.name, () => native.coarsen16(coarse, src, coarseBytes))),
    contender('plain JS', () => plain.coarsen16(coarse, words16(src))),
  ]
}

/** Spreads each bit of a bitmap over 16 of `dst`. */
export function refineContenders(field: Field, natives: readonly NativeKernels[]): Contender[] {
  const { engine, lanes, dst, src, size } = field
  const coarseBytes = size.bytes >> REFINE_SHIFT
  const lane = lanes ? engine.lane(coarseBytes) : undefined
  const coarse = lane?.bytes ?? new Uint8Array(coarseBytes)
  coarse.set(src.subarray(0, coarseBytes))
  const window = { fine: engine.lane(lanes ? 0 : WINDOW_BYTES), coarse: engine.lane(COARSE_WINDOW) }
  const contender = (name: string, run: () => void): Contender => ({
    name,
    run,
    answer() {
      dst.fill(0)
      run()
      return fingerprint(dst)
    },
  })
  const tidemark = () => {
    if (lanes && lane) return engine.refine(lane, 0, REFINE_SHIFT, lanes.dst, size.bytes * 8)
    for (const at of windows(size.bytes)) {
      const coarseAt = at >> REFINE_SHIFT
      window.coarse.bytes.set(coarse.subarray(coarseAt, coarseAt + COARSE_WINDOW))
      engine.refine(window.coarse, 0, REFINE_SHIFT, window.fine, WINDOW_BYTES * 8)
      dst.set(window.fine.bytes, at)
    }
  }
  return [
    contender('tidemark', tidemark),
    ...natives.map(native => contender(native.name, () => native.refine16(dst, coarse, coarseBytes))),
    contender('plain JS', () => plain.refine16(words16(dst), coarse)),
  ]
}
