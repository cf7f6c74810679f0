import { ExtentExtractor } from '@tidemark/bitmap-wasm'
import FastBitSet from 'fastbitset'
import { TypedFastBitSet } from 'typedfastbitset'
import type { Contender } from '../harness/rounds.js'
import { type Field, GRANULARITY, WINDOW_BYTES, windows, words32 } from './field.js'
import { bitsFitInt32, fastBitSetFits } from './limits.js'
import type { NativeKernels } from './native.js'
import * as plain from './plain.js'

/** Edges that a chunk holds: the same for all. */
const ROOM = 16384

type Take = (edges: Float64Array, held: number) => void

/** Dirty extents as starts and ends in bytes, in chunks of 8,192. What is done with a chunk is not timed. */
export function extentContenders(field: Field, natives: readonly NativeKernels[]): Contender[] {
  field.reset()
  const { dst } = field
  const words = words32(dst)
  const room = new Float64Array(ROOM)
  const contenders = [
    inChunks('tidemark', tidemark(field)),
    ...natives.map(native => nativeExtents(native, dst, room)),
  ]
  if (bitsFitInt32(field)) {
    const set = TypedFastBitSet.fromWords(words)
    contenders.push(inChunks('typedfastbitset', take => fromBits(bit => set.forEach(bit), room, take)))
  }
  if (fastBitSetFits(field)) {
    const set = FastBitSet.fromWords(Array.from(new Int32Array(words)))
    contenders.push(inChunks('fastbitset', take => fromBits(bit => set.forEach(bit), room, take)))
  }
  contenders.push(inChunks('plain JS', take => plain.extents(words, GRANULARITY, room, take)))
  return contenders
}

function inChunks(name: string, extract: (take: Take) => void): Contender {
  return {
    name,
    run() {
      let edges = 0
      extract((_, held) => {
        edges += held
      })
      return edges
    },
    answer() {
      let hash = 0
      let edges = 0
      extract((room, held) => {
        edges += held
        for (let i = 0; i < held; i++) hash = (Math.imul(hash, 31) + room[i]! / GRANULARITY) | 0
      })
      return `${edges} edges, ${hash >>> 0}`
    },
  }
}

function tidemark({ engine, lanes, dst }: Field): (take: Take) => void {
  const extractor = new ExtentExtractor(engine, {
    granularity: GRANULARITY,
    limit: dst.length * 8 * GRANULARITY,
    roomBytes: ROOM * 8,
  })
  const lane = lanes?.dst ?? engine.lane(WINDOW_BYTES)
  return take => {
    if (lanes) {
      for (const chunk of extractor.push(lane, dst.length * 8)) take(chunk, chunk.length)
    } else {
      for (const at of windows(dst.length)) {
        lane.bytes.set(dst.subarray(at, at + WINDOW_BYTES))
        for (const chunk of extractor.push(lane, WINDOW_BYTES * 8)) take(chunk, chunk.length)
      }
    }
    const last = extractor.finish()
    if (last) take(last, last.length)
  }
}

/** C hands its chunks over in C. */
function nativeExtents(native: NativeKernels, dst: Uint8Array, room: Float64Array): Contender {
  const extents = (hash: Uint32Array | null) =>
    native.extents(dst, dst.length / 8, GRANULARITY, room, ROOM, hash)
  return {
    name: native.name,
    run: () => extents(null),
    answer() {
      const hash = new Uint32Array(1)
      return `${extents(hash)} edges, ${hash[0]}`
    },
  }
}

/** What a library of sets leaves to its caller: runs out of single bits. */
function fromBits(forEach: (bit: (bit: number) => void) => void, room: Float64Array, take: Take): void {
  let held = 0
  let end = -1
  forEach(bit => {
    if (bit !== end) {
      if (end >= 0) room[held++] = end * GRANULARITY
      if (held === ROOM) {
        take(room, held)
        held = 0
      }
      room[held++] = bit * GRANULARITY
    }
    end = bit + 1
  })
  if (end >= 0) room[held++] = end * GRANULARITY
  take(room, held)
}
