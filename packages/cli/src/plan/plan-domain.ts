import { type BackupPlan, bodyQueries, type Dialect, type Measurements, planBackup } from '@tidemark/planner'
import {
  type DomainImages,
  type LoadedDomain,
  type MapRule,
  measureBodies,
  namesThen,
  openDomainImages,
} from '@tidemark/planner/node'
import type { BitmapEngine } from '@tidemark/qcow2'

export interface PlanDomainOptions {
  readonly incremental: string
  readonly disks: readonly string[] | undefined
  readonly mapRules: readonly MapRule[]
  readonly bodies: boolean
  readonly dialect: Dialect | undefined
  readonly sizeThen: ReadonlyMap<string, number> | undefined
  /** Read on this thread: nothing else is to be done meanwhile. */
  readonly blocking: boolean
}

/** Checkpoints whose bodies are read to see whether they would be better, at most. */
const MOST_OTHERS = 3

/**
 * The plan of one domain: facts from its images; then the questions that only bodies answer, and the plan again. All
 * images are closed when it returns.
 *
 * @param engine nobody else may use it meanwhile
 * @returns the plan, and whether it could be seen if the domain runs
 * @throws {PlanError} there is no plan
 */
export async function planDomain(
  { domain, checkpoints }: LoadedDomain,
  options: PlanDomainOptions,
  engine: BitmapEngine,
): Promise<{ readonly plan: BackupPlan; readonly locksKnown: boolean }> {
  const { incremental, disks, mapRules, bodies, dialect, sizeThen, blocking } = options
  const names = namesThen(checkpoints)
  // The dialect shows on all disks, asked for or not.
  const targets = dialect === undefined ? undefined : disks
  const images = await openDomainImages(domain, { engine, mapRules, blocking, names, targets })
  try {
    const { chains, fileIds, locksKnown } = images
    const facts = { domain, checkpoints, chains, fileIds }
    const request = { incremental, disks, dialect, sizeThen }
    let plan = planBackup(facts, request)
    if (!bodies) return { plan, locksKnown }
    const measure = (from: BackupPlan) => measureBodies(images, bodyQueries(facts, from), engine)
    const measured = { ...request, measurements: await measure(plan) }
    plan = planBackup(facts, measured)
    const others = new Map<string, Measurements>()
    // One that looks better by the flags alone may not be.
    while (plan.nextBest && !others.has(plan.nextBest.checkpoint) && others.size < MOST_OTHERS) {
      const { checkpoint } = plan.nextBest
      others.set(
        checkpoint,
        await measure(planBackup(facts, { ...request, incremental: checkpoint, sizeThen: undefined })),
      )
      plan = planBackup(facts, { ...measured, otherMeasurements: others })
    }
    return { plan, locksKnown }
  } finally {
    await closeQuietly(images)
  }
}

/** What was read is read; that a file cannot be closed changes no answer. */
async function closeQuietly(images: DomainImages): Promise<void> {
  await images.close().catch(() => {})
}
