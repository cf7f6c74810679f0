/** Reasons that a checkpoint's bitmap gives, each with the layer, the rule, the likely cause and the way out. */
import type { LayerFacts } from '../facts.js'
import { listNames } from '../nearest.js'
import type { Violation } from '../validity.js'
import type { BodyError, SubsetViolation } from './measure.js'
import { type Reason, reason, type Severity } from './reasons.js'
import type { TopThen } from './recorded.js'

/** What every message of this file speaks of. */
export interface BitmapContext {
  readonly target: string
  readonly chain: readonly LayerFacts[]
  /** The bitmap's name, which is the checkpoint's. */
  readonly bitmap: string
}

/** The reason for a broken rule. `severity` is a note where something graver makes the bitmap beside the point. */
export function violationReason(context: BitmapContext, violation: Violation, severity: Severity): Reason {
  const { target, bitmap } = context
  const at = place(context, violation.layer)
  const evidence = { layer: violation.layer, filename: context.chain[violation.layer]!.filename, bitmap }
  switch (violation.rule) {
    case 'bitmap-missing':
      return missing(context, violation.layer, severity)
    case 'bitmaps-stale':
      return staleReason(context, violation.layer, severity)
    case 'bitmap-gap': {
      const below = { layer: violation.below, filename: context.chain[violation.below]!.filename }
      const message =
        `${at} lacks bitmap '${bitmap}', though a layer above it and ${below.filename} below have it: what was ` +
        'written in between was recorded nowhere. Likely the overlay was made without libvirt (qemu-img create -b), ' +
        `or the bitmap was removed there. Copy ${target} whole.`
      return reason('bitmap-gap', severity, message, { ...evidence, below })
    }
    case 'bitmap-inconsistent': {
      const message =
        `Bitmap '${bitmap}' in ${at} is inconsistent: a writer set its in-use flag and never finished (QEMU was ` +
        'killed, the host crashed, or the volume was full at shutdown), so writes may be missing from it. Copy ' +
        `${target} whole, remove the bitmap and take a new checkpoint.`
      return reason('bitmap-inconsistent', severity, message, evidence)
    }
    case 'bitmap-disabled': {
      const message =
        `Bitmap '${bitmap}' in ${at} is disabled: it stopped recording, so later writes are not in it. Likely it was ` +
        'disabled by hand (qemu-img bitmap --disable) or by libvirt before 6.6, which kept only the newest ' +
        `recording. Copy ${target} whole.`
      return reason('bitmap-disabled', severity, message, evidence)
    }
    case 'bitmap-corrupt':
      return corruptReason(
        context,
        { ...evidence, bitmap: violation.bitmap, message: violation.detail },
        severity,
      )
  }
}

/** A layer that should hold the bitmap: it was the top at the checkpoint, or may have been, or took its place. */
export function lostLayer(context: BitmapContext, layer: number, topThen: TopThen['state']): Reason {
  const { target, bitmap } = context
  const at = place(context, layer)
  const accepts = `libvirt would accept: it only asks the layers above. Copy ${target} whole.`
  const message = {
    here:
      `${at} was the top of ${target} at checkpoint '${bitmap}', so bitmap '${bitmap}' was made there, and it is ` +
      `gone. What was written between the checkpoint and the next overlay is lost to it, yet ${accepts}`,
    gone:
      `The image that was the top of ${target} at checkpoint '${bitmap}' has left the chain, and ${at} has no bitmap ` +
      `'${bitmap}'. If that image was committed into it without its bitmap (qemu-img commit), what was written in ` +
      `between is recorded nowhere, yet ${accepts}`,
    unknown:
      `${at} has no bitmap '${bitmap}', and the metadata of the checkpoint does not say which image was the top of ` +
      `${target} then. If it was this one, changes are lost, yet ${accepts}`,
  }[topThen]
  const cause = { here: 'top-then-lacks-it', gone: 'top-then-gone', unknown: 'top-then-unknown' } as const
  return reason('bitmap-missing', 'blocks', message, {
    ...{ layer, filename: context.chain[layer]!.filename, bitmap, cause: cause[topThen] },
    present: namesIn(context, layer),
  })
}

