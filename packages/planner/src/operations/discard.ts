/** What deleting a checkpoint does to the bitmaps of one disk's chain. */
import type { LayerFacts } from '../facts.js'
import { loadedBitmap } from '../validity.js'
import { placeOf } from './merge.js'
import type { BitmapOperation, Place } from './types.js'

export interface DiscardResult {
  readonly operations: readonly BitmapOperation[]
  /** Layers below the top, deepest first. */
  readonly reopen: readonly Place[]
}

/**
 * Independent: the bitmap is removed in every layer that holds it, valid or not.
 *
 * Chained: in each such layer its bits first go into the parent's bitmap, for the parent's stand only for the time up
 * to the deleted checkpoint. Where the layer has no bitmap of the parent one is made. Where the deleted one records, the
 * parent's must record from the same moment on, or writes would be in none.
 *
 * @param parent chained: the bitmap of the nearest older checkpoint that has this disk; undefined: there is none
 * @returns no operations where no layer has the bitmap: libvirt then fails the whole delete
 */
export function discard(
  disk: string,
  chain: readonly LayerFacts[],
  bitmap: string,
  parent?: string,
): DiscardResult {
  const operations: BitmapOperation[] = []
  const reopen: Place[] = []
  for (const [layer, facts] of chain.entries()) {
    const found = loadedBitmap(facts, bitmap)
    if (found === undefined) continue
    const place = placeOf(disk, chain, layer)
    if (parent !== undefined) {
      const { granularity, recording } = found
      const older = loadedBitmap(facts, parent)
      if (older === undefined) {
        operations.push({
          ...{ ...place, bitmap: parent, kind: 'add' },
          ...{ granularity, persistent: true, disabled: !recording },
        })
      } else if (recording && !older.recording) {
        operations.push({ ...place, bitmap: parent, kind: 'enable' })
      }
      operations.push({ ...place, bitmap: parent, kind: 'merge', sources: [{ ...place, bitmap }] })
    }
    operations.push({ ...place, bitmap, kind: 'remove' })
    if (layer > 0) reopen.unshift(place)
  }
  return { operations, reopen }
}
