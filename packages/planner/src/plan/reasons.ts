/** Why a disk is planned as it is: codes, their evidence, and how much each weighs. */

/** A layer of a disk's chain in evidence: its index from the top and the file that was opened. */
export interface LayerEvidence {
  readonly layer: number
  readonly filename: string
}

export interface BitmapEvidence extends LayerEvidence {
  readonly bitmap: string
}

/**
 * Every reason code and what its evidence holds. Codes are a contract with scripts: one may be added, none is
 * ever reused for something else.
 */
export interface ReasonEvidence {
  /** Hotplugged later: the domain of that time has neither this target nor this source. */
  'disk-not-in-checkpoint': { readonly checkpoint: string; readonly knownTargets: readonly string[] }
  /** `why`: checkpoint='no', not listed while others are, or read-only at that time. */
  'disk-excluded': {
    readonly checkpoint: string
    readonly why: 'checkpoint-no' | 'not-listed' | 'read-only'
  }
  'disk-source-changed': {
    readonly checkpoint: string
    readonly filesThen: readonly string[]
    readonly filesNow: readonly string[]
  }
  'disk-target-changed': { readonly checkpoint: string; readonly targetThen: string; readonly file: string }
  /** Not part of the domain at a later checkpoint, so unplugged and plugged in again since the asked one. */
  'disk-was-away': { readonly checkpoint: string; readonly newer: string }
  'disk-path-changed': { readonly checkpoint: string; readonly pathThen: string }
  /**
   * The disk had another size at the checkpoint or since. `knownFrom`: the caller's word, or an internal snapshot that
   * was taken since. `sizeThen`, `sizeNow`: bytes.
   */
  'disk-resized': {
    readonly checkpoint: string
    readonly sizeThen: number
    readonly sizeNow: number
    readonly knownFrom: 'told' | 'snapshot'
    readonly snapshot?: string
    readonly layer?: number
    readonly filename?: string
  }
  /** A block job copies the disk to another place, where it may go on. */
  'disk-mirrored': { readonly job: string }
  /** Chained: a later checkpoint's record shows an image that has left the chain, with what it had recorded. */
  'layer-gone': { readonly checkpoint: string; readonly file: string }
  /** Chained: a later checkpoint's top lies below an earlier one's. */
  'layer-order-changed': { readonly checkpoint: string; readonly newer: string }
  /** Chained: bitmaps of no known checkpoint, which may hold what was written between two that are known. */
  'bitmap-unaccounted': LayerEvidence & { readonly checkpoint: string; readonly bitmaps: readonly string[] }
  /** libvirt refuses disabled bitmaps, or looks at the asked checkpoint's alone; the plan unites several. */
  'dialect-chained': { readonly checkpoint: string; readonly bitmaps: readonly string[] }
  /** Old bitmaps disabled, newer ones all recording: a host whose libvirt was upgraded. */
  'dialect-mixed': { readonly checkpoint: string; readonly bitmaps: readonly string[] }
  /** libvirt leaves its metadata out at load: it knows no such checkpoint. `why`: what its schema does not have. */
  'checkpoint-not-loaded': { readonly checkpoint: string; readonly why: string }
  'checkpoint-without-domain': { readonly checkpoint: string }
  'bitmap-name-differs': { readonly checkpoint: string; readonly recorded: string }
  /** Other domains may write to it as well. */
  'disk-shareable': { readonly source: string }
  'disk-transient': { readonly source: string }
  'source-not-readable': { readonly type: string }
  'not-qcow2': { readonly format: string; readonly declaredBy: 'domain' | 'image' }
  'image-missing': LayerEvidence & { readonly detail: string }
  'image-unreadable': LayerEvidence & { readonly detail: string }
  /** Who asks may not open it, or cannot; libvirt may. */
  'image-inaccessible': LayerEvidence & { readonly detail: string }
  'image-corrupt': LayerEvidence & { readonly detail: string }
  'image-unsupported': LayerEvidence & { readonly detail: string }
  'image-denied': LayerEvidence & { readonly detail: string }
  'backing-cycle': LayerEvidence & { readonly detail: string }
  /** libvirt goes by the domain's `<backingStore>`; `header`: what the image itself names, empty where it names none. */
  'backing-file-differs': LayerEvidence & { readonly header: string; readonly below: string | null }
  /** The guest data are in a file that is a raw image by itself. */
  'data-file-raw': LayerEvidence & { readonly dataFile: string }
  /** `onDisk`: the rule that the bitmaps on disk break meanwhile, if any. */
  'image-in-use': LayerEvidence & { readonly onDisk?: string }
  /** `cause`: what is known of why. */
  'bitmap-missing': BitmapEvidence & {
    readonly cause: 'absent' | 'v2-image' | 'top-then-lacks-it' | 'top-then-gone' | 'top-then-unknown'
    readonly present: readonly string[]
  }
  'bitmap-gap': BitmapEvidence & { readonly below: LayerEvidence }
  'bitmap-inconsistent': BitmapEvidence
  'bitmap-disabled': BitmapEvidence
  'bitmaps-stale': BitmapEvidence
  'bitmap-corrupt': BitmapEvidence & { readonly detail: string }
  'layer-size-differs': {
    readonly sizes: readonly (LayerEvidence & { readonly virtualSize: number })[]
  }
  'bitmap-subset-violated': BitmapEvidence & {
    readonly newer: string
    readonly missingBytes: number
    readonly firstOffset: number
  }
  'checkpoint-parent-missing': { readonly checkpoint: string; readonly parent: string }
  'checkpoint-cycle': { readonly checkpoints: readonly string[] }
  'checkpoint-branched': { readonly parent: string | null; readonly checkpoints: readonly string[] }
  'checkpoint-duplicate': { readonly checkpoint: string; readonly copies: number }
}

export type ReasonCode = keyof ReasonEvidence

/**
 * `blocks`: an incremental backup would miss changes or cannot be made, so the disk must be copied whole.
 * `unknown`: what decides cannot be seen from here.
 * `note`: worth knowing, decides nothing.
 */
export type Severity = 'blocks' | 'unknown' | 'note'

/** One reason. `message` is for people, `evidence` for programs; the code tells what evidence there is. */
export type Reason = { [Code in ReasonCode]: ReasonOf<Code> }[ReasonCode]

export interface ReasonOf<Code extends ReasonCode> {
  readonly code: Code
  readonly severity: Severity
  readonly message: string
  readonly evidence: ReasonEvidence[Code]
}

/** Makes a reason, with the evidence that its code calls for checked by the compiler. */
export function reason<Code extends ReasonCode>(
  code: Code,
  severity: Severity,
  message: string,
  evidence: ReasonEvidence[Code],
): Reason {
  return { code, severity, message, evidence } as ReasonOf<ReasonCode> as Reason
}
