/**
 * Evidence that a disk has another size than at the checkpoint. A grown disk's new area reads clean in QEMU's bitmaps,
 * and one that was cut and grown again has lost what its bitmap said of its end, so neither may be incremental.
 */
import type { CheckpointFacts, LayerFacts } from '../facts.js'
import { type Reason, reason } from './reasons.js'
import type { TopThen } from './recorded.js'

export interface SizeQuestion {
  readonly target: string
  readonly chain: readonly LayerFacts[]
  readonly checkpoint: CheckpointFacts
  readonly topThen: TopThen
  /** Bytes, where the caller knows. */
  readonly sizeThen: number | undefined
}

/** One reason for each kind of evidence. */
export function resizedReasons(question: SizeQuestion): Reason[] {
  const { target, chain, checkpoint, sizeThen } = question
  const sizeNow = chain[0]?.virtualSize
  if (sizeNow === undefined) return []
  const reasons: Reason[] = []
  if (sizeThen !== undefined && sizeThen !== sizeNow) {
    const message =
      `Disk ${target} had ${sizeThen} bytes at checkpoint '${checkpoint.name}', as told, and has ${sizeNow} now. ${WHY} ` +
      `Copy ${target} whole.`
    reasons.push(
      reason('disk-resized', 'blocks', message, {
        checkpoint: checkpoint.name,
        sizeThen,
        sizeNow,
        knownFrom: 'told',
      }),
    )
  }
  const found = snapshotOfOtherSize(question, sizeNow)
  if (found !== undefined) {
    const { layer, snapshot, diskSize } = found
    const { filename } = chain[layer]!
    const message =
      `Disk ${target} had ${diskSize} bytes when internal snapshot '${snapshot}' of ${filename} was taken, after ` +
      `checkpoint '${checkpoint.name}', and has ${sizeNow} now. ${WHY} Copy ${target} whole.`
    reasons.push(
      reason('disk-resized', 'blocks', message, {
        ...{ checkpoint: checkpoint.name, sizeThen: diskSize, sizeNow },
        ...{ knownFrom: 'snapshot' as const, snapshot, layer, filename },
      }),
    )
  }
  return reasons
}

const WHY =
  "A bitmap of another size does not say what the guest's end of the disk holds: the new area reads clean."

/**
 * A snapshot of a layer that has been the top since the checkpoint, taken since (or in the same second: it may have
 * been), whose disk had another size. A checkpoint without a time was before any of them for all that is known.
 */
function snapshotOfOtherSize({ chain, checkpoint, topThen }: SizeQuestion, sizeNow: number) {
  const deepest = topThen.state === 'here' ? topThen.layer : chain.length - 1
  for (const [layer, { snapshots = [] }] of chain.slice(0, deepest + 1).entries()) {
    for (const { id, name, date, diskSize } of snapshots) {
      if (diskSize === undefined || diskSize === sizeNow) continue
      if (checkpoint.creationTime !== undefined && date < checkpoint.creationTime) continue
      return { layer, snapshot: name === '' ? id : name, diskSize }
    }
  }
  return undefined
}
