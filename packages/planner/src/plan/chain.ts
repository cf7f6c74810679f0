/** What a disk's images and bitmaps say, as they are now: libvirt's verdict, and reasons of our own. */
import type { DomainDisk, LayerFacts } from '../facts.js'
import { type BitmapVerdict, findBitmap, judgeBitmap, type Violation } from '../validity.js'
import { type BitmapContext, lostLayer, staleReason, violationReason } from './bitmap-reasons.js'
import {
  imageInUse,
  layerProblem,
  layerSizeDiffers,
  notQcow2,
  sourceNotReadable,
  transientDisk,
} from './layer-reasons.js'
import type { Reason } from './reasons.js'
import type { TopThen } from './recorded.js'
import type { LibvirtVerdict } from './types.js'

export interface ChainVerdict {
  readonly libvirt: LibvirtVerdict
  /** The layers to merge, top first; empty unless libvirt accepts. */
  readonly layers: readonly number[]
  readonly reasons: readonly Reason[]
}

/** What the checkpoint's record adds to what the images show. */
export interface ChainQuestion {
  readonly disk: DomainDisk
  readonly chain: readonly LayerFacts[]
  readonly bitmap: string
  /** The layer which was the top at the checkpoint. */
  readonly topThen: TopThen
  /** The record alone forces a full backup: that the bitmap is missing too is then no news. */
  readonly ruledOut: boolean
}

/** Judges a chain. `reject` and `unknown` always come with a reason; `accept` may come with blocking ones. */
export function judgeChain(question: ChainQuestion): ChainVerdict {
  const { disk, chain, bitmap } = question
  if (disk.transient) return { libvirt: 'reject', layers: [], reasons: [transientDisk(disk)] }
  const unfit = unfitReasons(disk, chain)
  if (unfit.length > 0) {
    const certain = unfit.some(({ severity }) => severity === 'blocks')
    return { libvirt: certain ? 'reject' : 'unknown', layers: [], reasons: unfit }
  }

  const verdict = judgeBitmap(chain, bitmap)
  const inUse = inUseReasons(question, verdict)
  if (!verdict.valid) {
    if (touchesLocked(chain, verdict.violation)) return { libvirt: 'unknown', layers: [], reasons: inUse }
    const quiet = question.ruledOut && verdict.violation.rule === 'bitmap-missing'
    const broken = violationReason(context(question), verdict.violation, quiet ? 'note' : 'blocks')
    return { libvirt: 'reject', layers: [], reasons: [broken, ...inUse] }
  }
  const { layers } = verdict
  if (new Set(layers.map(layer => chain[layer]!.virtualSize)).size > 1) {
    const differs = layerSizeDiffers(disk, layers, chain)
    return { libvirt: 'reject', layers: [], reasons: [differs, ...lostBelow(question, layers), ...inUse] }
  }
  return { libvirt: 'accept', layers, reasons: [...lostBelow(question, layers), ...inUse] }
}

function context({ disk, chain, bitmap }: ChainQuestion): BitmapContext {
  return { target: disk.target, chain, bitmap }
}

/** Reasons why there is no bitmap to speak of: no image, an image that cannot be read, or not qcow2. */
function unfitReasons(disk: DomainDisk, chain: readonly LayerFacts[]): Reason[] {
  const top = chain[0]
  // libvirt goes by the domain's word; it takes a qcow2 file declared raw for raw.
  const declared = disk.format !== undefined && disk.format !== 'qcow2' ? disk.format : undefined
  const found = top && !top.problem && top.format !== 'qcow2' ? top.format : undefined
  const problems = chain.flatMap((facts, layer) =>
    facts.problem ? [layerProblem(disk.target, layer, facts, facts.problem)] : [],
  )
  if (declared !== undefined) return [notQcow2(disk, declared, 'domain'), ...problems]
  if (top === undefined) return [sourceNotReadable(disk)]
  return found === undefined ? problems : [notQcow2(disk, found, 'image'), ...problems]
}

function inUseReasons({ disk, chain }: ChainQuestion, verdict: BitmapVerdict): Reason[] {
  const layer = chain.findIndex(({ locked }) => locked)
  if (layer < 0) return []
  return [imageInUse(disk, layer, chain[layer]!, verdict.valid ? undefined : verdict.violation.rule)]
}

/** Does the violation rest on what is on disk while QEMU has something newer in memory? */
function touchesLocked(chain: readonly LayerFacts[], violation: Violation): boolean {
  const layers = violation.rule === 'bitmap-gap' ? [violation.layer, violation.below] : [violation.layer]
  return layers.some(layer => chain[layer]!.locked)
}

/** Changes that a deeper layer recorded and that the accepted layers do not have: libvirt looks no deeper. */
function lostBelow(question: ChainQuestion, layers: readonly number[]): Reason[] {
  const { chain, bitmap, topThen } = question
  const suspect = suspectLayer(question, layers)
  const reasons: Reason[] = []
  for (const [layer, facts] of chain.entries()) {
    if (layers.includes(layer)) continue
    if (facts.bitmapsStale && findBitmap(facts, bitmap))
      reasons.push(staleReason(context(question), layer, 'blocks'))
    else if (layer === suspect && !facts.locked)
      reasons.push(lostLayer(context(question), layer, topThen.state))
  }
  return reasons
}

/**
 * The layer which should hold the bitmap though libvirt does not ask for it: the top then; the one that the top then
 * was committed into, if it was not pulled up; or, where the record does not say, the first that could have been the
 * top then. Raw images and other formats cannot: a checkpoint makes its bitmap in the top.
 */
function suspectLayer({ chain, topThen }: ChainQuestion, layers: readonly number[]): number | undefined {
  if (topThen.state === 'here') return topThen.layer
  const lacks = chain.findIndex((facts, layer) => facts.format === 'qcow2' && !layers.includes(layer))
  if (topThen.state === 'gone' && topThen.below !== undefined) {
    return chain[topThen.below]!.format === 'qcow2' ? topThen.below : undefined
  }
  return lacks < 0 ? undefined : lacks
}
