import type { DiskPlan } from '@tidemark/planner'
import type { Disk } from './disk.js'

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
  covers(miss: Miss): boolean
}

/**
 * What no plan can know from the images and the metadata: somebody's hand took bits away and left no trace. Each is
 * named in docs/planning.md ("Limits"). Nothing else may be missed.
 */
export const known: readonly Known[] = [
  {
    id: 'cleared-bitmap',
    why: "a cleared bitmap looks like one of a disk that nobody wrote to, unless a newer checkpoint's has a bit of it",
    covers: ({ disk, checkpoint, clusters, bodies, newer }) =>
      disk.isHarmed(checkpoint, 'cleared') &&
      !(bodies && [...newer.values()].some(bits => clusters.some(cluster => bits.has(cluster)))),
  },
  {
    id: 'cut-and-grown',
    why: 'a disk that was cut and grown again to any size has zeros where no bitmap has a bit, and no size then to compare',
    covers: ({ disk, checkpoint }) => disk.isHarmed(checkpoint, 'cut-and-grown'),
  },
  {
    id: 'cut-and-merged',
    why: 'a layer that was cut and then merged into a longer one lets what that has behind the cut come to light again',
    covers: ({ disk, checkpoint }) => disk.isHarmed(checkpoint, 'cut-and-merged'),
  },
  {
    id: 'disabled-like-chained',
    why: 'a bitmap disabled by hand on every disk that has two looks like the chained dialect',
    covers: ({ disk, checkpoint, dialect }) =>
      dialect === 'chained' &&
      [checkpoint, ...disk.damage.keys()].some(name => disk.isHarmed(name, 'disabled')),
  },
]
