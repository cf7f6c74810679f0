import { type LineSince, lineSince } from '../checkpoints/line.js'
import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, DomainDisk, LayerFacts } from '../facts.js'
import type { Walk } from './chain.js'
import { walkLine } from './chained.js'
import { filesNow } from './disk-files.js'
import { memoized } from './memoized.js'
import { type Recorded, recordedDisk } from './recorded.js'

/** A disk with its chain, and what each checkpoint recorded of it. */
export interface DiskHistory {
  readonly disk: DomainDisk
  /** Top first; empty where it could not be read. */
  readonly chain: readonly LayerFacts[]
  /** What a checkpoint of the tree recorded of the disk. */
  recorded(checkpoint: string): Recorded
  /** The walk to the newest checkpoint, where the chain can be read. */
  walk(asked: string, stopsAtRecording: boolean): Walk
}

/**
 * Everything is looked up once: when a better checkpoint to start from is looked for, each is asked about.
 *
 * @returns for a disk its history
 */
export function diskHistories(facts: BackupFacts, tree: CheckpointTree): (disk: DomainDisk) => DiskHistory {
  const since = memoized((checkpoint): LineSince => lineSince(tree, checkpoint))
  return disk => {
    const chain = facts.chains.get(disk.target) ?? []
    const files = filesNow(disk, chain, facts.fileIds)
    const complete = chain.every(({ problem }) => problem === undefined)
    const recorded = memoized(name => recordedDisk(tree.get(name)!, disk, files, complete))
    const walk = (asked: string, stopsAtRecording: boolean): Walk => {
      const line = since(asked)
      if (line.state === 'open') return line
      const steps = [asked, ...line.newer].map(name => ({
        checkpoint: tree.get(name)!,
        recorded: recorded(name),
      }))
      return walkLine(chain, steps, stopsAtRecording, file => files.layerOf(file) !== undefined)
    }
    return { disk, chain, recorded, walk }
  }
}
