import type { DiskPlan } from '@tidemark/planner'
import type { Disk } from './disk.js'
import { differing, STEP } from './steps-of.js'

/** A write that a plan called incremental would miss. */
export interface Miss {
  readonly disk: Disk
  readonly checkpoint: string
  readonly plan: DiskPlan
  /** Starts of the 64 KiB that the backup lacks. */
  readonly clusters: readonly number[]
  /** The bodies of the bitmaps were looked at. */
  readonly bodies: boolean
  /** Newer checkpoint of the domain → the 64 KiB that its bitmap has of this disk. */
  readonly newer: ReadonlyMap<string, ReadonlySet<number>>
  readonly dialect: string
}

interface Known {
  readonly id: string
  /** Why nothing on disk tells. */
  readonly why: string
  /** @returns whether it explains that these 64 KiB are missing */
  covers(miss: Miss, cluster: number): boolean
}

/**
 * What no plan can know from the images and the metadata: somebody's hand took bits away and left no trace
 * (docs/planning.md tells of them). Nothing else may be missed.
 */
export const known: readonly Known[] = [
  {
    id: 'cleared-bitmap',
    why: "a cleared bitmap looks like one of a disk that nobody wrote to, unless a newer checkpoint's has a bit of it",
    covers: ({ disk, checkpoint, bodies, newer }, cluster) =>
      // What was written after that is in the bitmap.
      (disk.cleared.get(checkpoint) ?? []).some(then =>
        differing(disk.moments.get(checkpoint)!.content, then).includes(cluster),
      ) && !(bodies && [...newer.values()].some(bits => bits.has(cluster))),
  },
  {
    id: 'removed-and-made-again',
    why:
      "libvirt's commit and pull make a bitmap anew that somebody removed from the image that they write to, with what " +
      'the other layers have of it',
    covers: ({ disk, checkpoint, plan, bodies, newer }, cluster) =>
      (disk.removed.get(checkpoint) ?? []).some(
        ({ file, content }) =>
          plan.merge.some(({ filename }) => filename === file) &&
          differing(disk.moments.get(checkpoint)!.content, content).includes(cluster),
      ) && !(bodies && [...newer.values()].some(bits => bits.has(cluster))),
  },
  {
    id: 'cut-off',
    why:
      'a disk that was cut has zeros behind the cut once it is grown again, or what a deeper layer has there once it is ' +
      'merged; no bitmap has a bit of either',
    covers: ({ disk, checkpoint }, cluster) => cluster + STEP > (disk.cutTo.get(checkpoint) ?? Infinity),
  },
  {
    id: 'disabled-like-chained',
    why: 'a bitmap disabled by hand on every disk that has two looks like the chained dialect',
    covers: ({ disk, dialect }) => dialect === 'chained' && disk.disabled.size > 0,
  },
]

/**
 * Why a disk may be copied whole though its bitmaps would do: the images of that time have left the chain; the order of
 * the checkpoints is open where flags look like the chained dialect.
 */
export const careful: readonly string[] = [
  ...['bitmap-missing', 'disk-not-in-checkpoint', 'disk-source-changed', 'checkpoint-branched'],
]

/** What explains a miss, or undefined where something of it is not explained. */
export function excuses(miss: Miss): readonly string[] | undefined {
  const found = miss.clusters.map(cluster => known.find(({ covers }) => covers(miss, cluster))?.id)
  return found.every(id => id !== undefined) ? [...new Set(found)] : undefined
}
