import { type MapRule, mapSource } from '@tidemark/planner/node'

/**
 * What an image is called on the host of the domain, from its path here: `--map-source` the other way round. A path that no
 * rule leads to is the same there.
 *
 * @param path absolute
 * @param rules with absolute `to`
 * @example hostPath([parseMapRule('/images=/mnt/copy')], '/mnt/copy/a.qcow2') // '/images/a.qcow2'
 */
export function hostPath(rules: readonly MapRule[], path: string): string {
  const back = rules.map(({ from, to }) => mapSource([{ from: to, to: from }], path))
  return back.find(name => name !== path && mapSource(rules, name) === path) ?? path
}
