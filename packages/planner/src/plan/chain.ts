/** What a disk's images and bitmaps say, as they are now: libvirt's verdict, and reasons of our own. */
import type { TreeProblem } from '../checkpoints/problems.js'
import type { DomainDisk, LayerFacts } from '../facts.js'
import { findBitmap, judgeBitmap, loadedBitmap, type Violation } from '../validity.js'
import { type BitmapContext, lostLayer, staleReason, violationReason } from './bitmap-reasons.js'
import type { ChainedVerdict } from './chained.js'
import type { DialectRule } from './dialect.js'
import { bitmapUnaccounted, layerGone, layerOrderChanged, unitedReason } from './dialect-reasons.js'
import {
  imageInUse,
  layerProblem,
  layerSizeDiffers,
  mirroredDisk,
  notQcow2,
  sourceNotReadable,
  transientDisk,
} from './layer-reasons.js'
import type { Reason } from './reasons.js'
import type { TopThen } from './recorded.js'
import { openReasons } from './tree-reasons.js'
import type { LibvirtVerdict } from './types.js'

export interface ChainVerdict {
  readonly libvirt: LibvirtVerdict
  /** What to merge, top layer first; empty unless libvirt accepts or the dialect's own rule holds. */
  readonly sources: readonly Source[]
  readonly reasons: readonly Reason[]
}

/** A bitmap of a layer. */
export interface Source {
  readonly layer: number
  readonly bitmap: string
}

/** What the walk along the checkpoints found, or that their order is open. */
export type Walk = ChainedVerdict | { readonly state: 'open'; readonly problems: readonly TreeProblem[] }

/** What the checkpoint's record adds to what the images show. */
export interface ChainQuestion {
  readonly disk: DomainDisk
  readonly chain: readonly LayerFacts[]
  readonly bitmap: string
  /** The layer which was the top at the checkpoint. */
  readonly topThen: TopThen
  /** The record alone forces a full backup: that the bitmap is missing too is then no news. */
  readonly ruledOut: boolean
  readonly rule: DialectRule
  /** The walk from the asked checkpoint to the newest; not called where the independent rule decides. */
  readonly walk: () => Walk
}

/** Judges a chain. `reject` and `unknown` always come with a reason; `accept` may come with blocking ones. */
export function judgeChain(question: ChainQuestion): ChainVerdict {
  const { disk, chain, bitmap, rule } = question
  if (disk.transient) return { libvirt: 'reject', sources: [], reasons: [transientDisk(disk)] }
  if (disk.mirror) return { libvirt: 'reject', sources: [], reasons: [mirroredDisk(disk, disk.mirror)] }
  const unfit = unfitReasons(disk, chain)
  if (unfit.length > 0) {
    const certain = unfit.some(({ severity }) => severity === 'blocks')
    return { libvirt: certain ? 'reject' : 'unknown', sources: [], reasons: unfit }
  }
  const independent = judgeIndependent(question)
  if (rule === 'independent') return independent
  // What records until now holds all since its checkpoint, whichever dialect it was made in.
  if (rule === 'mixed' && loadedBitmap(chain[0]!, bitmap)?.recording) return independent
  const walk = question.walk()
  if (walk.state === 'covered' && walk.bitmaps.length === 1) return independent
  return judgeWalk(question, rule, walk, independent)
}

/** libvirt's rule, and what it does not ask. */
function judgeIndependent(question: ChainQuestion): ChainVerdict {
  const { disk, chain, bitmap } = question
  const verdict = judgeBitmap(chain, bitmap)
  const inUse = inUseReasons(question, verdict.valid ? undefined : verdict.violation.rule)
  if (!verdict.valid) {
    if (touchesLocked(chain, verdict.violation)) return { libvirt: 'unknown', sources: [], reasons: inUse }
    const broken = brokenReason(question, bitmap, verdict.violation)
    return { libvirt: 'reject', sources: [], reasons: [broken, ...inUse] }
  }
  const { layers } = verdict
  const reasons = [...lostBelow(question, layers), ...inUse]
  if (differInSize(chain, layers)) {
    return { libvirt: 'reject', sources: [], reasons: [layerSizeDiffers(disk, layers, chain), ...reasons] }
  }
  return { libvirt: 'accept', sources: layers.map(layer => ({ layer, bitmap })), reasons }
}

