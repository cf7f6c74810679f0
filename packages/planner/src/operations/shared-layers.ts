/** Disks may have a layer in common: what is done to it for each of them is done once. */
import type { BackupFacts } from '../facts.js'
import { normalizePath } from '../paths.js'
import { type DiskChain, problem } from './disks.js'
import { placeOf } from './merge.js'
import type { BitmapOperation, OperationProblem, Place } from './types.js'

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

/**
 * What is committed into an image changes every other disk that it is a layer of, and no bitmap of that disk records it.
 * Where that one has the committed layers too they hide the change from it.
 */
export function sharedBase(
  facts: BackupFacts,
  { disk, chain }: DiskChain,
  top: number,
  base: number,
): OperationProblem[] {
  const fileOf = fileNames(facts)
  const filesOf = (target: string, layers: DiskChain['chain']) =>
    layers.map((_, layer) => fileOf(placeOf(target, layers, layer)))
  const own = filesOf(disk.target, chain)
  const { filename } = chain[base]!
  return [...facts.chains].flatMap(([target, layers]) => {
    const files = filesOf(target, layers)
    const layer = files.indexOf(own[base]!)
    const hidden = own.slice(top, base).every(file => files.includes(file))
    if (target === disk.target || layer < 0 || hidden) return []
    const message =
      `${filename}, layer ${base} of ${disk.target}, is layer ${layer} of ${target} too: what is committed into it would change ` +
      `${target}, and no bitmap of ${target} records that. Pull the layers up instead, or copy the disk`
    return [
      problem('layer-shared', 'blocks', disk.target, message, { layer: base, filename, sharedWith: target }),
    ]
  })
}

/** A file by what it is, where that is known: it may have several names. */
export function fileNames({ chains }: BackupFacts): (place: Place) => string {
  return ({ disk, layer, filename }) => {
    const fileId = typeof layer === 'number' ? chains.get(disk)?.[layer]?.fileId : undefined
    return fileId ?? normalizePath(filename)
  }
}
