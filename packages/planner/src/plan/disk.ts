/** The plan of one disk: the checkpoint's record, the images' state and the bodies' measurements put together. */
import type { CheckpointFacts, DomainDisk, LayerFacts } from '../facts.js'
import { findBitmap } from '../validity.js'
import { type BitmapContext, corruptReason, subsetViolated } from './bitmap-reasons.js'
import { judgeChain } from './chain.js'
import { filesNow } from './disk-files.js'
import type { DiskMeasurement, SubsetViolation } from './measure.js'
import type { Reason, Severity } from './reasons.js'
import { recordedDisk } from './recorded.js'
import type { DiskMode, DiskPlan, LibvirtVerdict, MergeSource } from './types.js'

export interface DiskQuestion {
  /** A disk with a source. */
  readonly disk: DomainDisk
  /** Its backing chain now, top first; empty where it could not be read. */
  readonly chain: readonly LayerFacts[]
  readonly checkpoint: CheckpointFacts
  readonly measurement: DiskMeasurement | undefined
  /** Notes that every disk of the plan carries. */
  readonly notes: readonly Reason[]
}

/**
 * Plans one disk. What holds of every answer: `incremental` implies that libvirt accepts; where the mode and
 * libvirt's verdict differ, some reason that is more than a note says why.
 */
export function planDisk({ disk, chain, checkpoint, measurement, notes }: DiskQuestion): DiskPlan {
  const complete = chain.every(({ problem }) => problem === undefined)
  const recorded = recordedDisk(checkpoint, disk, filesNow(disk, chain), complete)
  const ruledOut = recorded.reasons.some(({ severity }) => severity === 'blocks')
  const bitmap = checkpoint.name
  const images = judgeChain({ disk, chain, bitmap, topThen: recorded.topThen, ruledOut })

  // Bodies on disk of a running domain are behind those in memory: a measurement of them means nothing.
  const measured = images.reasons.some(({ severity }) => severity === 'unknown') ? undefined : measurement
  const context = { target: disk.target, chain, bitmap }
  const bodies = [...hollowReasons(context, images.layers), ...bodyReasons(context, measured)]
  const reasons = [...recorded.reasons, ...images.reasons, ...bodies, ...notes].sort(bySeverity)
  const refused = measured?.errors.some(({ qemuLoads }) => qemuLoads !== true) ?? false
  const libvirt: LibvirtVerdict = images.libvirt === 'accept' && refused ? 'reject' : images.libvirt
  return {
    target: disk.target,
    source: disk.source ?? '',
    type: disk.type,
    filename: chain[0]?.filename,
    format: disk.format ?? chain[0]?.format,
    mode: modeOf(reasons),
    libvirt,
    virtualSize: chain[0]?.virtualSize,
    dirtyBytes: libvirt === 'accept' ? measured?.dirtyBytes : undefined,
    merge: libvirt === 'accept' ? mergeList(chain, images.layers, bitmap) : [],
    reasons,
  }
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

function mergeList(chain: readonly LayerFacts[], layers: readonly number[], bitmap: string): MergeSource[] {
  return layers.map(layer => {
    const { filename } = chain[layer]!
    return { layer, filename, bitmap, granularity: findBitmap(chain[layer]!, bitmap)!.granularity }
  })
}

/** Bitmaps that QEMU loads though part of them is not there: clean bits that nobody ever wrote. */
function hollowReasons(context: BitmapContext, layers: readonly number[]): Reason[] {
  return layers.flatMap(layer => {
    const { filename } = context.chain[layer]!
    const corrupt = findBitmap(context.chain[layer]!, context.bitmap)?.corrupt
    if (corrupt === undefined) return []
    const error = { layer, filename, bitmap: context.bitmap, message: corrupt, qemuLoads: true }
    return [corruptReason(context, error, 'blocks')]
  })
}

function bodyReasons(context: BitmapContext, measurement: DiskMeasurement | undefined): Reason[] {
  if (measurement === undefined) return []
  return [
    ...measurement.errors.map(error => corruptReason(context, error, 'blocks')),
    ...nearest(measurement.violations).map(violation => subsetViolated(context, violation)),
  ]
}

/** A bitmap that was cleared lacks what any newer one has: for each layer the nearest newer one says enough. */
function nearest(violations: readonly SubsetViolation[]): readonly SubsetViolation[] {
  return violations.filter(({ layer }, i) => violations.findIndex(other => other.layer === layer) === i)
}
