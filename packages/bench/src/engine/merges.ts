import FastBitSet from 'fastbitset'
import type { RoaringBitmap32 } from 'roaring-wasm'
import { TypedFastBitSet } from 'typedfastbitset'
import type { Contender } from '../harness/rounds.js'
import { type Field, fingerprint, WINDOW_BYTES, windows, words32 } from './field.js'
import { fastBitSetFits, roaringFits } from './limits.js'
import type { NativeKernels } from './native.js'
import * as plain from './plain.js'
import { roaringFromBits, roaringToBits } from './roaring.js'

type Merge = 'union' | 'intersection'

/** dst = dst ∘ src. */
export function mergeContenders(field: Field, natives: readonly NativeKernels[], merge: Merge): Contender[] {
  const { dst, src } = field
  const flat = (name: string, run: () => void): Contender => ({
    name,
    run,
    answer() {
      field.reset()
      run()
      return fingerprint(dst)
    },
  })
  const a = words32(dst)
  const b = words32(src)
  const typedA = TypedFastBitSet.fromWords(a)
  const typedB = TypedFastBitSet.fromWords(b)
  const plainMerge = merge === 'union' ? plain.union : plain.intersection
  return [
    flat('tidemark', tidemark(field, merge)),
    ...natives.map(native => flat(native.name, () => native[merge](dst, src, dst.length / 8))),
    flat('typedfastbitset', () => typedA[merge](typedB)),
    ...(fastBitSetFits(field) ? [fastBitSet(field, set => set, merge)] : []),
    ...(roaringFits(field) ? [roaring(field, set => set, merge)] : []),
    flat('plain JS', () => plainMerge(a, b)),
  ]
}

/** dst |= src, and how many bits that makes. */
export function unionCountContenders(field: Field, natives: readonly NativeKernels[]): Contender[] {
  const { dst, src } = field
  const flat = (name: string, run: () => number): Contender => ({
    name,
    run,
    answer() {
      field.reset()
      return `${run()} ${fingerprint(dst)}`
    },
  })
  const a = words32(dst)
  const b = words32(src)
  const typedA = TypedFastBitSet.fromWords(a)
  const typedB = TypedFastBitSet.fromWords(b)
  return [
    flat('tidemark', tidemarkUnionCount(field)),
    ...natives.map(native => flat(native.name, () => native.unionCount(dst, src, dst.length / 8))),
    flat('typedfastbitset', () => typedA.union(typedB).size()),
    ...(fastBitSetFits(field) ? [fastBitSet(field, set => set.size(), 'union')] : []),
    ...(roaringFits(field) ? [roaring(field, set => set.size, 'union')] : []),
    flat('plain JS', () => plain.unionCount(a, b)),
  ]
}

function tidemark(field: Field, merge: Merge): () => void {
  const { engine, lanes, dst, src } = field
  if (lanes) return () => engine.merge(merge, lanes.dst, lanes.src, dst.length)
  const a = engine.lane(WINDOW_BYTES)
  const b = engine.lane(WINDOW_BYTES)
  return () => {
    for (const at of windows(dst.length)) {
      a.bytes.set(dst.subarray(at, at + WINDOW_BYTES))
      b.bytes.set(src.subarray(at, at + WINDOW_BYTES))
      engine.merge(merge, a, b, WINDOW_BYTES)
      dst.set(a.bytes, at)
    }
  }
}

function tidemarkUnionCount(field: Field): () => number {
  const { engine, lanes, dst, src } = field
  if (lanes) return () => engine.mergeCount('union', lanes.dst, lanes.src, dst.length)
  const a = engine.lane(WINDOW_BYTES)
  const b = engine.lane(WINDOW_BYTES)
  return () => {
    let total = 0
    for (const at of windows(dst.length)) {
      a.bytes.set(dst.subarray(at, at + WINDOW_BYTES))
      b.bytes.set(src.subarray(at, at + WINDOW_BYTES))
      total += engine.mergeCount('union', a, b, WINDOW_BYTES)
      dst.set(a.bytes, at)
    }
    return total
  }
}

/** Its words are an array of numbers: memory of its own. Signed, or they would not fit V8's small integers. */
function fastBitSet(field: Field, result: (set: FastBitSet) => unknown, merge: Merge): Contender {
  field.reset()
  const words = (bytes: Uint8Array) => Array.from(new Int32Array(words32(bytes)))
  const a = FastBitSet.fromWords(words(field.dst))
  const b = FastBitSet.fromWords(words(field.src))
  return {
    name: 'fastbitset',
    run: () => result(a[merge](b)),
    answer() {
      field.reset()
      a.words = words(field.dst)
      return said(result(a[merge](b)), new Uint8Array(Int32Array.from(a.words).buffer))
    },
  }
}

/** A merge may change what its containers are, so each run has a fresh copy. */
function roaring(field: Field, result: (set: RoaringBitmap32) => unknown, merge: Merge): Contender {
  field.reset()
  const a = roaringFromBits(field.dst)
  const b = roaringFromBits(field.src)
  let current = a.clone()
  const prepare = () => {
    current.dispose()
    current = a.clone()
  }
  const run = () => {
    if (merge === 'union') current.orInPlace(b)
    else current.andInPlace(b)
    return result(current)
  }
  return {
    name: 'roaring-wasm',
    prepare,
    run,
    answer() {
      prepare()
      const answer = run()
      const bytes = new Uint8Array(field.dst.length)
      roaringToBits(current, bytes)
      return said(answer, bytes)
    },
    dispose() {
      for (const bitmap of [a, b, current]) bitmap.dispose()
    },
  }
}

function said(answer: unknown, bytes: Uint8Array): string {
  return typeof answer === 'number' ? `${answer} ${fingerprint(bytes)}` : fingerprint(bytes)
}