export function staleReason(context: BitmapContext, layer: number, severity: Severity): Reason {
  const { target, bitmap } = context
  const beneath =
    layer > 0 ? ' libvirt takes them for absent and may accept, though changes recorded there are lost.' : ''
  const message =
    `The bitmaps of ${place(context, layer)} are stale: a program that does not know bitmaps wrote to the image and ` +
    `cleared its autoclear bit, so '${bitmap}' misses those writes.${beneath} QEMU erases them when it next opens ` +
    `the image for writing. Copy ${target} whole.`
  return reason('bitmaps-stale', severity, message, {
    layer,
    filename: context.chain[layer]!.filename,
    bitmap,
  })
}

/** Also for a body that cannot be read. */
export function corruptReason(context: BitmapContext, error: BodyError, severity: Severity): Reason {
  const { layer, filename, bitmap } = error
  const opens =
    error.qemuLoads === true ? 'QEMU reads it all the same, and wrongly' : 'QEMU refuses the whole image'
  const message =
    `Bitmap '${bitmap}' in ${place(context, layer)} is malformed: ${error.message}. ${opens}. Look at it with ` +
    `tidemark info; copy ${context.target} whole.`
  return reason('bitmap-corrupt', severity, message, { layer, filename, bitmap, detail: error.message })
}

export function subsetViolated(context: BitmapContext, violation: SubsetViolation): Reason {
  const { target, bitmap } = context
  const { layer, filename, checkpoint: newer, missingBytes, firstOffset } = violation
  const message =
    `Bitmap '${bitmap}' in ${place(context, layer)} lacks ${missingBytes} bytes, the first at ` +
    `0x${firstOffset.toString(16)}, which '${newer}' has marked. A bitmap must hold all that a newer one ` +
    `does, and '${newer}' is newer, or nothing tells that it is older: '${bitmap}' was cleared or made anew, and ` +
    `libvirt would not notice. Copy ${target} whole.`
  return reason('bitmap-subset-violated', 'blocks', message, {
    ...{ layer, filename, bitmap, newer, missingBytes, firstOffset },
  })
}

function missing(context: BitmapContext, layer: number, severity: Severity): Reason {
  const { target, bitmap, chain } = context
  const { filename, compat } = chain[layer]!
  const present = namesIn(context, layer)
  if (severity === 'note') {
    const message = `${place(context, layer)} has no bitmap '${bitmap}' either, as is to be expected: libvirt refuses for that.`
    return reason('bitmap-missing', severity, message, { layer, filename, bitmap, cause: 'absent', present })
  }
  const old = compat === '0.10'
  const why = old
    ? 'it is a version 2 image (compat=0.10), which cannot hold bitmaps; qemu-img amend -o compat=0.10 drops them ' +
      'without a word'
    : `${present.length === 0 ? 'it has none at all' : `it has ${listNames(present)}`}. Likely it was removed by hand or by another backup tool, was lost in a crash ` +
      'before QEMU wrote it out, or the overlay was made without libvirt'
  const message = `${place(context, layer)} has no bitmap '${bitmap}': ${why}. Copy ${target} whole and take a new checkpoint.`
  const cause = old ? 'v2-image' : 'absent'
  return reason('bitmap-missing', severity, message, { layer, filename, bitmap, cause, present })
}

function namesIn({ chain }: BitmapContext, layer: number): readonly string[] {
  return chain[layer]!.bitmaps.map(({ name }) => name)
}

function place({ target, chain }: BitmapContext, layer: number): string {
  return `${chain[layer]!.filename} (${layer === 0 ? 'top layer' : `layer ${layer}`} of ${target})`
}
