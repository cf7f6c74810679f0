/** Metadata, bitmaps and the domain held against each other. */
import { buildCheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointFacts } from '../facts.js'
import { findDialect } from '../plan/dialect.js'
import type { Measurements } from '../plan/measure.js'
import type { Dialect } from '../plan/types.js'
import { bitmapFindings } from './bitmap-findings.js'
import { checkpointFindings } from './checkpoint-findings.js'
import { holdsCheckpoints } from './every-checkpoint.js'
import type { BitmapCost, Finding } from './findings.js'
import { lostDialect } from './lost-dialect.js'
import { metadataFindings, type UnreadableFile } from './metadata-findings.js'
import { isRunning } from './overview.js'
import { bitmapPlaces } from './places.js'
import { type WayOptions, Ways } from './ways.js'

export interface ReconcileOptions extends WayOptions {
  readonly dialect?: Dialect | undefined
  /** Files of checkpoints that could not be read. */
  readonly unreadable?: readonly UnreadableFile[] | undefined
  /** The file of each checkpoint; needed to tell which of two to set aside. */
  readonly files?: ReadonlyMap<CheckpointFacts, string> | undefined
  /** What bitmaps take of their images: by file and name. */
  readonly costs?: ReadonlyMap<string, ReadonlyMap<string, BitmapCost>> | undefined
  /** What the bodies say, by checkpoint. Absent: judged from the directories alone. */
  readonly measurements?: ReadonlyMap<string, Measurements> | undefined
}

export interface Reconciliation {
  readonly domain: string
  /** A running QEMU holds images: of these just what is certain is told. */
  readonly running: boolean
  /** Errors first, then warnings, then what is to know. */
  readonly findings: readonly Finding[]
}

/**
 * Says what does not go together, and the commands that mend it. Pure; never throws.
 *
 * @example
 * ```ts
 * for (const { code, message, commands } of reconcile(facts).findings) console.log(code, message, commands)
 * ```
 */
export function reconcile(facts: BackupFacts, options: ReconcileOptions = {}): Reconciliation {
  const tree = buildCheckpointTree(facts.checkpoints)
  const places = bitmapPlaces(facts)
  const ways = new Ways(facts.domain, options)
  const disks = facts.domain.disks.filter(holdsCheckpoints)
  const dialect = lostDialect(facts, findDialect(facts, tree, disks, options.dialect))
  const findings = [
    ...metadataFindings(facts, tree, ways, options.unreadable ?? [], options.files ?? new Map()),
    ...checkpointFindings(facts, tree, places, ways, options),
    ...bitmapFindings(facts, places, ways, options.costs ?? new Map(), dialect),
  ]
  const weight = { error: 0, warning: 1, info: 2 } as const
  findings.sort((a, b) => weight[a.severity] - weight[b.severity])
  return { domain: facts.domain.name, running: isRunning(facts), findings }
}
