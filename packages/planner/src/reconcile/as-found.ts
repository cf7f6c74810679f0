import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointDisk, CheckpointFacts } from '../facts.js'
import type { ReasonCode } from '../plan/reasons.js'
import type { Dialect } from '../plan/types.js'
import { holdsCheckpoints, planEveryCheckpoint } from './every-checkpoint.js'
import { matchRecord, recordOf } from './show.js'

/** What makes a disk's bitmap of a checkpoint of no use for good: no reading of other images would change it. */
export const BROKEN: ReadonlySet<ReasonCode> = new Set([
  'bitmap-missing',
  'bitmap-gap',
  'bitmap-inconsistent',
  'bitmap-disabled',
  'bitmaps-stale',
  'bitmap-corrupt',
  'not-qcow2',
  'disk-source-changed',
])

/**
 * The checkpoints with metadata, in the order of the tree; where asked for, without the disks whose bitmap is broken
 * now. Those that are not disks of the domain any more stay as they are, and so does all where bitmaps are chained.
 */
export function asFound(
  facts: BackupFacts,
  tree: CheckpointTree,
  leaveOut: boolean,
  dialect?: Dialect,
): ReadonlyMap<string, CheckpointFacts> {
  const rows = new Map(tree.names.map(name => [name, tree.get(name)!]))
  if (!leaveOut) return rows
  for (const plan of planEveryCheckpoint(facts, { dialect })) {
    // Chained: a plan from an older checkpoint must see that this one's part is missing.
    if (plan.dialect === 'chained') break
    const broken = plan.disks.filter(({ reasons }) =>
      reasons.some(({ code, severity }) => severity === 'blocks' && BROKEN.has(code)),
    )
    if (broken.length === 0) continue
    const checkpoint = rows.get(plan.incremental)!
    const record = recordOf(checkpoint)
    const out = new Set<string>()
    for (const { target } of broken) {
      const recorded = matchRecord(facts, checkpoint, record, target) ?? record.find(r => r.target === target)
      if (recorded !== undefined && recorded.checkpoint !== 'no') out.add(recorded.target)
    }
    if (out.size > 0) rows.set(checkpoint.name, without(facts, checkpoint, out))
  }
  return rows
}

function without(facts: BackupFacts, checkpoint: CheckpointFacts, out: ReadonlySet<string>): CheckpointFacts {
  const record = recordOf(checkpoint)
  // Without a list or a domain every writable disk is meant.
  const all = record.length > 0 ? record : facts.domain.disks.filter(holdsCheckpoints)
  const listed: readonly CheckpointDisk[] =
    checkpoint.disks ??
    all.map(({ target }) => ({ name: target, checkpoint: 'bitmap', bitmap: checkpoint.name }))
  // The record has an entry for each that is listed, in the same order.
  const disks = listed.map((disk, i): CheckpointDisk => {
    if (!out.has(all[i]!.target)) return disk
    return { name: disk.name, checkpoint: 'no', bitmap: undefined }
  })
  return { ...checkpoint, disks }
}
