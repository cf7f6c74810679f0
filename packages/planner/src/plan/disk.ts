/** The plan of one disk: the checkpoint's record, the images' state and the bodies' measurements put together. */
import type { CheckpointFacts, LayerFacts } from '../facts.js'
import { findBitmap } from '../validity.js'
import { type BitmapContext, corruptReason, subsetViolated } from './bitmap-reasons.js'
import { judgeChain, type Source } from './chain.js'
import type { DialectRule } from './dialect.js'
import type { DiskHistory } from './disk-history.js'
import { imageNotes, shareableDisk } from './layer-reasons.js'
import type { DiskMeasurement, SubsetViolation } from './measure.js'
import type { Reason, Severity } from './reasons.js'
import { checkpointNotLoaded, diskWasAway } from './recorded.js'
import { resizedReasons } from './resized.js'
import type { DiskMode, DiskPlan, LibvirtVerdict, MergeSource } from './types.js'

export interface DiskQuestion {
  /** The disk, its chain and what each checkpoint recorded of it. */
  readonly history: DiskHistory
  readonly checkpoint: CheckpointFacts
  readonly rule: DialectRule
  readonly measurement: DiskMeasurement | undefined
  /** Bytes at the checkpoint, where the caller knows. */
  readonly sizeThen: number | undefined
  /** Notes that every disk of the plan carries. */
  readonly notes: readonly Reason[]
}

/**
 * Plans one disk. What holds of every answer: where the mode and libvirt's verdict differ some reason says why, and one
 * that is more than a note unless it is the dialect that libvirt does not speak, or a checkpoint that it does not know.
 */
export function planDisk({
  history,
  checkpoint,
  rule,
  measurement,
  sizeThen,
  notes,
}: DiskQuestion): DiskPlan {
  const { disk, chain } = history
  const recorded = history.recorded(checkpoint.name)
  const ruledOut = recorded.reasons.some(({ severity }) => severity === 'blocks')
  const bitmap = checkpoint.name
  const { topThen } = recorded
  const walk = () => history.walk(checkpoint.name, rule === 'mixed')
  const images = judgeChain({ disk, chain, bitmap, topThen, ruledOut, rule, walk })

  // Bodies on disk of a running domain are behind those in memory: a measurement of them means nothing.
  const measured = images.reasons.some(({ severity }) => severity === 'unknown') ? undefined : measurement
  const context = { target: disk.target, chain, bitmap }
  const notLoaded = history.notLoaded(bitmap)
  const away = ruledOut ? undefined : history.awayAt(bitmap)
  const shared = disk.shareable ? [shareableDisk(disk)] : []
  const sizes = resizedReasons({ target: disk.target, chain, checkpoint, topThen, sizeThen })
  const bodies = [...hollowReasons(context, images.sources), ...bodyReasons(context, measured)]
  const reasons = [
    ...recorded.reasons,
    ...images.reasons,
    ...shared,
    ...sizes,
    ...bodies,
    ...(notLoaded === undefined ? [] : [checkpointNotLoaded(bitmap, notLoaded)]),
    ...(away === undefined ? [] : [diskWasAway(disk, bitmap, away)]),
    ...imageNotes(disk, chain),
    ...unsaid(notes, images.reasons),
  ].sort(bySeverity)
  const refused = measured?.errors.some(({ qemuLoads }) => qemuLoads !== true) ?? false
  const libvirt: LibvirtVerdict =
    notLoaded !== undefined || (images.libvirt === 'accept' && refused) ? 'reject' : images.libvirt
  const mode = modeOf(reasons)
  const given = mode === 'incremental' || libvirt === 'accept'
  return {
    target: disk.target,
    source: disk.source ?? '',
    type: disk.type,
    filename: chain[0]?.filename,
    format: disk.format ?? chain[0]?.format,
    mode,
    libvirt,
    virtualSize: chain[0]?.virtualSize,
    dirtyBytes: given ? measured?.dirtyBytes : undefined,
    merge: given ? mergeList(chain, images.sources) : [],
    reasons,
  }
}

/** What blocks a disk is no note besides. */
function unsaid(notes: readonly Reason[], reasons: readonly Reason[]): readonly Reason[] {
  return notes.filter(({ code }) => !reasons.some(other => other.code === code))
}

const WEIGHT: Record<Severity, number> = { blocks: 0, unknown: 1, note: 2 }

function bySeverity(a: Reason, b: Reason): number {
  return WEIGHT[a.severity] - WEIGHT[b.severity]
}

/** A whole copy is right whatever cannot be seen, so one blocking reason outweighs all that is unknown. */
function modeOf(reasons: readonly Reason[]): DiskMode {
  if (reasons.some(({ severity }) => severity === 'blocks')) return 'full'
  return reasons.some(({ severity }) => severity === 'unknown') ? 'unknown' : 'incremental'
}

function mergeList(chain: readonly LayerFacts[], sources: readonly Source[]): MergeSource[] {
  return sources.map(({ layer, bitmap }) => {
    const { filename } = chain[layer]!
    return { layer, filename, bitmap, granularity: findBitmap(chain[layer]!, bitmap)!.granularity }
  })
}

/** Bitmaps that QEMU loads though part of them is not there: clean bits that nobody ever wrote. */
function hollowReasons(context: BitmapContext, sources: readonly Source[]): Reason[] {
  return sources.flatMap(({ layer, bitmap }) => {
    const { filename } = context.chain[layer]!
    const corrupt = findBitmap(context.chain[layer]!, bitmap)?.corrupt
    if (corrupt === undefined) return []
    return [corruptReason(context, { layer, filename, bitmap, message: corrupt, qemuLoads: true }, 'blocks')]
  })
}

function bodyReasons(context: BitmapContext, measurement: DiskMeasurement | undefined): Reason[] {
  if (measurement === undefined) return []
  return [
    ...measurement.errors.map(error => corruptReason(context, error, 'blocks')),
    ...nearest(measurement.violations).map(violation =>
      subsetViolated({ ...context, bitmap: violation.older ?? context.bitmap }, violation),
    ),
  ]
}

/** A bitmap that was cleared lacks what any newer one has: for each layer the nearest newer one says enough. */
function nearest(violations: readonly SubsetViolation[]): readonly SubsetViolation[] {
  return violations.filter(({ layer }, i) => violations.findIndex(other => other.layer === layer) === i)
}