/** The dialect's own rule, beside libvirt's verdict. */
function judgeWalk(
  question: ChainQuestion,
  rule: Exclude<DialectRule, 'independent'>,
  walk: Walk,
  { libvirt, sources: libvirtSources }: ChainVerdict,
): ChainVerdict {
  const { disk, chain, bitmap: asked } = question
  const { target } = disk
  const broken = (reasons: readonly Reason[]): ChainVerdict => ({ libvirt, sources: libvirtSources, reasons })
  switch (walk.state) {
    case 'open':
      return broken([...openReasons(walk.problems), ...inUseReasons(question)])
    case 'unaccounted':
      return broken([bitmapUnaccounted(context(question), walk), ...inUseReasons(question)])
    case 'layer-gone':
      return broken([layerGone(target, walk.checkpoint, walk.file), ...inUseReasons(question)])
    case 'order-changed':
      return broken([layerOrderChanged(target, walk.checkpoint, walk.newer), ...inUseReasons(question)])
    case 'not-recorded':
      return broken([...walk.reasons, ...inUseReasons(question)])
    case 'broken': {
      const inUse = inUseReasons(question, walk.violation.rule)
      if (touchesLocked(chain, walk.violation)) return broken(inUse)
      return broken([brokenReason(question, walk.bitmap, walk.violation), ...inUse])
    }
    case 'covered': {
      const sources = chain.flatMap((facts, layer) =>
        walk.bitmaps.filter(name => loadedBitmap(facts, name)).map(bitmap => ({ layer, bitmap })),
      )
      const layers = [...new Set(sources.map(({ layer }) => layer))]
      const inUse = inUseReasons(question)
      if (differInSize(chain, layers)) {
        return broken([layerSizeDiffers(disk, layers, chain), ...inUse])
      }
      return { libvirt, sources, reasons: [...inUse, unitedReason(rule, target, asked, walk.bitmaps)] }
    }
  }
}

/** That the bitmap is missing too is no news where the record forces a full backup. */
function brokenReason(question: ChainQuestion, bitmap: string, violation: Violation): Reason {
  const quiet = question.ruledOut && violation.rule === 'bitmap-missing'
  return violationReason({ ...context(question), bitmap }, violation, quiet ? 'note' : 'blocks')
}

/** QEMU merges only bitmaps of disks of one size. */
function differInSize(chain: readonly LayerFacts[], layers: readonly number[]): boolean {
  return new Set(layers.map(layer => chain[layer]!.virtualSize)).size > 1
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

/** @param onDisk the rule that the bitmaps on disk break meanwhile */
function inUseReasons({ disk, chain }: ChainQuestion, onDisk?: Violation['rule']): Reason[] {
  const layer = chain.findIndex(({ locked }) => locked)
  return layer < 0 ? [] : [imageInUse(disk, layer, chain[layer]!, onDisk)]
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
 * was committed into, if it was not pulled up (a raw one takes the data and cannot take the bitmap); or, where the
 * record does not say, the first that could have been the top then. Raw images and other formats cannot: a checkpoint
 * makes its bitmap in the top.
 */
function suspectLayer({ chain, topThen }: ChainQuestion, layers: readonly number[]): number | undefined {
  if (topThen.state === 'here') return topThen.layer
  if (topThen.state === 'gone' && topThen.below !== undefined) return topThen.below
  const lacks = chain.findIndex((facts, layer) => facts.format === 'qcow2' && !layers.includes(layer))
  return lacks < 0 ? undefined : lacks
}
