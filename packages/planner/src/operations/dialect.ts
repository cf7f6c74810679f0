import { buildCheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts } from '../facts.js'
import { type DialectFinding, type DialectRule, findDialect } from '../plan/dialect.js'
import type { Dialect, DialectEvidence } from '../plan/types.js'
import { holdsCheckpoints } from '../reconcile/every-checkpoint.js'
import { orphanBitmaps } from '../reconcile/order-queries.js'
import { problem } from './disks.js'
import type { OperationProblem } from './types.js'

export interface OperationsDialect {
  readonly dialect: Dialect
  /** Why it is thought so: the caller's word, or the flags of all disks. */
  readonly dialectEvidence: DialectEvidence
}

/** How the domain's bitmaps share the work. */
export function dialectOf(facts: BackupFacts, told: Dialect | undefined): OperationsDialect {
  const { dialect, evidence } = find(facts, told)
  return { dialect, dialectEvidence: evidence }
}

/** What `planBackup` goes by where nobody tells the dialect. */
export function foundRule(facts: BackupFacts): DialectRule {
  return find(facts, undefined).rule
}

function find(facts: BackupFacts, told: Dialect | undefined): DialectFinding {
  const disks = facts.domain.disks.filter(holdsCheckpoints)
  return findDialect(facts, buildCheckpointTree(facts.checkpoints), disks, told)
}

/**
 * The dialect is judged by the bitmaps of known checkpoints. Where the metadata of others are lost, and some bitmap is
 * disabled, it may be the chained one for all that: then what would be left behind is needed once the checkpoints are made
 * again. A problem that can be told away.
 */
export function dialectProblems(
  facts: BackupFacts,
  { dialect, dialectEvidence }: OperationsDialect,
): readonly OperationProblem[] {
  if (dialect !== 'independent' || dialectEvidence.source === 'told') return []
  const orphans = orphanBitmaps(facts).filter(({ unfit }) => unfit === undefined)
  if (orphans.length === 0) return []
  const names = new Set([...facts.checkpoints, ...orphans].map(({ name }) => name))
  for (const { target } of facts.domain.disks) {
    for (const { bitmaps, bitmapsStale } of facts.chains.get(target) ?? []) {
      const disabled = bitmaps.find(({ name, recording }) => !recording && names.has(name))
      if (bitmapsStale || disabled === undefined) continue
      const orphan = orphans[0]!.name
      const message =
        `bitmap '${orphan}' belongs to no checkpoint, and '${disabled.name}' of ${target} is disabled: with chained bitmaps, whose ` +
        'metadata are lost in part, both may be needed. tidemark checkpoint redefine makes checkpoints of them; if somebody ' +
        'disabled it by hand, say --dialect independent'
      const evidence = { bitmap: disabled.name, orphan }
      return [problem('dialect-unclear', 'unknown', target, message, evidence)]
    }
  }
  return []
}
