import { normalizePath } from '../paths.js'

/** Images named under `from` are under `to` here. */
export interface MapRule {
  readonly from: string
  readonly to: string
}

/**
 * Reads `OLD=NEW`; the first `=` splits.
 *
 * @throws {RangeError} no `=`, or an empty side
 */
export function parseMapRule(text: string): MapRule {
  const split = text.indexOf('=')
  if (split <= 0 || split === text.length - 1) throw new RangeError(`expected OLD=NEW, found '${text}'`)
  return { from: normalizePath(text.slice(0, split)), to: normalizePath(text.slice(split + 1)) }
}

/**
 * Where a path named in XML or in an image is here. The longest `from` that is the path or one of its folders wins;
 * whole components only (`/img` is no folder of `/images/a`); applied once; without a match the path is unchanged.
 *
 * @example mapSource([parseMapRule('/var/lib/libvirt/images=/mnt/copy')], '/var/lib/libvirt/images/a.qcow2')
 * // '/mnt/copy/a.qcow2'
 */
export function mapSource(rules: readonly MapRule[], path: string): string {
  const normal = normalizePath(path)
  let best: MapRule | undefined
  for (const rule of rules) {
    if (covers(rule.from, normal) && rule.from.length > (best?.from.length ?? -1)) best = rule
  }
  if (best === undefined) return path
  const rest = best.from === '/' ? normal : normal.slice(best.from.length)
  return best.to === '/' && rest !== '' ? rest : `${best.to}${rest}`
}

function covers(from: string, path: string): boolean {
  return path === from || path.startsWith(from === '/' ? '/' : `${from}/`)
}
