/** libvirt's own test data, which stays outside this repository: run against where it is found. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LayerFacts } from '../src/index.js'
import { layer } from './facts.js'

const beside = fileURLToPath(new URL('../../../../shared/peers/libvirt', import.meta.url))
export const CASES = process.env.TIDEMARK_LIBVIRT_CASES ?? beside
export const haveCases = existsSync(join(CASES, 'CASES.md'))
/** For the names of suites: says what is missing when they are skipped. */
export const casesNote = haveCases
  ? ''
  : ` (skipped: no libvirt test data; set TIDEMARK_LIBVIRT_CASES to its folder)`

export function readCase(...path: readonly string[]): string {
  return readFileSync(join(CASES, ...path), 'utf8')
}

interface NamedNode {
  readonly 'node-name': string
  readonly image: { readonly filename: string; readonly 'virtual-size': number }
  readonly 'dirty-bitmaps'?: readonly {
    readonly name: string
    readonly recording: boolean
    readonly persistent: boolean
    readonly inconsistent?: boolean
    readonly granularity: number
  }[]
}

/** The chain of a `bitmap/NAME.json` fixture: five layers; a node that is absent has no bitmaps. */
export function readChain(name: string): LayerFacts[] {
  const nodes = JSON.parse(readCase('qemublocktestdata', 'bitmap', `${name}.json`)) as NamedNode[]
  return [1, 2, 3, 4, 5].map(index => {
    const nodeName = `libvirt-${index}-format`
    const node = nodes.find(candidate => candidate['node-name'] === nodeName)
    // One that is not persistent is in no image: offline it does not exist.
    const bitmaps = (node?.['dirty-bitmaps'] ?? []).filter(({ persistent }) => persistent)
    return layer(
      nodeName,
      bitmaps.map(({ name, granularity, recording, inconsistent }) => {
        return { name, granularity, recording, inconsistent: inconsistent ?? false, corrupt: undefined }
      }),
    )
  })
}
