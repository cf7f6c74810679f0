import { buildCheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts } from '../facts.js'
import { findDialect } from '../plan/dialect.js'
import type { Dialect, DialectEvidence } from '../plan/types.js'

/** How the domain's bitmaps share the work, and why it is thought so: the caller's word, or the flags of all its disks. */
export function dialectOf(
  facts: BackupFacts,
  told: Dialect | undefined,
): { readonly dialect: Dialect; readonly dialectEvidence: DialectEvidence } {
  const disks = facts.domain.disks.filter(({ source, readonly }) => source !== undefined && !readonly)
  const { dialect, evidence } = findDialect(facts, buildCheckpointTree(facts.checkpoints), disks, told)
  return { dialect, dialectEvidence: evidence }
}
