import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { DirtyMaps, Verdicts } from '@tidemark/testkit'

/** The top of the workspace: paths in the golden files are relative to it. */
export const top = fileURLToPath(new URL('../../..', import.meta.url))
export const webshop = 'examples/webshop'
export const images = `${webshop}/images`
/** Where the example's images were on their host, and are named in its XML. */
export const hostImages = '/var/lib/libvirt/images/webshop'

const read = (name: string): unknown => JSON.parse(readFileSync(join(top, webshop, name), 'utf8'))
export const verdicts = read('libvirt-verdicts.json') as Verdicts
export const maps = read('dirty-maps.json') as DirtyMaps
export const checkpoints = Object.keys(verdicts)

/** Arguments of a plan of the example; run it with `cwd: top`, or name another root and image folder. */
export function planArgs(checkpoint: string, ...more: string[]): string[] {
  return [
    ...['plan', 'backup', '--domain', 'webshop', '--libvirt-root', `${webshop}/libvirt`],
    ...['--map-source', `${hostImages}=${images}`, '--incremental', checkpoint, ...more],
  ]
}
