/**
 * Block jobs in the chained dialect (libvirt before 6.6): only the newest bitmap records, and the changes since a
 * checkpoint are those of its bitmap and of every newer one. So no bitmap may be lost, also disabled ones, and those
 * that only a deeper layer has.
 */
import type { LayerFacts } from '../facts.js'
import { findBitmap } from '../validity.js'
import { placeOf } from './merge.js'
import type { BitmapOperation, BitmapPlace, Place } from './types.js'

export interface CombineRequest {
  readonly disk: string
  readonly chain: readonly LayerFacts[]
  /** Layers from `top` to above `base` have the sources; undefined: to the end of the chain. */
  readonly top: number
  readonly base: number | undefined
  readonly target: Place
}

/** What stands between two layers so that the older bitmaps do not tell all. */
export interface ChainedBreak {
  /** The lower layer: its bitmaps, and whatever is deeper, do not reach up to the layer above. */
  readonly layer: number
  readonly why: 'gap' | 'inconsistent' | 'stale'
  readonly bitmap: string | undefined
}

export interface CombineResult {
  readonly operations: readonly BitmapOperation[]
  readonly merged: readonly string[]
  /** The first break of the chain from `top` down, also below the sources. */
  readonly broken: ChainedBreak | undefined
  /** Names of sources at or below the break, which stay behind. */
  readonly skipped: readonly string[]
  /** Names at or below the break which the target has too, so that it could look as if it had all of them. */
  readonly traps: readonly string[]
}

/**
 * Every name of the sources above the first break goes into the target's bitmap of that name, added where it is lacking. A
 * bitmap records in the target as it does in the uppermost source that has it; where one of the sources records, one of the
 * target that the uppermost source does not know as recording is disabled: only the newest records.
 */
export function combineChained(request: CombineRequest): CombineResult {
  const { disk, chain, top, base = chain.length, target } = request
  const end = Math.min(base, chain.length)
  // Looked for down to the end: what lies below the sources must not become joined to them by accident.
  const broken = findBreak(chain, top)
  const last = Math.min(end, broken?.layer ?? end)
  const has = (layer: number, name: string) => !chain[layer]!.bitmapsStale && findBitmap(chain[layer]!, name)
  const below = new Set<string>()
  for (const { bitmaps } of broken === undefined ? [] : chain.slice(broken.layer)) {
    for (const { name } of bitmaps) below.add(name)
  }

  const names: string[] = []
  for (let layer = last - 1; layer >= top; layer--) {
    for (const { name } of chain[layer]!.bitmaps) if (!names.includes(name)) names.push(name)
  }
  const inTarget = typeof target.layer === 'number' ? chain[target.layer]! : undefined
  const newestKnown = chain[top]?.bitmaps.some(({ recording }) => recording) ?? false
  const operations: BitmapOperation[] = []
  const merged: string[] = []
  for (const name of names.filter(each => !below.has(each))) {
    const sources: BitmapPlace[] = []
    for (let layer = top; layer < last; layer++) {
      if (has(layer, name)) sources.push({ ...placeOf(disk, chain, layer), bitmap: name })
    }
    const upper = findBitmap(chain[sources[0]!.layer as number]!, name)!
    const records = sources[0]!.layer === top && upper.recording
    const there = inTarget && findBitmap(inTarget, name)
    if (there === undefined) {
      operations.push({
        ...{ ...target, bitmap: name, kind: 'add' },
        ...{ granularity: upper.granularity, persistent: true, disabled: !records },
      })
    } else if (records && !there.recording) {
      operations.push({ ...target, bitmap: name, kind: 'enable' })
    }
    operations.push({ ...target, bitmap: name, kind: 'merge', sources })
    merged.push(name)
  }
  // The target is one of the sources where layers are pulled up: its own flags are the right ones.
  const isSource = typeof target.layer === 'number' && target.layer >= top && target.layer < end
  if (newestKnown && inTarget !== undefined && !isSource) {
    for (const { name, recording, inconsistent } of inTarget.bitmaps) {
      if (!recording || inconsistent || findBitmap(chain[top]!, name)?.recording) continue
      operations.push({ ...target, bitmap: name, kind: 'disable' })
    }
  }
  const left = new Set(chain.slice(last, end).flatMap(({ bitmaps }) => bitmaps.map(({ name }) => name)))
  const traps =
    inTarget === undefined ? [] : [...below].filter(name => findBitmap(inTarget, name) !== undefined)
  return { operations, merged, broken, skipped: [...left], traps }
}

/**
 * The first layer from the top down that does not join the one above. A snapshot makes the recording bitmap again on the
 * overlay, so two layers share a name; where they do not, nothing recorded what the upper one got first.
 */
function findBreak(chain: readonly LayerFacts[], top: number): ChainedBreak | undefined {
  for (let layer = top; layer < chain.length; layer++) {
    const { bitmaps, bitmapsStale } = chain[layer]!
    if (bitmaps.length === 0) continue
    if (bitmapsStale) return { layer, why: 'stale', bitmap: undefined }
    const bad = bitmaps.find(({ inconsistent, corrupt }) => inconsistent || corrupt !== undefined)
    if (bad !== undefined) return { layer, why: 'inconsistent', bitmap: bad.name }
    if (layer === top) continue
    const above = chain[layer - 1]!
    if (above.bitmapsStale || !bitmaps.some(({ name }) => findBitmap(above, name))) {
      return { layer, why: 'gap', bitmap: undefined }
    }
  }
  return undefined
}
