/**
 * libvirt's rule for a checkpoint's bitmap over a backing chain, in the independent dialect (libvirt 6.6 and
 * later, where every checkpoint's bitmap keeps recording).
 *
 * Walk the layers from the top down. The top must have the bitmap; the layers that have it must be contiguous from
 * the top; each one found must be recording and not inconsistent. libvirt looks at nothing else: granularity, disk
 * size and qcow2 version are judged elsewhere.
 */
import type { BitmapFacts, LayerFacts } from './facts.js'

/** What the rule looks at in a layer. */
export type LayerBitmaps = Pick<LayerFacts, 'bitmaps' | 'bitmapsStale' | 'locked'>

/** A rule that a bitmap breaks, in a layer given by its index from the top (0). */
export type Violation =
  | {
      /** QEMU refuses the whole image because of one malformed directory entry, of whichever bitmap. */
      readonly rule: 'bitmap-corrupt'
      readonly layer: number
      readonly bitmap: string
      readonly detail: string
    }
  /** The top layer has no such bitmap (chained: nor any other that should). */
  | { readonly rule: 'bitmap-missing'; readonly layer: number }
  /** The top layer has it, but in a stale directory: QEMU does not load it, so for libvirt it is missing. */
  | { readonly rule: 'bitmaps-stale'; readonly layer: number }
  /** `layer` lacks it, though `layer - 1` and the deeper `below` have it. */
  | { readonly rule: 'bitmap-gap'; readonly layer: number; readonly below: number }
  /** in-use on disk, with no writer that holds the image. */
  | { readonly rule: 'bitmap-inconsistent'; readonly layer: number }
  /** Not recording: writes since it was disabled are not in it. */
  | { readonly rule: 'bitmap-disabled'; readonly layer: number }

export type BitmapVerdict =
  | {
      readonly valid: true
      /** Indices of the layers that hold it: 0, 1, … contiguous from the top. */
      readonly layers: readonly number[]
    }
  | { readonly valid: false; readonly violation: Violation }

/**
 * Judges the bitmap `name` over `chain` (top layer first) and names the first rule that it breaks.
 *
 * The in-use flag in a layer that a writer holds is no fault: QEMU sets it on disk for as long as it runs.
 *
 * @example
 * ```ts
 * judgeBitmap(chain, 'cp1') // { valid: true, layers: [0, 1] }
 * judgeBitmap(chain, 'cp9') // { valid: false, violation: { rule: 'bitmap-missing', layer: 0 } }
 * ```
 */
export function judgeBitmap(chain: readonly LayerBitmaps[], name: string): BitmapVerdict {
  const corrupt = findCorrupt(chain)
  if (corrupt !== undefined) return { valid: false, violation: corrupt }

  const layers: number[] = []
  for (const [layer, facts] of chain.entries()) {
    const bitmap = loadedBitmap(facts, name)
    if (layer === 0 && bitmap === undefined) {
      const rule = facts.bitmapsStale && findBitmap(facts, name) ? 'bitmaps-stale' : 'bitmap-missing'
      return { valid: false, violation: { rule, layer } }
    }
    if (bitmap === undefined) continue
    if (layers.length < layer) {
      return { valid: false, violation: { rule: 'bitmap-gap', layer: layers.length, below: layer } }
    }
    if (bitmap.inconsistent && !facts.locked) {
      return { valid: false, violation: { rule: 'bitmap-inconsistent', layer } }
    }
    if (!bitmap.recording) return { valid: false, violation: { rule: 'bitmap-disabled', layer } }
    layers.push(layer)
  }
  if (layers.length === 0) return { valid: false, violation: { rule: 'bitmap-missing', layer: 0 } }
  return { valid: true, layers }
}

/** The directory entry of that name, stale or not. */
export function findBitmap({ bitmaps }: Pick<LayerFacts, 'bitmaps'>, name: string): BitmapFacts | undefined {
  if (bitmaps.length < FEW_BITMAPS) return bitmaps.find(bitmap => bitmap.name === name)
  let byName = indices.get(bitmaps)
  if (byName === undefined) {
    // Of two with one name the first counts, as above.
    byName = new Map(bitmaps.toReversed().map(bitmap => [bitmap.name, bitmap]))
    indices.set(bitmaps, byName)
  }
  return byName.get(name)
}

/** A year of daily checkpoints has hundreds, and each is asked for when another one is looked for. */
const FEW_BITMAPS = 16
const indices = new WeakMap<readonly BitmapFacts[], ReadonlyMap<string, BitmapFacts>>()

/** The bitmap as QEMU would load it: a stale directory is not loaded at all. */
export function loadedBitmap(layer: LayerBitmaps, name: string): BitmapFacts | undefined {
  return layer.bitmapsStale ? undefined : findBitmap(layer, name)
}

/** QEMU opens no image of the chain whose loaded directory has a malformed entry; it skips a stale directory. */
export function findCorrupt(chain: readonly LayerBitmaps[]): Violation | undefined {
  for (const [layer, facts] of chain.entries()) {
    if (facts.bitmapsStale) continue
    const bad = firstCorrupt(facts.bitmaps)
    if (bad) return { rule: 'bitmap-corrupt', layer, bitmap: bad.name, detail: bad.corrupt! }
  }
  return undefined
}

/** Looked for once in a long list: it is asked about for each of its bitmaps. */
function firstCorrupt(bitmaps: readonly BitmapFacts[]): BitmapFacts | undefined {
  const find = () => bitmaps.find(bitmap => bitmap.corrupt !== undefined && !bitmap.qemuLoads)
  if (bitmaps.length < FEW_BITMAPS) return find()
  if (!corrupt.has(bitmaps)) corrupt.set(bitmaps, find())
  return corrupt.get(bitmaps)
}

const corrupt = new WeakMap<readonly BitmapFacts[], BitmapFacts | undefined>()
