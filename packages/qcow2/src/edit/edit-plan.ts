import type { ImageInspection } from '../image/inspect.js'
import type { BitsTerm, FutureBitmap } from './actions.js'
import type { BitsPlan } from './bits.js'
import type { NewDirectory } from './header-switch.js'

/** One write of a plan. Offsets and lengths in bytes of the image file. */
export type EditWrite =
  | { readonly kind: 'grow'; readonly what: string; readonly bytes: number }
  /** `length`: zeros follow up to so many bytes. */
  | {
      readonly kind: 'bytes'
      readonly what: string
      readonly offset: number
      readonly bytes: Uint8Array
      readonly length?: number
    }
  /** The bitmap's clusters that are not as before, one after the other to these host offsets. */
  | {
      readonly kind: 'bits'
      readonly what: string
      readonly bitmap: FutureBitmap & { readonly bits: readonly BitsTerm[] }
      readonly plan: BitsPlan
      readonly offsets: Float64Array
    }
  /** Refcounts of these clusters (numbers, ascending), in blocks that there are. */
  | {
      readonly kind: 'refcounts'
      readonly what: string
      readonly clusters: readonly number[]
      readonly value: 0 | 1
    }

/** Writes in any order; all of them last before the next step begins. */
export interface EditStep {
  /** `mark` and `unmark` where several images are edited as one. */
  readonly name: 'clusters' | 'refcount table' | 'mark' | 'header' | 'unmark' | 'release'
  readonly writes: readonly EditWrite[]
}

export interface EditCost {
  /** Clusters that are taken, and those given back. */
  readonly allocated: number
  readonly freed: number
  /** Of those taken: what bitmaps' bits, bitmap tables, the directory, refcount structures need. */
  readonly data: number
  readonly tables: number
  readonly directory: number
  readonly refcountStructures: number
  /** By how much the file becomes longer. */
  readonly growth: number
}

/** What an edit writes, in which order. Made without writing anything. */
export interface EditPlan {
  readonly clusterSize: number
  readonly steps: readonly EditStep[]
  readonly cost: EditCost
  /** Bitmaps as they will be. */
  readonly bitmaps: readonly FutureBitmap[]
  /** Other images whose bitmaps go into these. */
  readonly sources: readonly ImageInspection[]
  /** Clusters (numbers) that are taken, ascending. */
  readonly taken: readonly number[]
  /** Where the new directory is; undefined: no bitmaps are left. */
  readonly directory: NewDirectory | undefined
  /** Clusters (numbers) whose space can be given back in the end. */
  readonly released: readonly number[]
}
