/** The next backup as it would be after changes that nobody has made, beside what it is now. */
import { PlanError } from '../errors.js'
import type { BackupFacts } from '../facts.js'
import { type BackupRequest, planBackup } from '../plan/backup.js'
import type { DiskMeasurement, Measurements } from '../plan/measure.js'
import type { BackupPlan } from '../plan/types.js'
import { type Change, simulate } from './simulate.js'

export interface WhatIf {
  readonly before: BackupPlan
  /** A plan, or why there is none: the checkpoint would be gone, say. */
  readonly after: BackupPlan | PlanError
}

/**
 * Plans before and after the changes, which are made one after the other. The bitmaps' bodies are not read again: what they
 * say of a disk now is taken along, for no operation makes a hole in a bitmap whole, and unions stay what they are.
 * A disk that a change resizes counts as resized since the checkpoint.
 *
 * @throws {PlanError} there is no plan now; `operation-blocked` and others, for a change that cannot be made
 * @example whatIf(facts, { incremental: 'cp1' }, [parseChange('detach=vdb', Number)])
 */
export function whatIf(facts: BackupFacts, request: BackupRequest, changes: readonly Change[]): WhatIf {
  const before = planBackup(facts, request)
  // Not as found now: what the flags look like afterwards is what the next backup goes by.
  const { dialect } = request
  const measured = request.measurements && new Map([[request.incremental, request.measurements]])
  let later = facts
  for (const [i, change] of changes.entries()) {
    // Bodies are of what is there now, so they tell of the first change.
    later = simulate(later, change, dialect, i === 0 ? measured : undefined)
  }
  const there = new Set(later.domain.disks.map(({ target }) => target))
  const sizeThen = new Map(request.sizeThen)
  for (const change of changes) {
    if (change.kind !== 'resize' || sizeThen.has(change.disk) || !there.has(change.disk)) continue
    const size = facts.chains.get(change.disk)?.[0]?.virtualSize
    if (size !== undefined) sizeThen.set(change.disk, size)
  }
  for (const target of sizeThen.keys()) if (!there.has(target)) sizeThen.delete(target)
  try {
    const after = planBackup(later, {
      ...{ incremental: request.incremental, dialect, sizeThen },
      disks: request.disks?.filter(target => there.has(target)),
      measurements: request.measurements && moved(request.measurements, facts, later),
    })
    return { before, after }
  } catch (error) {
    if (error instanceof PlanError) return { before, after: error }
    throw error
  }
}

/** Measurements with the layers' indices as they are afterwards; what was found in an image that is gone is found in the top. */
function moved(measurements: Measurements, before: BackupFacts, after: BackupFacts): Measurements {
  const entries = [...measurements].map(([target, measurement]): [string, DiskMeasurement] => {
    const chain = after.chains.get(target) ?? []
    const place = <T extends { readonly layer: number; readonly filename: string }>(found: T): T => {
      const filename = before.chains.get(target)?.[found.layer]?.filename
      return {
        ...found,
        layer: Math.max(
          0,
          chain.findIndex(layer => layer.filename === filename),
        ),
      }
    }
    const violations = measurement.violations.map(place)
    return [target, { ...measurement, violations, errors: measurement.errors.map(place) }]
  })
  return new Map(entries)
}
