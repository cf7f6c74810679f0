import FastBitSet from 'fastbitset'
import { TypedFastBitSet } from 'typedfastbitset'
import type { Contender } from '../harness/rounds.js'
import { type Field, WINDOW_BYTES, windows, words32 } from './field.js'
import { fastBitSetFits, roaringFits } from './limits.js'
import type { NativeKernels } from './native.js'
import * as plain from './plain.js'
import { roaringFromBits } from './roaring.js'

type Question = 'equals' | 'subset'

/** Questions whose answer is yes: it takes all bits to know. That a no is found is tested, not timed. */
export function compareContenders(
  field: Field,
  natives: readonly NativeKernels[],
  question: Question,
): Contender[] {
  const { dst, src } = field
  const a = words32(src)
  const b = words32(dst)
  // Memory of their own for equal bits, which each contender finds as the one before it left them.
  if (question === 'equals') dst.set(src)
  else {
    field.reset()
    plain.union(b, a)
  }
  const asks = (name: string, run: () => boolean): Contender => ({ name, run, answer: () => String(run()) })
  const contenders = [
    asks('tidemark', tidemark(field, question)),
    ...natives.map(native => asks(native.name, () => native[question](src, dst, dst.length / 8) === 1)),
  ]
  if (question === 'equals') {
    const typed = [TypedFastBitSet.fromWords(a), TypedFastBitSet.fromWords(b)] as const
    contenders.push(asks('typedfastbitset', () => typed[0].equals(typed[1])))
    if (fastBitSetFits(field)) {
      const sets = [a, b].map(words => FastBitSet.fromWords(Array.from(new Int32Array(words))))
      contenders.push(asks('fastbitset', () => sets[0]!.equals(sets[1]!)))
    }
  }
  if (roaringFits(field)) {
    const [x, y] = [roaringFromBits(src), roaringFromBits(dst)]
    contenders.push({
      ...asks('roaring-wasm', () => (question === 'equals' ? x.isEqual(y) : x.isSubset(y))),
      dispose() {
        x.dispose()
        y.dispose()
      },
    })
  }
  const plainly = question === 'equals' ? plain.equals : plain.subset
  contenders.push(asks('plain JS', () => plainly(a, b)))
  return contenders
}

function tidemark({ engine, lanes, dst, src }: Field, question: Question): () => boolean {
  const a = lanes?.src ?? engine.lane(WINDOW_BYTES)
  const b = lanes?.dst ?? engine.lane(WINDOW_BYTES)
  const ask = (bytes: number) =>
    question === 'equals' ? engine.equals(a, b, bytes) : engine.firstViolation(a, b, bytes * 8) === -1
  if (lanes) return () => ask(dst.length)
  return () => {
    for (const at of windows(dst.length)) {
      a.bytes.set(src.subarray(at, at + WINDOW_BYTES))
      b.bytes.set(dst.subarray(at, at + WINDOW_BYTES))
      if (!ask(WINDOW_BYTES)) return false
    }
    return true
  }
}
