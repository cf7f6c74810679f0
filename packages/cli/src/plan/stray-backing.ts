import { realpathSync } from 'node:fs'
import { resolve } from 'node:path'
import type { DomainImages } from '@tidemark/planner/node'
import { fullBackingName, parseBackingName } from '@tidemark/qcow2'

export interface StrayBacking {
  readonly layer: number
  readonly filename: string
  /** What its header names; empty: nothing. */
  readonly backing: string
  /** The image that is below it by the domain and `--map-source`. */
  readonly below: string | undefined
}

/**
 * The first image of a disk that names another one below it than the plan has there. qemu-img follows the names in the
 * images alone: it would read other data, such as those of the original where a copy was planned.
 */
export function strayBacking({ layers }: DomainImages, target: string): StrayBacking | undefined {
  const chain = layers.get(target) ?? []
  for (const [layer, { inspection, filename }] of chain.entries()) {
    const backing = inspection?.backingFile ?? ''
    const below = chain[layer + 1]?.filename
    if (backing === '' && below === undefined) continue
    if (below !== undefined && leadsTo(filename, backing, below)) continue
    return { layer, filename, backing, below }
  }
  return undefined
}

function leadsTo(image: string, backing: string, file: string): boolean {
  const named = parseBackingName(backing)
  if (backing === '' || named.kind !== 'path') return false
  return realPath(fullBackingName(image, named.path)) === realPath(file)
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return resolve(path)
  }
}
