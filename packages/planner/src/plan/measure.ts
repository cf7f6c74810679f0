/**
 * What only the bitmaps' bodies tell. The planner reads nothing: `bodyQueries` says what to measure, the caller
 * measures (`@tidemark/planner/node` does for files), and `planBackup` judges again with the answers.
 */
import { buildCheckpointTree, type CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, LayerFacts } from '../facts.js'
import { findBitmap } from '../validity.js'
import { memoized } from './memoized.js'
import type { BackupPlan, DiskPlan } from './types.js'

/** What to measure for one disk. */
export interface BodyQuery {
  readonly target: string
  /** Size the union of these, clipped to the disk. Granularities may differ: the union is of bytes, exact. */
  readonly union: readonly { readonly layer: number; readonly filename: string; readonly bitmap: string }[]
  readonly subsets: readonly SubsetQuery[]
}

/**
 * Is the newer checkpoint's bitmap inside the older one's, in one layer? Asked only of two that record: both have every
 * write since they began, so a bit that only the newer has is a write that the older one lost. (Chained: the older was
 * disabled when the newer began, and they have no write in common.)
 */
export interface SubsetQuery {
  /** The newer checkpoint; or one that may be, where neither the tree nor its `creationTime` says that it is older. */
  readonly checkpoint: string
  readonly layer: number
  readonly filename: string
  readonly older: string
  readonly newer: string
  /**
   * Bytes: the coarser of both granularities. Compare at this one, each granule dirty that either touches: a coarse
   * newer bitmap marks bytes around a write that a fine older one rightly leaves clean.
   */
  readonly granularity: number
}

export interface SubsetViolation {
  /** The newer checkpoint, whose bitmap has bits that the older one's lacks. */
  readonly checkpoint: string
  /** The older bitmap; absent: the asked checkpoint's. */
  readonly older?: string
  readonly layer: number
  readonly filename: string
  readonly missingBytes: number
  /** Guest offset of the first such granule. */
  readonly firstOffset: number
}

export interface BodyError {
  readonly layer: number
  readonly filename: string
  readonly bitmap: string
  readonly message: string
  /** True where QEMU would load it all the same (references past the end of the file, read as clean). */
  readonly qemuLoads?: boolean
}

/** The answers for one disk. A subset that holds is not mentioned. */
export interface DiskMeasurement {
  /** Undefined where the union could not be measured. */
  readonly dirtyBytes: number | undefined
  readonly violations: readonly SubsetViolation[]
  readonly errors: readonly BodyError[]
}

/** Disk target → answers. */
export type Measurements = ReadonlyMap<string, DiskMeasurement>

/**
 * What to measure for a plan: one query for each disk with something to merge. A disk in use is left out: its bodies
 * on disk are behind those in QEMU's memory, so any number from them would be wrong.
 *
 * @param facts the facts that the plan was made from
 * @example
 * ```ts
 * const first = planBackup(facts, { incremental: 'cp1' })
 * const measurements = await measureMyself(bodyQueries(facts, first))
 * const plan = planBackup(facts, { incremental: 'cp1', measurements })
 * ```
 */
export function bodyQueries(facts: BackupFacts, plan: BackupPlan): BodyQuery[] {
  const tree = buildCheckpointTree(facts.checkpoints)
  const newer = memoized(name => newerCheckpoints(tree, name))
  return plan.disks
    .filter(disk => disk.merge.length > 0 && disk.mode !== 'unknown' && !isHollow(disk))
    .map(disk => ({
      target: disk.target,
      union: disk.merge.map(({ layer, filename, bitmap }) => ({ layer, filename, bitmap })),
      subsets: subsetQueries(disk, facts.chains.get(disk.target) ?? [], newer),
    }))
}

/** What is known to be unreadable from its table already needs no measuring. */
function isHollow({ reasons }: DiskPlan): boolean {
  return reasons.some(({ code }) => code === 'bitmap-corrupt')
}

/**
 * All that are not known to be older: by the tree, and by `creationTime` where the tree leaves it open (branches, a
 * missing parent, circles). A deletion that libvirt refuses may leave a branch where there was a line.
 */
function newerCheckpoints(tree: CheckpointTree, asked: string): readonly string[] {
  const ancestors = new Set(tree.ancestors(asked))
  const descendants = new Set(tree.descendants(asked))
  const open = tree.names.filter(name => name !== asked && ancestors.has(name) === descendants.has(name))
  const time = (name: string) => tree.get(name)?.creationTime ?? Number.NaN
  const surely = [...descendants].filter(name => !ancestors.has(name))
  return [...surely, ...open.filter(name => !(time(name) < time(asked)))]
}

function subsetQueries(
  disk: DiskPlan,
  chain: readonly LayerFacts[],
  newer: (checkpoint: string) => readonly string[],
): SubsetQuery[] {
  const queries: SubsetQuery[] = []
  for (const { layer, filename, bitmap: older, granularity } of disk.merge) {
    if (!(chain[layer] && findBitmap(chain[layer], older)?.recording)) continue
    for (const checkpoint of newer(older)) {
      const entry = chain[layer] && findBitmap(chain[layer], checkpoint)
      if (!entry?.recording || entry.inconsistent || entry.corrupt !== undefined) continue
      const common = Math.max(granularity, entry.granularity)
      queries.push({ checkpoint, layer, filename, older, newer: checkpoint, granularity: common })
    }
  }
  return queries
}
