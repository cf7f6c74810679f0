import { buildCheckpointTree, type CheckpointTree } from '../checkpoints/tree.js'
import { PlanError } from '../errors.js'
import type { BackupFacts, CheckpointFacts, DomainDisk } from '../facts.js'
import { didYouMean, listNames } from '../nearest.js'
import { findDialect } from './dialect.js'
import { planDisk } from './disk.js'
import { diskHistories } from './disk-history.js'
import type { Measurements } from './measure.js'
import { nextBest } from './next-best.js'
import { treeReasons } from './tree-reasons.js'
import type { BackupPlan, Dialect, DiskPlan, SkippedDisk } from './types.js'

export interface BackupRequest {
  /** The checkpoint to start from: everything modified since it is wanted. */
  readonly incremental: string
  /** Limit the plan to these targets; the domain's order stays. Undefined: all. */
  readonly disks?: readonly string[] | undefined
  /** What the bitmaps' bodies say (see `bodyQueries`). Undefined: judged from the directories alone. */
  readonly measurements?: Measurements | undefined
  /** The same for other checkpoints, by their names: `nextBest` then takes their bodies into account. */
  readonly otherMeasurements?: ReadonlyMap<string, Measurements> | undefined
  /** The caller's word. Undefined: found from the bitmaps' flags. */
  readonly dialect?: Dialect | undefined
  /** Disk target → its size in bytes at the asked checkpoint, where it is known: the metadata does not have it. */
  readonly sizeThen?: ReadonlyMap<string, number> | undefined
}

/**
 * Plans an incremental backup of a domain since a checkpoint: per disk whether its changes suffice or it must be
 * copied whole, what libvirt would say, which bitmaps to unite, and why. Pure: facts in, plan out.
 *
 * @throws {PlanError} `checkpoint-missing`, `disk-unknown`, `domain-without-disks`. Everything else that can be
 *   wrong is a reason in the plan.
 * @example
 * ```ts
 * const plan = planBackup({ domain, checkpoints, chains }, { incremental: 'cp1' })
 * for (const disk of plan.disks) console.log(disk.target, disk.mode, disk.reasons[0]?.message)
 * ```
 */
export function planBackup(facts: BackupFacts, request: BackupRequest): BackupPlan {
  const { domain } = facts
  const tree = buildCheckpointTree(facts.checkpoints)
  const asked = findCheckpoint(tree, domain.name, request.incremental)
  const { usable, chosen, skipped } = chooseDisks(facts, request.disks)
  requireKnownTargets(facts, usable, [...(request.sizeThen?.keys() ?? [])])
  const { rule, dialect, evidence } = findDialect(facts, tree, usable, request.dialect)
  const histories = chosen.map(diskHistories(facts, tree))
  // A disk that was resized since the asked checkpoint was so since every older one; of newer ones that says nothing.
  const sizesHold = new Set([
    asked.name,
    ...(request.sizeThen === undefined ? [] : tree.ancestors(asked.name)),
  ])

  const planAll = (from: string, measurements: Measurements | undefined): DiskPlan[] => {
    const checkpoint = tree.get(from)!
    const notes = treeReasons(tree, from)
    const sizes = sizesHold.has(from) ? request.sizeThen : undefined
    return histories.map(history => {
      const { target } = history.disk
      const sizeThen = sizes?.get(target)
      return planDisk({ history, checkpoint, rule, measurement: measurements?.get(target), sizeThen, notes })
    })
  }
  const disks = planAll(asked.name, request.measurements)
  return {
    domain: domain.name,
    incremental: asked.name,
    dialect,
    dialectEvidence: evidence,
    disks,
    skipped,
    nextBest: nextBest(tree, asked.name, disks, name => planAll(name, request.otherMeasurements?.get(name))),
  }
}

function findCheckpoint(tree: CheckpointTree, domain: string, name: string): CheckpointFacts {
  const checkpoint = tree.get(name)
  if (checkpoint) return checkpoint
  const known = tree.names
  throw new PlanError(
    'checkpoint-missing',
    `domain '${domain}' has no checkpoint '${name}'${didYouMean(name, known)} (known: ${listNames(known)})`,
    { domain, checkpoint: name, known },
  )
}

/** Writable disks with a source, in the domain's order; those left out with the reason why. */
function chooseDisks({ domain }: BackupFacts, asked: readonly string[] | undefined) {
  const usable = domain.disks.filter(disk => unusable(disk) === undefined)
  if (usable.length === 0) {
    throw new PlanError(
      'domain-without-disks',
      `domain '${domain.name}' has no writable disk with a source`,
      {
        domain: domain.name,
      },
    )
  }
  requireKnownTargets({ domain }, usable, asked ?? [])
  const skipped: SkippedDisk[] = []
  const chosen: DomainDisk[] = []
  for (const disk of domain.disks) {
    const why = unusable(disk) ?? (asked && !asked.includes(disk.target) ? 'not-asked' : undefined)
    if (why === undefined) chosen.push(disk)
    else skipped.push({ target: disk.target, why })
  }
  return { usable, chosen, skipped }
}

/** @throws {PlanError} `disk-unknown` */
function requireKnownTargets(
  { domain }: Pick<BackupFacts, 'domain'>,
  usable: readonly DomainDisk[],
  asked: readonly string[],
): void {
  const targets = usable.map(({ target }) => target)
  for (const target of asked) {
    if (targets.includes(target)) continue
    const why = unusable(domain.disks.find(disk => disk.target === target))
    throw new PlanError(
      'disk-unknown',
      why === undefined
        ? `domain '${domain.name}' has no disk '${target}'${didYouMean(target, targets)} (disks: ${targets.join(', ')})`
        : `disk '${target}' of domain '${domain.name}' cannot be backed up: ${why} (disks: ${targets.join(', ')})`,
      { domain: domain.name, target, known: targets },
    )
  }
}

function unusable(disk: DomainDisk | undefined): SkippedDisk['why'] | undefined {
  if (disk === undefined) return undefined
  if (disk.source === undefined) return 'empty'
  return disk.readonly || disk.device === 'cdrom' ? 'read-only' : undefined
}
