/** What must happen to which bitmaps in which layer: plain data in camelCase, in the order in which it must happen. */
import type { Evidence } from '../errors.js'
import type { LayerProblem } from '../facts.js'
import type { Dialect, DialectEvidence } from '../plan/types.js'

export type OperationAction = 'delete' | 'commit' | 'pull' | 'copy' | 'snapshot'

/**
 * An image that an operation touches: a layer of the chain as it is now, by its index from the top (0), or an image
 * that is made on the way: the copy (`target`), the new top of a snapshot (`overlay`).
 */
export interface Place {
  readonly disk: string
  readonly layer: number | 'target' | 'overlay'
  /** The file that was, or is to be, opened. */
  readonly filename: string
}

export interface BitmapPlace extends Place {
  readonly bitmap: string
}

/** One operation on one bitmap. Names are QMP's: `block-dirty-bitmap-add` and so on. */
export type BitmapOperation = BitmapPlace &
  (
    | {
        readonly kind: 'add'
        /** Bytes. */
        readonly granularity: number
        readonly persistent: boolean
        readonly disabled: boolean
      }
    /** The bitmap gets what the sources have too; top layer first. */
    | { readonly kind: 'merge'; readonly sources: readonly BitmapPlace[] }
    | { readonly kind: 'remove' }
    | { readonly kind: 'enable' }
    | { readonly kind: 'disable' }
  )

/** What happens to the guest data meanwhile; bitmaps know nothing of it. */
export type DataStep =
  | {
      readonly kind: 'commit'
      readonly top: Place
      readonly base: Place
      /** The image above `top`, which must name `base` from then on; undefined where `top` is the disk's own. */
      readonly overlay: Place | undefined
      readonly baseFormat: string
    }
  | {
      readonly kind: 'pull'
      readonly top: Place
      readonly base: Place | undefined
      readonly baseFormat: string | undefined
    }
  | {
      readonly kind: 'copy'
      readonly top: Place
      readonly topFormat: string
      readonly target: Place
      /** The backing image that the copy keeps: of a shallow copy with something below. */
      readonly backing: Place | undefined
      readonly backingFormat: string | undefined
    }
  | {
      readonly kind: 'snapshot'
      readonly top: Place
      readonly topFormat: string
      readonly overlay: Place
      /** A new image has its top's size. Bytes; undefined where it is not known. */
      readonly virtualSize: number | undefined
    }

export type OperationProblemCode =
  | LayerProblem['code']
  /** Delete: no layer of the disk holds the bitmap; libvirt then deletes nothing at all. */
  | 'bitmap-not-found'
  | 'bitmap-corrupt'
  | 'bitmap-inconsistent'
  | 'bitmap-gap'
  | 'bitmaps-stale'
  | 'layer-size-differs'
  /** Commit: the base is a layer of another disk, whose data would change. */
  | 'layer-shared'
  | 'not-qcow2'
  /** A version 2 image, which can hold no bitmap. */
  | 'image-version-2'
  /** Chained: whose bitmap is to get the changes cannot be told. */
  | 'checkpoint-parent-missing'
  | 'checkpoint-cycle'
  | 'bitmap-name-differs'
  /** Bitmaps of lost checkpoints, some disabled: which dialect it is must be told. */
  | 'dialect-unclear'
  | 'image-in-use'
  | 'source-not-readable'
  /** A bitmap that is left behind, with the rule that it breaks. libvirt says nothing. */
  | 'bitmap-skipped'
  /** A broken bitmap that would look sound afterwards. */
  | 'bitmap-trap'
  /** Bitmaps that the usual tool alone would lose. */
  | 'bitmaps-lost'
  /** Delete: the checkpoint's disk is not in the domain any more. */
  | 'disk-unplugged'

export interface OperationProblem {
  readonly code: OperationProblemCode
  /** `blocks`: it cannot be done. `unknown`: what decides cannot be seen from here. `note`: a warning. */
  readonly severity: 'blocks' | 'unknown' | 'note'
  readonly disk: string
  readonly message: string
  readonly evidence: Evidence
}

/** A plan of operations, for all disks together: they are meant to happen all or none. */
export interface OperationsPlan {
  readonly domain: string
  readonly action: OperationAction
  /** The checkpoint that is deleted. */
  readonly checkpoint: string | undefined
  readonly dialect: Dialect
  /** Why it is thought to be this one. */
  readonly dialectEvidence: DialectEvidence
  /** The disks that it is about, in order. */
  readonly disks: readonly string[]
  /** The layers of those disks as they are now, top first. */
  readonly layers: readonly Place[]
  readonly operations: readonly BitmapOperation[]
  /** Layers below the top that a running QEMU has read-only and must reopen, deepest first. */
  readonly reopen: readonly Place[]
  readonly data: readonly DataStep[]
  readonly problems: readonly OperationProblem[]
}

/** Exit status of the command line for a plan: 1 it cannot be done, 4 it cannot be told, else 0. */
export function operationsExitStatus(plan: Pick<OperationsPlan, 'problems'>): 0 | 1 | 4 {
  const severities = plan.problems.map(({ severity }) => severity)
  if (severities.includes('blocks')) return 1
  return severities.includes('unknown') ? 4 : 0
}
