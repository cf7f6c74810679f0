/** Warnings: bitmaps that are left behind, that would look sound though they are not, or that a tool would lose. */
import type { LayerFacts } from '../facts.js'
import type { Violation } from '../validity.js'
import { problem } from './disks.js'
import type { SkippedBitmap } from './merge.js'
import type { BitmapOperation, OperationProblem } from './types.js'

export const RULE: Record<Violation['rule'], string> = {
  'bitmap-corrupt': 'an image of the chain has a malformed bitmap',
  'bitmap-missing': 'the layer above lacks it',
  'bitmaps-stale': "its image's bitmaps are stale",
  'bitmap-gap': 'a layer without it lies between layers that have it',
  'bitmap-inconsistent': 'it is inconsistent (in-use)',
  'bitmap-disabled': 'it is disabled',
}

/** One note for each bitmap of these layers that is not carried over. libvirt passes over them without a word. */
export function skippedNotes(
  disk: string,
  chain: readonly LayerFacts[],
  skipped: readonly SkippedBitmap[],
): OperationProblem[] {
  return skipped.map(({ bitmap, violation }) => {
    const { filename } = chain[violation.layer]!
    const message =
      `bitmap '${bitmap}' of ${disk} is not carried over: ${RULE[violation.rule]} (layer ${violation.layer}, ` +
      `${filename}). libvirt says nothing of it`
    const evidence = { bitmap, rule: violation.rule, layer: violation.layer, filename }
    return problem('bitmap-skipped', 'note', disk, message, evidence)
  })
}

/** Bitmaps of the layers from `first` to above `end` that the layer `top` above them lacks. */
export function onlyBelow(
  chain: readonly LayerFacts[],
  top: number,
  first: number,
  end: number,
): SkippedBitmap[] {
  const there = new Set(chain[top]!.bitmaps.map(({ name }) => name))
  const skipped: SkippedBitmap[] = []
  for (let layer = first; layer < end; layer++) {
    for (const { name } of chain[layer]!.bitmaps) {
      if (there.has(name)) continue
      there.add(name)
      skipped.push({ bitmap: name, violation: { rule: 'bitmap-missing', layer: top } as Violation })
    }
  }
  return skipped
}

/** Where a name's bytes were no UTF-8 (U+FFFD stands for them): nothing here could call it so. No checkpoint is called that. */
export function withoutUnsayable(disk: string, operations: readonly BitmapOperation[]) {
  const isUnsayable = ({ bitmap }: BitmapOperation) => bitmap.includes('\ufffd')
  const names = new Set(operations.filter(isUnsayable).map(({ bitmap }) => bitmap))
  const notes = [...names].map(bitmap => {
    const message = `bitmap '${bitmap}' of ${disk} is not carried over: its name is no UTF-8, so it cannot be written`
    return problem('bitmap-skipped', 'note', disk, message, { bitmap, rule: 'name-unsayable' })
  })
  return { operations: operations.filter(each => !isUnsayable(each)), notes }
}

/** What the usual command alone would lose: bitmaps that its target does not have. */
export function lostNotes(
  disk: string,
  command: string,
  operations: readonly BitmapOperation[],
): OperationProblem[] {
  const names = operations.filter(({ kind }) => kind === 'add').map(({ bitmap }) => bitmap)
  if (names.length === 0) return []
  const list = names.map(name => `'${name}'`).join(', ')
  const message = `${command} alone would lose ${names.length === 1 ? 'a bitmap' : 'bitmaps'} of ${disk}: ${list}`
  return [problem('bitmaps-lost', 'note', disk, message, { bitmaps: names })]
}
