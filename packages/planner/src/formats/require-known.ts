import { PlanError } from '../errors.js'
import type { BackupPlan } from '../plan/types.js'

/**
 * A plan with an unknown disk tells nobody what to do, so no commands are made from it: not even for the other
 * disks, since a backup that silently lacks a disk is worse than none. Plan with fewer disks instead.
 *
 * @throws {PlanError} `plan-unknown`
 */
export function requireKnown(plan: BackupPlan): void {
  const unknown = plan.disks.filter(({ mode }) => mode === 'unknown')
  if (unknown.length === 0) return
  const targets = unknown.map(({ target }) => target)
  const why = unknown[0]!.reasons[0]?.message ?? ''
  throw new PlanError(
    'plan-unknown',
    `it cannot be told how to back up ${targets.join(', ')}: ${why} Plan the other disks by naming them.`,
    { domain: plan.domain, targets },
  )
}
