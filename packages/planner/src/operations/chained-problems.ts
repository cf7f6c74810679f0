/** What a broken chain of the chained dialect means for a block job. */
import type { LayerFacts } from '../facts.js'
import { findBitmap } from '../validity.js'
import type { CombineResult } from './chained.js'
import { problem } from './disks.js'
import type { OperationProblem, Place } from './types.js'

const WHY = {
  gap: 'it shares no bitmap with the layer above, so nothing recorded what that one got first',
  inconsistent: 'it has a bitmap that is inconsistent (in-use) or damaged',
  stale: 'its bitmaps are stale',
} as const

/**
 * Notes for the bitmaps that stay behind. It blocks where the union would hide the break: where the base gets bitmaps
 * over a break above or at it, or the target has names from both of its sides.
 */
export function chainedProblems(
  disk: string,
  chain: readonly LayerFacts[],
  { broken, skipped, traps, operations }: CombineResult,
  target: Place,
  base: number | undefined,
): OperationProblem[] {
  const problems: OperationProblem[] = []
  // A merge with an inconsistent bitmap fails in QEMU as here.
  for (const { kind, bitmap, layer, filename } of operations) {
    if (kind !== 'merge' || typeof layer !== 'number' || chain[layer]!.locked) continue
    if (!findBitmap(chain[layer]!, bitmap)?.inconsistent) continue
    const message = `bitmap '${bitmap}' in layer ${layer} of ${disk}, ${filename}, is inconsistent (in-use): nothing can be merged into it`
    problems.push(problem('bitmap-inconsistent', 'blocks', disk, message, { layer, filename, bitmap }))
  }
  if (broken === undefined) return problems
  const { layer, why, bitmap } = broken
  const { filename } = chain[layer]!
  const evidence = { layer, filename, why, ...(bitmap === undefined ? {} : { bitmap }) }
  const place = `the bitmaps of ${disk} do not reach below layer ${layer - 1}: layer ${layer}, ${filename}, ends the chain of bitmaps, for ${WHY[why]}`
  const intoBelow = target.layer === base && layer <= (base ?? -1)
  if (intoBelow || traps.length > 0) {
    const message = `${place}. United, they would look as if they told all. Delete the older checkpoints first, the oldest at first`
    problems.push(problem('bitmap-gap', 'blocks', disk, message, evidence))
  } else if (skipped.length > 0) {
    for (const name of skipped) {
      const message = `bitmap '${name}' is not carried over: ${place}`
      problems.push(problem('bitmap-skipped', 'note', disk, message, { ...evidence, bitmap: name }))
    }
  }
  return problems
}
