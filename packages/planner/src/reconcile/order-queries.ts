import type { BackupFacts, BitmapFacts, LayerFacts } from '../facts.js'
import { isCheckpointName } from '../xml/names.js'
import type { OrderQuery } from './inclusion.js'
import { bitmapOwner } from './owners.js'
import { bitmapPlaces, type PlacedBitmap, recordedNames } from './places.js'

/** A bitmap without metadata. */
export interface OrphanBitmap {
  readonly name: string
  readonly places: readonly PlacedBitmap[]
  /** Why no checkpoint is made of it unless it is asked for by name; undefined: it may have been one. */
  readonly unfit: 'temporary' | 'other-tool' | 'not-a-name' | undefined
}

/** The bitmaps that no checkpoint's metadata mention, in the order of disks and layers; each name once. */
export function orphanBitmaps(facts: BackupFacts): readonly OrphanBitmap[] {
  const recorded = recordedNames(facts.checkpoints)
  const targets = facts.domain.disks.map(({ target }) => target)
  return [...bitmapPlaces(facts)]
    .filter(([name]) => !recorded.has(name))
    .map(([name, places]) => ({ name, places, unfit: unfit(name, targets) }))
}

function unfit(name: string, targets: readonly string[]): OrphanBitmap['unfit'] {
  if (!isCheckpointName(name)) return 'not-a-name'
  const keeps = bitmapOwner(name, targets)?.keeps
  return keeps === 'temporary' ? 'temporary' : keeps === 'own' ? 'other-tool' : undefined
}

/**
 * What to compare so that checkpoints can be made of bitmaps: in every layer of every disk those of the names that can
 * be read and record. None where a running QEMU holds the image: what is on disk is behind its memory.
 *
 * @param names checkpoints with metadata, too: the others are placed among them
 */
export function orderQueries(facts: BackupFacts, names: readonly string[]): readonly OrderQuery[] {
  const wanted = new Set(names)
  const queries: OrderQuery[] = []
  const seen = new Set<string>()
  for (const { target } of facts.domain.disks) {
    for (const [layer, image] of (facts.chains.get(target) ?? []).entries()) {
      // A layer that disks share tells the same twice.
      if (seen.has(image.filename)) continue
      seen.add(image.filename)
      const usable = comparable(image).filter(({ name }) => wanted.has(name))
      if (usable.length < 2) continue
      const granularity = usable.reduce((most, bitmap) => Math.max(most, bitmap.granularity), 0)
      const { filename } = image
      queries.push({ target, layer, filename, bitmaps: usable.map(({ name }) => name), granularity })
    }
  }
  return queries
}

function comparable({ bitmaps, bitmapsStale, locked, problem }: LayerFacts): readonly BitmapFacts[] {
  if (bitmapsStale || locked || problem !== undefined) return []
  const names = new Map<string, number>()
  for (const { name } of bitmaps) names.set(name, (names.get(name) ?? 0) + 1)
  return bitmaps.filter(
    ({ name, recording, inconsistent, corrupt }) =>
      recording && !inconsistent && corrupt === undefined && names.get(name) === 1,
  )
}
