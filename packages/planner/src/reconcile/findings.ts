/** What does not go together among a domain's metadata, bitmaps and images, and what mends it. */
import type { TreeProblem } from '../checkpoints/problems.js'
import type { ReasonCode } from '../plan/reasons.js'
import type { Ownership } from './owners.js'

/** Bytes and clusters that a bitmap takes of an image. */
export interface BitmapCost {
  readonly clusters: number
  readonly bytes: number
}

/**
 * `error`: what the metadata promise is not there. `warning`: something that gets in the way, or is in nobody's use.
 * `info`: to know; nothing is wrong.
 */
export type FindingSeverity = 'error' | 'warning' | 'info'

/** What the plan says of a checkpoint's disk is found here by the same code. */
type PlannedCode = Extract<
  ReasonCode,
  | 'bitmap-inconsistent'
  | 'bitmap-disabled'
  | 'bitmaps-stale'
  | 'bitmap-corrupt'
  | 'bitmap-subset-violated'
  | 'disk-source-changed'
  | 'layer-size-differs'
  | 'not-qcow2'
  | 'image-missing'
  | 'image-unreadable'
  | 'image-inaccessible'
  | 'image-corrupt'
  | 'image-unsupported'
  | 'image-denied'
  | 'backing-cycle'
>

export type FindingCode =
  | TreeProblem['code']
  | PlannedCode
  /** A file of a checkpoint that cannot be read; libvirt leaves it out as well. */
  | 'metadata-unreadable'
  /** A file that can be read here, and that libvirt leaves out. */
  | 'metadata-not-loaded'
  /** A checkpoint says that it has a bitmap of a disk, and the disk or a layer that should have it has none. */
  | 'checkpoint-without-bitmap'
  /** No checkpoint knows it. */
  | 'bitmap-orphan'
  /** No checkpoint knows it, and it is another tool's, which keeps its bitmaps beside libvirt. */
  | 'bitmap-foreign'
  /** libvirt makes such bitmaps for a job, and never on disk. */
  | 'bitmap-temporary'
  /** Of a known checkpoint, in a layer or on a disk where it says nothing. */
  | 'bitmap-unneeded'
  /** Two bitmaps of one image have the same name. */
  | 'bitmap-duplicate'
  /** The bitmaps of one checkpoint are of several granularities. */
  | 'granularity-differs'
  /** An image has as many bitmaps as it can, or one that QEMU would not make. */
  | 'bitmap-limit'
  /** A disk of a checkpoint is no disk of the domain any more. */
  | 'disk-left-domain'
  /** A running QEMU holds the image. */
  | 'image-in-use'

/** When a way can be gone: `off`: while the domain does not run. */
export type WayNeeds = 'off' | 'running' | 'any'

/** One way out of a finding: commands for `sh -e`, in order. */
export interface Way {
  readonly way:
    | 'drop'
    | 'adopt'
    | 'leave-out'
    | 'forget'
    | 'line'
    | 'set-aside'
    | 'redefine'
    | 'delete-running'
    | 'drop-stale'
  /** What it comes to, for people. */
  readonly title: string
  readonly needs: WayNeeds
  readonly commands: readonly string[]
}

export interface Finding {
  readonly code: FindingCode
  readonly severity: FindingSeverity
  readonly message: string
  readonly disk?: string | undefined
  readonly layer?: number | undefined
  readonly filename?: string | undefined
  readonly bitmap?: string | undefined
  readonly checkpoint?: string | undefined
  /** All the images that have it, where there are several. */
  readonly filenames?: readonly string[] | undefined
  readonly owner?: Ownership | undefined
  readonly cost?: BitmapCost | undefined
  /** Other ways out included; the first is the one that loses least. */
  readonly ways: readonly Way[]
  /** Those of the first way. */
  readonly commands: readonly string[]
}

/** Makes a finding; ways without commands are left out. */
export function finding(
  code: FindingCode,
  severity: FindingSeverity,
  message: string,
  where: Omit<Finding, 'code' | 'severity' | 'message' | 'ways' | 'commands'> = {},
  ways: readonly (Way | undefined)[] = [],
): Finding {
  const usable = ways.filter(way => way !== undefined)
  return { code, severity, message, ...where, commands: usable[0]?.commands ?? [], ways: usable }
}
