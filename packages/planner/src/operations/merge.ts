/**
 * libvirt's one algorithm for backups, block jobs and copies (qemuBlockGetBitmapMergeActions): which bitmaps of which
 * layers go into which bitmap of the target. Independent dialect.
 */
import type { LayerFacts } from '../facts.js'
import { findBitmap, judgeBitmap, loadedBitmap, type Violation } from '../validity.js'
import type { BitmapOperation, BitmapPlace, Place } from './types.js'

/** What a guest writes while a block job ends: libvirt's own bitmap for it. */
export const ACTIVE_WRITE = 'libvirt-tmp-activewrite'

export interface MergeRequest {
  readonly disk: string
  /** The whole chain, top first. */
  readonly chain: readonly LayerFacts[]
  /** Index of the layer whose bitmaps are candidates; validity is judged from it down to the end of the chain. */
  readonly top: number
  /** Sources are the layers above this one. Undefined: all from `top` down. */
  readonly base: number | undefined
  readonly target: Place
  /** Only the bitmap of this name. */
  readonly name?: string
  /** Into a new bitmap of this name, not persistent and disabled, as for a backup. */
  readonly dst?: string
  /** Where the guest writes while the job ends: its bitmap `libvirt-tmp-activewrite` joins every merge. */
  readonly writeSource?: Place
}

/** A candidate that is passed over, as libvirt does without a word. */
export interface SkippedBitmap {
  readonly bitmap: string
  readonly violation: Violation
}

export interface MergeResult {
  readonly operations: readonly BitmapOperation[]
  readonly skipped: readonly SkippedBitmap[]
  /** Names that were merged. */
  readonly merged: readonly string[]
}

/**
 * Lists the operations in libvirt's order: the top layer's bitmaps from the last to the first, for each an `add` where
 * the target lacks it (or `dst` is given), then the `merge`; at the end the removal of the write source's bitmap.
 *
 * @example merge({ disk: 'vda', chain, top: 0, base: 1, target: placeOf('vda', chain, 1) })
 */
export function merge(request: MergeRequest): MergeResult {
  const { disk, chain, top, base = chain.length, target, name, dst, writeSource } = request
  const operations: BitmapOperation[] = []
  const skipped: SkippedBitmap[] = []
  const merged: string[] = []
  const loaded = chain[top]?.bitmapsStale ? [] : (chain[top]?.bitmaps ?? [])
  for (const candidate of [...loaded].reverse()) {
    if (name !== undefined && candidate.name !== name) continue
    const verdict = judgeBitmap(chain.slice(top), candidate.name)
    if (!verdict.valid) {
      skipped.push({ bitmap: candidate.name, violation: deeper(verdict.violation, top) })
      continue
    }
    merged.push(candidate.name)
    const sources: BitmapPlace[] = []
    for (let layer = top; layer < Math.min(base, chain.length); layer++) {
      if (loadedBitmap(chain[layer]!, candidate.name) === undefined) continue
      sources.push({ ...placeOf(disk, chain, layer), bitmap: candidate.name })
    }
    if (writeSource !== undefined) sources.push({ ...writeSource, bitmap: ACTIVE_WRITE })
    const bitmap = dst ?? candidate.name
    if (dst !== undefined || !targetHas(chain, target, candidate.name)) {
      const persistent = dst === undefined
      operations.push({
        ...{ ...target, bitmap, kind: 'add' },
        ...{ granularity: candidate.granularity, persistent, disabled: !persistent },
      })
    }
    operations.push({ ...target, bitmap, kind: 'merge', sources })
  }
  if (writeSource !== undefined) operations.push({ ...writeSource, bitmap: ACTIVE_WRITE, kind: 'remove' })
  return { operations, skipped, merged }
}

/** A layer of the chain as a place. */
export function placeOf(disk: string, chain: readonly LayerFacts[], layer: number): Place {
  return { disk, layer, filename: chain[layer]!.filename }
}

/** An image that is yet to be made has no bitmaps. */
function targetHas(chain: readonly LayerFacts[], { layer }: Place, name: string): boolean {
  return typeof layer === 'number' && findBitmap(chain[layer]!, name) !== undefined
}

/** A violation judged from a layer below the top, with the indices of the whole chain. */
function deeper(violation: Violation, by: number): Violation {
  if (by === 0) return violation
  const layer = violation.layer + by
  return violation.rule === 'bitmap-gap'
    ? { ...violation, layer, below: violation.below + by }
    : ({ ...violation, layer } as Violation)
}
