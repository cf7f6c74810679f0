/** Disks may have a layer in common: what is done to it for each of them is done once. */
import type { BackupFacts } from '../facts.js'
import { normalizePath } from '../paths.js'
import type { BitmapOperation, Place } from './types.js'

/**
 * Operations that are the same on one file, once each: an addition and a merge where they first stand, a removal where it
 * last stands, so that every disk's marks are taken from the bitmap before it goes.
 */
export function eachFileOnce(
  facts: BackupFacts,
  operations: readonly BitmapOperation[],
): readonly BitmapOperation[] {
  const fileOf = fileNames(facts)
  const keys = operations.map(operation => {
    const sources = operation.kind === 'merge' ? operation.sources : []
    const places = [operation, ...sources].map(place => [fileOf(place), place.bitmap])
    return JSON.stringify([operation.kind, ...places])
  })
  const last = new Map(keys.map((key, i) => [key, i]))
  const seen = new Set<string>()
  return operations.filter(({ kind }, i) => {
    const key = keys[i]!
    if (kind === 'remove') return last.get(key) === i
    return !seen.has(key) && seen.add(key)
  })
}

export function filesOnce(facts: BackupFacts, places: readonly Place[]): readonly Place[] {
  const fileOf = fileNames(facts)
  const seen = new Set<string>()
  return places.filter(place => !seen.has(fileOf(place)) && seen.add(fileOf(place)))
}

/** A file by what it is, where that is known: it may have several names. */
function fileNames({ chains }: BackupFacts): (place: Place) => string {
  return ({ disk, layer, filename }) => {
    const fileId = typeof layer === 'number' ? chains.get(disk)?.[layer]?.fileId : undefined
    return fileId ?? normalizePath(filename)
  }
}
