/**
 * Changes since a checkpoint in the chained dialect: at each new checkpoint the bitmap of the one before is disabled
 * and a new one begins, so the union of the asked checkpoint's bitmap and all later ones holds them, if none has a
 * hole. An external snapshot takes over only what still records: a checkpoint's bitmap lies in the layers that were the
 * top between it and the next one.
 *
 *     layers, top first     cp1       cp2       cp3
 *     s2 (top)                                  records      made after cp3
 *     s1                    disabled  disabled  records      made after cp1
 *     base                  records   -         -            its flags are those when s1 was put on it
 *
 * libvirt never walked so; it is the design of its first versions (Eric Blake, 2018).
 */
import type { CheckpointFacts, LayerFacts } from '../facts.js'
import { findBitmap, findCorrupt, loadedBitmap, type Violation } from '../validity.js'
import type { Reason } from './reasons.js'
import type { Recorded } from './recorded.js'

/** A checkpoint of the line, with what it recorded of the disk. */
export interface Step {
  readonly checkpoint: CheckpointFacts
  readonly recorded: Recorded
}

/** Where the walk along the line ends. */
export type ChainedVerdict =
  /** The checkpoints whose bitmaps to unite, the asked one first; each in every layer that has it. */
  | { readonly state: 'covered'; readonly bitmaps: readonly string[] }
  /** A bitmap of the walk breaks a rule. */
  | { readonly state: 'broken'; readonly bitmap: string; readonly violation: Violation }
  /** A later checkpoint's record says that its bitmap is none of this disk's, yet there is one. */
  | { readonly state: 'not-recorded'; readonly reasons: readonly Reason[] }
  /** Bitmaps of no known checkpoint: one of them may hold what was written between two that are known. */
  | { readonly state: 'unaccounted'; readonly layer: number; readonly bitmaps: readonly string[] }
  | { readonly state: 'layer-gone'; readonly checkpoint: string; readonly file: string }
  | { readonly state: 'order-changed'; readonly checkpoint: string; readonly newer: string }

/** How to walk, and what to ask on the way. */
export interface Look {
  readonly stop: boolean
  readonly inChain: (file: string) => boolean
  readonly isCheckpoint: (bitmap: string) => boolean
}

/**
 * Walks from the asked checkpoint to the newest.
 *
 * @param chain top first, all of it readable
 * @param line the asked checkpoint, then all later ones, nearest first
 * @param look.stop end at the first bitmap that records, which then holds all since its checkpoint (mixed dialect)
 * @param look.inChain is a file of an earlier time still an image of the chain?
 * @param look.isCheckpoint does a bitmap have the name of a checkpoint, of the line or before it?
 */
export function walkLine(
  chain: readonly LayerFacts[],
  line: readonly Step[],
  { stop, inChain, isCheckpoint }: Look,
): ChainedVerdict {
  const corrupt = findCorrupt(chain)
  if (corrupt !== undefined) return { state: 'broken', bitmap: line[0]!.checkpoint.name, violation: corrupt }
  const steps: Step[] = []
  for (const step of line) {
    if (steps.length > 0 && !tookPart(step)) {
      const holds = chain.some(layer => findBitmap(layer, step.checkpoint.name))
      if (!holds && !mayBeCopied(line[0]!, step)) continue
      return { state: 'not-recorded', reasons: step.recorded.reasons.filter(isGrave) }
    }
    steps.push(step)
  }
  const bitmaps: string[] = []
  for (const [i, step] of steps.entries()) {
    const { name } = step.checkpoint
    const gone = goneFile(step, steps[0]!, inChain)
    if (gone !== undefined) return { state: 'layer-gone', checkpoint: name, file: gone }
    const last =
      i === steps.length - 1 || (stop && chain[0] && loadedBitmap(chain[0], name)?.recording === true)
    const began = deepest(step, chain)
    const ended = last ? 0 : uppermost(steps[i + 1]!)
    if (ended > began)
      return { state: 'order-changed', checkpoint: name, newer: steps[i + 1]!.checkpoint.name }
    const violation = spanViolation(chain, name, { began, ended, last: last === true })
    if (violation !== undefined) return { state: 'broken', bitmap: name, violation }
    bitmaps.push(name)
    if (last) break
  }
  // One bitmap that records until now needs no other.
  const odd = bitmaps.length < 2 ? undefined : unaccounted(chain, deepest(steps[0]!, chain), isCheckpoint)
  return odd ?? { state: 'covered', bitmaps }
}

