import { PlanError } from '../errors.js'
import type { OperationProblem, OperationsPlan } from './types.js'

/**
 * Commands are made only from a plan that can be carried out whole.
 *
 * @throws {PlanError} `operation-blocked`, `plan-unknown`
 */
export function requireDoable(plan: OperationsPlan): void {
  const of = (severity: OperationProblem['severity']) =>
    plan.problems.filter(problem => problem.severity === severity)
  const [blocked] = of('blocks')
  const [unknown] = of('unknown')
  const first = blocked ?? unknown
  if (first === undefined) return
  const what = `${plan.action}${plan.checkpoint === undefined ? '' : ` ${plan.checkpoint}`}`
  const disks = [...new Set(of(first.severity).map(({ disk }) => disk))]
  throw blocked === undefined
    ? new PlanError('plan-unknown', `it cannot be told how to ${what}: ${first.message}`, {
        domain: plan.domain,
        targets: disks,
      })
    : new PlanError('operation-blocked', `${what} cannot be done: ${first.message}`, {
        domain: plan.domain,
        targets: disks,
        reason: first.code,
      })
}
