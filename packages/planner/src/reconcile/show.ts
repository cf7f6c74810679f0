/** One checkpoint, disk by disk: what it recorded, what there is of its bitmap now, and what a backup from it would be. */
import { buildCheckpointTree, type CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, BitmapFacts, CheckpointFacts, LayerFacts } from '../facts.js'
import { normalizePath } from '../paths.js'
import { filesNow, filesThen, likeness } from '../plan/disk-files.js'
import type { BackupPlan, DiskPlan } from '../plan/types.js'
import { findBitmap } from '../validity.js'

/** The checkpoint's bitmap in one layer. */
export interface LayerBitmap {
  /** Index from the top, 0 = top. */
  readonly layer: number
  readonly filename: string
  readonly format: string
  /** Why the image cannot be read. */
  readonly problem: string | undefined
  /** A program that does not know bitmaps wrote to it: QEMU loads none of them. */
  readonly stale: boolean
  readonly locked: boolean
  readonly bitmap: BitmapFacts | undefined
}

/** A disk in a checkpoint's record. */
export interface RecordedDisk {
  readonly target: string
  /** Undefined where the record has no domain. */
  readonly source: string | undefined
  /** Undefined: the checkpoint has no list, so every writable disk counts. */
  readonly checkpoint: 'bitmap' | 'no' | undefined
  readonly bitmap: string | undefined
}

export interface ShownDisk {
  readonly plan: DiskPlan
  /** The same disk then; undefined where it was not part of the domain, or another one. */
  readonly recorded: RecordedDisk | undefined
  /** Top first; empty where no image could be read. */
  readonly layers: readonly LayerBitmap[]
}

export interface ShownCheckpoint {
  readonly checkpoint: CheckpointFacts
  readonly current: boolean
  readonly children: readonly string[]
  /** Disks of the domain now, in its order. */
  readonly disks: readonly ShownDisk[]
  /** Disks of the record that are not disks of the domain any more. */
  readonly gone: readonly RecordedDisk[]
}

/**
 * Puts a checkpoint's record beside the domain and its images.
 *
 * @param plan of `planBackup` from that checkpoint
 * @throws {RangeError} the plan is from a checkpoint that the facts do not have
 * @example
 * ```ts
 * const shown = showCheckpoint(facts, planBackup(facts, { incremental: 'cp1' }))
 * for (const { plan, layers } of shown.disks) console.log(plan.target, plan.mode, layers.map(l => l.bitmap?.recording))
 * ```
 */
export function showCheckpoint(facts: BackupFacts, plan: BackupPlan): ShownCheckpoint {
  const tree = buildCheckpointTree(facts.checkpoints)
  const checkpoint = tree.get(plan.incremental)
  if (checkpoint === undefined) throw new RangeError(`no checkpoint '${plan.incremental}' among the facts`)
  const record = recordOf(checkpoint)
  const matches = plan.disks.map(disk => matchRecord(facts, checkpoint, record, disk.target))
  return {
    checkpoint,
    ...position(tree, checkpoint.name),
    disks: plan.disks.map((disk, i) => ({
      plan: disk,
      recorded: matches[i],
      layers: (facts.chains.get(disk.target) ?? []).map((layer, index) =>
        layerBitmap(layer, index, checkpoint.name),
      ),
    })),
    gone: record.filter(each => each.checkpoint !== 'no' && !matches.includes(each)),
  }
}

function position(tree: CheckpointTree, name: string) {
  return { current: tree.current === name, children: tree.children(name) }
}

function layerBitmap(facts: LayerFacts, layer: number, name: string): LayerBitmap {
  const { filename, format, problem, bitmapsStale: stale, locked } = facts
  return {
    layer,
    filename,
    format,
    problem: problem?.message,
    stale,
    locked,
    bitmap: findBitmap(facts, name),
  }
}

/** The disks that a checkpoint speaks of: those listed, with what the domain of its time says of them. */
export function recordOf({ name, disks, domain }: CheckpointFacts): readonly RecordedDisk[] {
  if (disks === undefined) {
    const all = (domain?.disks ?? []).filter(({ source, readonly }) => source !== undefined && !readonly)
    return all.map(({ target, source }) => ({ target, source, checkpoint: undefined, bitmap: name }))
  }
  return disks.map(entry => {
    const path = entry.name.startsWith('/') ? normalizePath(entry.name) : undefined
    const disk = domain?.disks.find(
      ({ target, source }) =>
        target === entry.name ||
        (path !== undefined && source !== undefined && normalizePath(source) === path),
    )
    const { checkpoint } = entry
    return {
      target: disk?.target ?? entry.name,
      source: disk?.source ?? path,
      checkpoint,
      bitmap: checkpoint === 'no' ? undefined : (entry.bitmap ?? name),
    }
  })
}

/** The record of a disk of now: the one with most of its files; without a domain in the record, of its target. */
export function matchRecord(
  facts: BackupFacts,
  checkpoint: CheckpointFacts,
  record: readonly RecordedDisk[],
  target: string,
): RecordedDisk | undefined {
  const disk = facts.domain.disks.find(each => each.target === target)
  if (disk === undefined) return undefined
  if (checkpoint.domain === undefined) {
    // Neither a list nor a domain: every writable disk is meant.
    if (checkpoint.disks === undefined) {
      return { target, source: undefined, checkpoint: undefined, bitmap: checkpoint.name }
    }
    return record.find(each => each.target === target || (each.source ?? '') === disk.source)
  }
  const now = filesNow(disk, facts.chains.get(target) ?? [], facts.fileIds)
  let best: { readonly record: RecordedDisk; readonly rank: number } | undefined
  for (const each of record) {
    const old = checkpoint.domain.disks.find(disk => disk.target === each.target)
    if (old === undefined || filesThen(old).length === 0) continue
    const like = likeness(old, now)
    // Across targets a shared template proves nothing.
    const rank = like === 1 && old.target !== target ? 0 : like && like * 2 + Number(old.target === target)
    if (rank > (best?.rank ?? 0)) best = { record: each, rank }
  }
  return best?.record
}
