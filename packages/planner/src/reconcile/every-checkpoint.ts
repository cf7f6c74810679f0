import { buildCheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, DomainDisk } from '../facts.js'
import { findDialect } from '../plan/dialect.js'
import { planDisk } from '../plan/disk.js'
import { diskHistories } from '../plan/disk-history.js'
import type { Measurements } from '../plan/measure.js'
import type { BackupPlan, Dialect } from '../plan/types.js'

export interface EveryCheckpointOptions {
  /** The caller's word; see `BackupRequest.dialect`. */
  readonly dialect?: Dialect | undefined
  /** What the bodies say, by checkpoint. Absent: judged from the directories alone. */
  readonly measurements?: ReadonlyMap<string, Measurements> | undefined
}

/**
 * A plan from each checkpoint, in the order of their names in the tree: what `planBackup` says of its disks, without a
 * next-best and without notes on the tree, which concern all of them alike. One at a time, so that a year's history
 * with all its evidence never has to be held; a domain without disks has plans without disks.
 *
 * @example
 * ```ts
 * for (const { incremental, disks } of planEveryCheckpoint(facts)) console.log(incremental, disks.map(d => d.mode))
 * ```
 */
export function* planEveryCheckpoint(
  facts: BackupFacts,
  options: EveryCheckpointOptions = {},
): Generator<BackupPlan, void, undefined> {
  const { domain } = facts
  const tree = buildCheckpointTree(facts.checkpoints)
  const disks = domain.disks.filter(holdsCheckpoints)
  const { rule, dialect, evidence } = findDialect(facts, tree, disks, options.dialect)
  const histories = disks.map(diskHistories(facts, tree))
  for (const name of tree.names) {
    const checkpoint = tree.get(name)!
    const measured = options.measurements?.get(name)
    yield {
      domain: domain.name,
      incremental: name,
      dialect,
      dialectEvidence: evidence,
      disks: histories.map(history => {
        const measurement = measured?.get(history.disk.target)
        return planDisk({ history, checkpoint, rule, measurement, sizeThen: undefined, notes: [] })
      }),
      skipped: [],
      nextBest: undefined,
    }
  }
}

/** What libvirt can take checkpoints of: it is there and can be written to. */
export function holdsCheckpoints({ source, readonly, device }: DomainDisk): boolean {
  return source !== undefined && !readonly && device !== 'cdrom'
}
