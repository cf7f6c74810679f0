/** Where a domain's bitmaps are: each name with every image that has it. */
import type { BackupFacts, BitmapFacts, CheckpointFacts } from '../facts.js'

/** A bitmap in a layer of a disk. */
export interface PlacedBitmap {
  readonly target: string
  readonly layer: number
  readonly filename: string
  readonly bitmap: BitmapFacts
  readonly stale: boolean
  readonly locked: boolean
}

/** Name → its places, disks in the domain's order, each from the top down. */
export type BitmapPlaces = ReadonlyMap<string, readonly PlacedBitmap[]>

export function bitmapPlaces({ domain, chains }: BackupFacts): BitmapPlaces {
  const places = new Map<string, PlacedBitmap[]>()
  for (const { target } of domain.disks) {
    for (const [layer, facts] of (chains.get(target) ?? []).entries()) {
      const { filename, bitmaps, bitmapsStale: stale, locked } = facts
      for (const bitmap of bitmaps) {
        const place = { target, layer, filename, bitmap, stale, locked }
        const known = places.get(bitmap.name)
        if (known === undefined) places.set(bitmap.name, [place])
        else known.push(place)
      }
    }
  }
  return places
}

/** Every name that a bitmap has by the metadata: the checkpoints' own, and those that their disks are given. */
export function recordedNames(checkpoints: readonly CheckpointFacts[]): ReadonlySet<string> {
  const names = new Set<string>()
  for (const { name, disks } of checkpoints) {
    names.add(name)
    for (const { bitmap } of disks ?? []) if (bitmap !== undefined) names.add(bitmap)
  }
  return names
}

/** Each file once: disks may share a layer. */
export function filesOf(places: readonly PlacedBitmap[]): readonly PlacedBitmap[] {
  const seen = new Set<string>()
  return places.filter(({ filename }) => !seen.has(filename) && seen.add(filename))
}