/**
 * A checkpoint whose metadata is lost leaves its bitmap behind, and its writes are in that alone: at the next one it
 * was disabled, or, by a script that goes by the metadata, was not.
 */
function unaccounted(
  chain: readonly LayerFacts[],
  began: number,
  isCheckpoint: (bitmap: string) => boolean,
): ChainedVerdict | undefined {
  for (const [layer, { bitmaps }] of chain.slice(0, began + 1).entries()) {
    const odd = bitmaps.map(({ name }) => name).filter(name => !isCheckpoint(name))
    if (odd.length > 0) return { state: 'unaccounted', layer, bitmaps: odd }
  }
  return undefined
}

const isGrave = ({ severity }: Reason) => severity === 'blocks'

/** A disk that was unplugged then, or left out, keeps the bitmap before: nobody disabled it. */
function tookPart({ recorded }: Step): boolean {
  return !recorded.reasons.some(isGrave)
}

/**
 * A later checkpoint's record has other files: another disk was in the same place for a while, or this one was copied since.
 * Which it was only the asked checkpoint's own files could tell.
 */
function mayBeCopied(asked: Step, { recorded }: Step): boolean {
  return (
    asked.recorded.filesThen === undefined &&
    recorded.reasons.some(({ code }) => code === 'disk-source-changed')
  )
}

/**
 * An image that was above the asked checkpoint's top when a later one was made, or that top itself, and is in the chain
 * no more: whoever merged it away (today's libvirt too) left disabled bitmaps behind.
 */
function goneFile({ recorded }: Step, asked: Step, inChain: (file: string) => boolean): string | undefined {
  const [topThen] = asked.recorded.filesThen ?? []
  const files = recorded.filesThen ?? []
  const bottom = topThen === undefined ? -1 : files.indexOf(topThen)
  return files.slice(0, Math.max(1, bottom + 1)).find(file => !inChain(file))
}

/** The layer in which a bitmap began; where the record does not tell, the deepest that can hold bitmaps. */
function deepest({ recorded: { topThen } }: Step, chain: readonly LayerFacts[]): number {
  if (topThen.state === 'here') return topThen.layer
  return Math.max(
    0,
    chain.findLastIndex(({ format }) => format === 'qcow2'),
  )
}

/** The layer in which the next bitmap began; where the record does not tell, it may have been any up to the top. */
function uppermost({ recorded: { topThen } }: Step): number {
  return topThen.state === 'here' ? topThen.layer : 0
}

interface Span {
  /** Layers, from the deeper to the higher one: each was the top at some time between two checkpoints. */
  readonly began: number
  readonly ended: number
  /** Nothing came after it: it must still record. */
  readonly last: boolean
}

/** What is wrong with one checkpoint's bitmap: wherever it is it must be sound, and it must be in all of its span. */
function spanViolation(
  chain: readonly LayerFacts[],
  name: string,
  { began, ended, last }: Span,
): Violation | undefined {
  for (const [layer, facts] of chain.entries()) {
    const within = layer >= ended && layer <= began
    const entry = findBitmap(facts, name)
    if (entry === undefined) {
      if (!within) continue
      const below = chain.findIndex((other, index) => index > layer && loadedBitmap(other, name))
      const gap = below > 0 && chain.some((other, index) => index < layer && loadedBitmap(other, name))
      return gap ? { rule: 'bitmap-gap', layer, below } : { rule: 'bitmap-missing', layer }
    }
    if (facts.bitmapsStale) return { rule: 'bitmaps-stale', layer }
    if (entry.inconsistent && !facts.locked) return { rule: 'bitmap-inconsistent', layer }
    // Below the layer in which it ended nobody disabled it: another was put on top while it recorded.
    if (!entry.recording && within && (last || layer > ended)) return { rule: 'bitmap-disabled', layer }
  }
  return undefined
}
