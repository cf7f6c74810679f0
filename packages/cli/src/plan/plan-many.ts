import { type BackupPlan, type CheckpointFacts, planExitStatus } from '@tidemark/planner'
import { type DomainLocation, type LoadProblem, loadDomain } from '@tidemark/planner/node'
import { COMBINE_ARENA_BYTES, createEngine } from '@tidemark/qcow2'
import { describeError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import { type PlanDomainOptions, planDomain } from './plan-domain.js'

/** A domain of many, planned. */
export interface PlannedDomain {
  readonly plan: BackupPlan
  readonly problems: readonly LoadProblem[]
  readonly checkpoints: readonly CheckpointFacts[]
}

/** A domain that has no plan: its XML is broken, it has no such checkpoint, … */
export interface FailedDomain {
  readonly domain: string
  readonly code: string
  readonly message: string
}

export interface ManyPlans {
  /** In the order of the domains. */
  readonly plans: readonly PlannedDomain[]
  readonly errors: readonly FailedDomain[]
  readonly locksKnown: boolean
}

/** Domains under way at once: one computes while another waits for its storage. Each has an engine and open images. */
const AT_ONCE = 3

/**
 * Plans domains one by one, a few at a time. What goes wrong with one is told of that one, and stops no other.
 *
 * @param names each once
 */
export async function planMany(
  names: readonly string[],
  locate: (name: string) => DomainLocation,
  options: Omit<PlanDomainOptions, 'blocking'>,
): Promise<ManyPlans> {
  const results = new Map<string, PlannedDomain | FailedDomain>()
  let locksKnown = true
  let next = 0
  const work = async (): Promise<void> => {
    const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
    while (next < names.length) {
      const name = names[next++]!
      try {
        const loaded = await loadDomain(locate(name))
        const planned = await planDomain(loaded, { ...options, blocking: false }, engine)
        results.set(name, {
          plan: planned.plan,
          problems: loaded.problems,
          checkpoints: slim(loaded.checkpoints),
        })
        locksKnown &&= planned.locksKnown
      } catch (error) {
        const { code, message } = describeError(error)
        results.set(name, { domain: name, code, message })
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, names.length) }, work))
  const all = names.map(name => results.get(name)!)
  return {
    plans: all.filter(result => 'plan' in result),
    errors: all.filter(result => 'code' in result),
    locksKnown,
  }
}

/** For the tree alone; the domains in them would be most of the memory. */
function slim(checkpoints: readonly CheckpointFacts[]): readonly CheckpointFacts[] {
  return checkpoints.map(checkpoint => ({ ...checkpoint, domain: undefined, disks: undefined }))
}

/**
 * The worst of all: 1 nothing could be planned; 4 some domain has no plan, or some disk cannot be told; 11 every disk
 * of every domain is full, 10 some are, 0 none.
 */
export function manyExitStatus({ plans, errors }: ManyPlans): ExitStatus {
  if (plans.length === 0) return exitStatus.error
  const disks = plans.flatMap(({ plan }) => plan.disks)
  return errors.length > 0 ? exitStatus.cannotTell : planExitStatus({ disks })
}
