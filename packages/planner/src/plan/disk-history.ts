import { type LineSince, lineSince } from '../checkpoints/line.js'
import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointFacts, DomainDisk, LayerFacts } from '../facts.js'
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
  /** What a checkpoint of the tree recorded of the disk; of several with one name, what any of them did. */
  recorded(checkpoint: string): Recorded
  /** Why libvirt does not load the metadata of a checkpoint of the tree; undefined where it does. */
  notLoaded(checkpoint: string): string | undefined
  /** The nearest later checkpoint at which the domain did not have the disk. */
  awayAt(checkpoint: string): string | undefined
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
  const doubled = new Map<string, readonly CheckpointFacts[]>()
  for (const problem of tree.problems) {
    if (problem.code !== 'checkpoint-duplicate') continue
    const { checkpoint } = problem
    doubled.set(
      checkpoint,
      facts.checkpoints.filter(({ name }) => name === checkpoint),
    )
  }
  const copies = (name: string) => doubled.get(name) ?? [tree.get(name)!]
  const notLoaded = (name: string) => {
    const reasons = copies(name).map(({ libvirtSkips }) => libvirtSkips)
    return reasons.includes(undefined) ? undefined : reasons[0]
  }
  return disk => {
    const chain = facts.chains.get(disk.target) ?? []
    const files = filesNow(disk, chain, facts.fileIds)
    const complete = chain.every(({ problem }) => problem === undefined)
    const recorded = memoized(name =>
      unitedRecord(copies(name).map(checkpoint => recordedDisk(checkpoint, disk, files, complete))),
    )
    let away: ReadonlyMap<string, string> | undefined
    const awayAt = (asked: string) => {
      const isAway = (name: string) =>
        recorded(name).reasons.some(({ code }) => code === 'disk-not-in-checkpoint')
      away ??= nearestNewer(tree, tree.names.filter(isAway))
      return away.get(asked)
    }
    const walk = (asked: string, stopsAtRecording: boolean): Walk => {
      const line = since(asked)
      if (line.state === 'open') return line
      const steps = [asked, ...line.newer].map(name => ({
        checkpoint: tree.get(name)!,
        recorded: recorded(name),
      }))
      return walkLine(chain, steps, {
        stop: stopsAtRecording,
        inChain: file => files.layerOf(file) !== undefined,
        isCheckpoint: bitmap => tree.get(bitmap) !== undefined,
      })
    }
    return { disk, chain, recorded, notLoaded, awayAt, walk }
  }
}

/**
 * Several files may have one checkpoint's name, and which of them libvirt takes is the folder's order: what one of them
 * forbids is forbidden, and a top of that time that they do not agree on is not known.
 */
function unitedRecord([first, ...others]: readonly Recorded[]): Recorded {
  if (others.length === 0) return first!
  const reasons = [...first!.reasons]
  for (const reason of others.flatMap(each => each.reasons)) {
    if (reason.severity === 'blocks' && !reasons.some(({ code }) => code === reason.code))
      reasons.push(reason)
  }
  const top = JSON.stringify(first!.topThen)
  const agreed = others.every(({ topThen }) => JSON.stringify(topThen) === top)
  return { ...first!, reasons, ...(agreed ? {} : { topThen: { state: 'unknown' } }) }
}

/** Each checkpoint after which one of those came → the nearest of them on some branch. In a circle nothing is newer. */
function nearestNewer(tree: CheckpointTree, those: readonly string[]): ReadonlyMap<string, string> {
  const nearest = new Map<string, string>()
  const circles = tree.problems.flatMap(each => (each.code === 'checkpoint-cycle' ? each.checkpoints : []))
  const circular = new Set(circles)
  const stops = new Set(those)
  for (const each of those) {
    if (circular.has(each)) continue
    // What lies before another one of them, or was met before, is done from there.
    for (let name = tree.get(each)?.parent; name !== undefined; name = tree.get(name)?.parent) {
      if (tree.get(name) === undefined || nearest.has(name)) break
      nearest.set(name, each)
      if (stops.has(name)) break
    }
  }
  return nearest
}
