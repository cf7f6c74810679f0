import type { BitmapFacts, LayerFacts } from '../facts.js'
import type { BitmapOperation, Place } from './types.js'

/**
 * A chain's facts after the operations on its layers; those on other images are passed over. What a merge adds shows in
 * no fact but a corrupt source's.
 */
export function applyToChain(
  chain: readonly LayerFacts[],
  operations: readonly BitmapOperation[],
): readonly LayerFacts[] {
  return chain.map((facts, layer) => ({
    ...facts,
    bitmaps: applyToBitmaps(facts.bitmaps, operations, place => place.layer === layer),
  }))
}

/** The bitmaps of one image after those operations that are on it. */
export function applyToBitmaps(
  before: readonly BitmapFacts[],
  operations: readonly BitmapOperation[],
  isHere: (place: Place) => boolean,
): readonly BitmapFacts[] {
  let bitmaps = [...before]
  const change = (name: string, fields: Partial<BitmapFacts>) => {
    bitmaps = bitmaps.map(each => (each.name === name ? { ...each, ...fields } : each))
  }
  for (const operation of operations) {
    if (!isHere(operation)) continue
    const { bitmap: name, kind } = operation
    switch (kind) {
      case 'add': {
        const { granularity, disabled } = operation
        const added = { name, granularity, recording: !disabled, inconsistent: false, corrupt: undefined }
        if (operation.persistent) bitmaps.push(added)
        break
      }
      case 'remove':
        bitmaps = bitmaps.filter(each => each.name !== name)
        break
      case 'enable':
        change(name, { recording: true })
        break
      case 'disable':
        change(name, { recording: false })
        break
      default:
    }
  }
  return bitmaps
}
