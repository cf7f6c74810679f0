import { type BitmapEngine, openBitmap, Qcow2Error } from '@tidemark/qcow2'
import type { BitmapCost } from '../reconcile/findings.js'
import type { PlacedBitmap } from '../reconcile/places.js'
import type { DomainImages } from './images.js'

/** Clusters that are looked at in all: some seconds. */
const MOST_CLUSTERS = 2 ** 21

/**
 * What bitmaps take of their images: the clusters of their tables and of the bits that are stored. Reads tables, no
 * bits; one whose table cannot be read is left out, and so are those for which there is no time.
 *
 * @returns by file and name
 */
export async function bitmapCosts(
  images: DomainImages,
  places: readonly PlacedBitmap[],
  engine: BitmapEngine,
): Promise<ReadonlyMap<string, ReadonlyMap<string, BitmapCost>>> {
  const costs = new Map<string, Map<string, BitmapCost>>()
  let left = MOST_CLUSTERS
  for (const { target, layer, filename, bitmap } of places) {
    const ofFile = costs.get(filename) ?? new Map<string, BitmapCost>()
    costs.set(filename, ofFile)
    if (ofFile.has(bitmap.name)) continue
    const inspection = images.layers.get(target)?.[layer]?.inspection
    const entry = inspection?.bitmapDirectory?.bitmaps.find(({ name }) => name === bitmap.name)
    if (inspection === undefined || entry === undefined) continue
    const { clusterSize } = inspection
    left -= Math.ceil(entry.bitmapBytes / clusterSize)
    if (left < 0) break
    try {
      const source = openBitmap(inspection, entry, engine, { force: true })
      let clusters = Math.ceil((entry.tableSize * 8) / clusterSize)
      for (let offset = 0; offset < entry.bitmapBytes; offset += clusterSize) {
        if ((await source.peek(offset, Math.min(clusterSize, entry.bitmapBytes - offset))) === 'mixed')
          clusters++
      }
      ofFile.set(bitmap.name, { clusters, bytes: clusters * clusterSize })
    } catch (error) {
      if (!(error instanceof Qcow2Error)) throw error
    }
  }
  return costs
}
