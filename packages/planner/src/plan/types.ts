/**
 * The plan of an incremental backup: plain data in camelCase; `planToJson` gives the kebab-case JSON of the
 * command line.
 */
import type { Reason } from './reasons.js'

/**
 * How the bitmaps of a domain's checkpoints share the work. Independent (libvirt 6.6 and later): every bitmap keeps
 * recording. Chained (before): at a new checkpoint the old bitmap is disabled, so what changed since a checkpoint is in
 * its bitmap and those of all later ones together.
 */
export type Dialect = 'independent' | 'chained'

/**
 * What the flags of a domain's bitmaps look like. `mixed`: older ones disabled, several newer ones recording, at the
 * same checkpoint on every disk (an upgraded host). `irregular`: no dialect makes such flags. `none`: no disk has the
 * bitmaps of two checkpoints.
 */
export type DialectPattern = 'independent' | 'chained' | 'mixed' | 'irregular' | 'none'

/** The bitmaps of a disk's checkpoints, in the topmost layer that has two of them or more. */
export interface DiskDialect {
  readonly target: string
  readonly layer: number
  readonly filename: string
  readonly pattern: Exclude<DialectPattern, 'none'>
  /** How many record, and how many do not. */
  readonly recording: number
  readonly disabled: number
  /** The newest checkpoint among them, by the tree or else by time; undefined where it made no difference. */
  readonly newest: string | undefined
}

/** Why the plan is of its dialect. */
export interface DialectEvidence {
  /** By the flags, or by the caller's word. */
  readonly source: 'found' | 'told'
  /** What the flags look like, also where the caller told. */
  readonly pattern: DialectPattern
  /** In the domain's order; disks not asked for count too. */
  readonly disks: readonly DiskDialect[]
  /** For people. */
  readonly message: string
}

/** What is safe: copy the changes, copy the whole disk, or cannot be told from here. */
export type DiskMode = 'incremental' | 'full' | 'unknown'

/** What libvirt itself would say of an incremental backup of this disk; `unknown`: not to be told from here. */
export type LibvirtVerdict = 'accept' | 'reject' | 'unknown'

/** A bitmap of one layer; the union of all of a disk's is what changed. */
export interface MergeSource {
  /** Index from the top, 0 = top. */
  readonly layer: number
  /** The file that was opened. */
  readonly filename: string
  readonly bitmap: string
  /** Bytes. */
  readonly granularity: number
}

export interface DiskPlan {
  readonly target: string
  /** As the domain's XML names it. */
  readonly source: string
  /** `<disk type>`: `file`, `block`, `network`, … */
  readonly type: string
  /** The top image's file as it was opened; undefined where no image was read. */
  readonly filename: string | undefined
  /** The top image's format; undefined where neither the domain nor the image tells. */
  readonly format: string | undefined
  readonly mode: DiskMode
  readonly libvirt: LibvirtVerdict
  /** Bytes; undefined where the top image could not be read. */
  readonly virtualSize: number | undefined
  /** Bytes in the union of `merge`, clipped to the disk; undefined where it was not measured. */
  readonly dirtyBytes: number | undefined
  /**
   * Top layer first; within a layer the asked checkpoint's, then those of later ones (chained). Given where the mode is
   * incremental and wherever libvirt accepts; else empty.
   */
  readonly merge: readonly MergeSource[]
  /** Those that block first, then unknown, then notes. */
  readonly reasons: readonly Reason[]
}

/** A disk of the domain which the plan leaves out. */
export interface SkippedDisk {
  readonly target: string
  readonly why: 'not-asked' | 'read-only' | 'empty'
}

/** Another checkpoint from which more disks would be incremental (judged without reading bitmaps' bodies). */
export interface NextBest {
  readonly checkpoint: string
  /**
   * An older one covers more than was asked for, so it can be used as it is; from a newer one only what changed
   * since then is had: of use where a backup was made at that checkpoint.
   */
  readonly relation: 'older' | 'newer'
  /** Steps in the tree from the checkpoint asked for. */
  readonly distance: number
  /** The targets that would be incremental. */
  readonly disks: readonly string[]
  /** True where these are all of the plan's disks. */
  readonly everyDisk: boolean
  /** Bytes that these would copy; undefined where they were not measured. */
  readonly dirtyBytes: number | undefined
}

export interface BackupPlan {
  readonly domain: string
  /** The checkpoint asked for: everything since it is wanted. */
  readonly incremental: string
  readonly dialect: Dialect
  readonly dialectEvidence: DialectEvidence
  /** In the domain's order. */
  readonly disks: readonly DiskPlan[]
  readonly skipped: readonly SkippedDisk[]
  readonly nextBest: NextBest | undefined
}
