import { PlanError } from '../errors.js'
import type { BackupFacts, DomainDisk } from '../facts.js'
import type { Dialect } from '../plan/types.js'
import { dialectOf } from './dialect.js'
import { chainProblems, findDisk, placesOf, problem } from './disks.js'
import { placeOf } from './merge.js'
import { withoutUnsayable } from './notes.js'
import type { BitmapOperation, DataStep, OperationProblem, OperationsPlan, Place } from './types.js'

export interface SnapshotRequest {
  /** Target → file of its overlay. */
  readonly overlays: ReadonlyMap<string, string>
  /** The caller's word. Undefined: found from the bitmaps' flags. */
  readonly dialect?: Dialect | undefined
}

/**
 * Plans the bitmaps of external snapshots: each bitmap of the old top that records and is consistent is made again on
 * the overlay, all clear, with its name and granularity. libvirt looks at the top alone: a bitmap that is broken further
 * down is made too, and stays as broken as it was. In both dialects: in the chained one only the newest records.
 *
 * @throws {PlanError} `disk-unknown`, `overlay-unfit`
 */
export function planSnapshot(facts: BackupFacts, request: SnapshotRequest): OperationsPlan {
  const { dialect, dialectEvidence } = dialectOf(facts, request.dialect)
  const operations: BitmapOperation[] = []
  const problems: OperationProblem[] = []
  const data: DataStep[] = []
  const layers: Place[] = []
  const overlayOf = new Map<string, string>()
  for (const [target, filename] of request.overlays) {
    const other = overlayOf.get(filename)
    if (other !== undefined) {
      const message = `${filename} cannot be the overlay of both ${other} and ${target}`
      throw new PlanError('overlay-unfit', message, { disk: target, filename })
    }
    overlayOf.set(filename, target)
    const found = findDisk(facts, target)
    const { chain } = found
    const unfit = chainProblems(found)
    problems.push(...unfit)
    layers.push(...placesOf(found))
    const [top] = chain
    if (top === undefined || unfit.some(({ code }) => code !== 'image-in-use')) continue
    if (chain.some(layer => layer.filename === filename || layer.namedAs === filename)) {
      const message = `the overlay of ${target}, ${filename}, is an image of its chain already`
      throw new PlanError('overlay-unfit', message, { disk: target, filename })
    }
    const overlay: Place = { disk: target, layer: 'overlay', filename }
    const place = placeOf(target, chain, 0)
    data.push({
      ...{ kind: 'snapshot', top: place, topFormat: top.format, overlay },
      virtualSize: top.virtualSize,
    })
    const own: BitmapOperation[] = []
    for (const { name, granularity, recording, inconsistent } of top.bitmapsStale ? [] : top.bitmaps) {
      const broken = inconsistent && !top.locked
      if (recording && !broken) {
        own.push({
          ...{ ...overlay, bitmap: name, kind: 'add' },
          ...{ granularity, persistent: true, disabled: false },
        })
        continue
      }
      // Older ones are disabled by right there.
      if (!broken && dialect === 'chained') continue
      const rule = broken ? 'bitmap-inconsistent' : 'bitmap-disabled'
      const why = broken ? 'inconsistent (in-use)' : 'disabled'
      const message = `bitmap '${name}' of ${target} is not made again on the overlay: it is ${why}. libvirt says nothing of it`
      problems.push(
        problem('bitmap-skipped', 'note', target, message, {
          ...{ bitmap: name, rule, layer: 0, filename: top.filename },
        }),
      )
    }
    const sayable = withoutUnsayable(target, own)
    operations.push(...sayable.operations)
    problems.push(...sayable.notes)
    if (top.bitmapsStale && top.bitmaps.length > 0) {
      const message = `the bitmaps of ${target} (${top.filename}) are stale: none is made again on the overlay`
      problems.push(problem('bitmap-skipped', 'note', target, message, { rule: 'bitmaps-stale', layer: 0 }))
    }
  }
  return {
    ...{ domain: facts.domain.name, action: 'snapshot', checkpoint: undefined, dialect, dialectEvidence },
    ...{ disks: [...request.overlays.keys()], layers, operations, reopen: [], data, problems },
  }
}

/** The disks that libvirt takes an external snapshot of unless told: writable, with a source. */
export function snapshotDisks(disks: readonly DomainDisk[]): readonly DomainDisk[] {
  return disks.filter(
    ({ source, readonly, device }) => source !== undefined && !readonly && device === 'disk',
  )
}
