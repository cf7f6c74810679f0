import FastBitSet from 'fastbitset'
import { TypedFastBitSet } from 'typedfastbitset'
import type { Contender } from '../harness/rounds.js'
import { type Field, WINDOW_BYTES, windows, words32 } from './field.js'
import { fastBitSetFits, roaringFits } from './limits.js'
import type { NativeKernels } from './native.js'
import * as plain from './plain.js'
import { roaringFromBits } from './roaring.js'

/** How many bits are set. */
export function countContenders(field: Field, natives: readonly NativeKernels[]): Contender[] {
  field.reset()
  const { dst } = field
  const words = words32(dst)
  const counts = (name: string, run: () => number): Contender => ({ name, run, answer: () => String(run()) })
  const typed = TypedFastBitSet.fromWords(words)
  const contenders = [
    counts('tidemark', tidemark(field)),
    ...natives.map(native => counts(native.name, () => native.count(dst, dst.length / 8))),
    counts('typedfastbitset', () => typed.size()),
  ]
  if (fastBitSetFits(field)) {
    const fast = FastBitSet.fromWords(Array.from(new Int32Array(words)))
    contenders.push(counts('fastbitset', () => fast.size()))
  }
  if (roaringFits(field)) {
    // It keeps the count of each container, and adds these up: another kind of work.
    const roaring = roaringFromBits(dst)
    contenders.push({ ...counts('roaring-wasm', () => roaring.size), dispose: () => roaring.dispose() })
  }
  contenders.push(counts('plain JS', () => plain.count(words)))
  return contenders
}

function tidemark({ engine, lanes, dst }: Field): () => number {
  if (lanes) return () => engine.count(lanes.dst, dst.length)
  const lane = engine.lane(WINDOW_BYTES)
  return () => {
    let total = 0
    for (const at of windows(dst.length)) {
      lane.bytes.set(dst.subarray(at, at + WINDOW_BYTES))
      total += engine.count(lane, WINDOW_BYTES)
    }
    return total
  }
}
