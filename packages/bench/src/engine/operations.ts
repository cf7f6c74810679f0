import type { Contender } from '../harness/rounds.js'
import { compareContenders } from './compare.js'
import { countContenders } from './count.js'
import { extentContenders } from './extents.js'
import type { Field, Size } from './field.js'
import { coarsenContenders, refineContenders } from './granularity.js'
import { mergeContenders, unionCountContenders } from './merges.js'
import type { NativeKernels } from './native.js'

/** A benchmark of the engine: one operation, over all sizes and patterns. */
export interface EngineBenchmark {
  name: string
  title: string
  contenders(field: Field, natives: readonly NativeKernels[]): Contender[]
  /** Whether operands of this size fit it. */
  fits?(size: Size): boolean
}

/** A third lane, or a bit count past 2^31, is more than the largest arena takes. */
const smallArena = (size: Size): boolean => size.where === 'stream' || !size.large

export const engineBenchmarks: readonly EngineBenchmark[] = [
  {
    name: 'union',
    title: 'dst |= src',
    contenders: (field, natives) => mergeContenders(field, natives, 'union'),
  },
  {
    name: 'intersection',
    title: 'dst &= src',
    contenders: (field, natives) => mergeContenders(field, natives, 'intersection'),
  },
  { name: 'count', title: 'bits that are set', contenders: countContenders },
  { name: 'union-count', title: 'dst |= src, and its bits counted', contenders: unionCountContenders },
  { name: 'extents', title: 'bits to dirty extents, in typed chunks', contenders: extentContenders },
  {
    name: 'equals',
    title: 'are both the same? They are: all is looked at',
    contenders: (field, natives) => compareContenders(field, natives, 'equals'),
  },
  {
    name: 'subset',
    title: 'does dst hold all of src? It does: all is looked at',
    contenders: (field, natives) => compareContenders(field, natives, 'subset'),
  },
  { name: 'coarsen-16', title: '16 bits to one', contenders: coarsenContenders, fits: smallArena },
  { name: 'refine-16', title: 'one bit to 16', contenders: refineContenders, fits: smallArena },
]
