import { requireDoable } from './require-doable.js'
import type { OperationsPlan } from './types.js'

/** What is done to the bitmaps of one image, as `tidemark bitmap --multi` takes it. */
export interface ImageEdits {
  readonly filename: string
  readonly actions: readonly EditAction[]
}

export type EditAction =
  | {
      readonly action: 'add'
      readonly name: string
      readonly granularity: number
      readonly disabled: boolean
    }
  | { readonly action: 'remove' | 'enable' | 'disable'; readonly name: string }
  /** `sourceFilename`: the image of the source; undefined: the same one. */
  | {
      readonly action: 'merge'
      readonly name: string
      readonly source: string
      readonly sourceFilename: string | undefined
    }

/**
 * The operations on images that are not open anywhere, image by image, in their order: to be done all or none. Where the
 * data move after the bitmaps, what is there meanwhile marks too much at worst.
 *
 * @throws {PlanError} `plan-unknown`, `operation-blocked`
 */
export function operationsToEdits(plan: OperationsPlan): readonly ImageEdits[] {
  requireDoable(plan)
  const images = new Map<string, EditAction[]>()
  for (const operation of plan.operations) {
    const { filename, bitmap: name, kind } = operation
    const actions = images.get(filename) ?? []
    images.set(filename, actions)
    switch (kind) {
      case 'add': {
        const { granularity, disabled } = operation
        actions.push({ action: kind, name, granularity, disabled })
        break
      }
      case 'merge':
        for (const source of operation.sources) {
          const own = source.filename === filename
          // What it has it need not be given.
          if (own && source.bitmap === name) continue
          const sourceFilename = own ? undefined : source.filename
          actions.push({ action: kind, name, source: source.bitmap, sourceFilename })
        }
        break
      default:
        actions.push({ action: kind, name })
    }
  }
  return [...images]
    .filter(([, actions]) => actions.length > 0)
    .map(([filename, actions]) => ({ filename, actions }))
}
