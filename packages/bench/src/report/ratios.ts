import type { EngineResult } from '../engine/run.js'
import { median } from '../harness/statistics.js'

/** A ratio over several cases. */
export interface Spread {
  median: number
  min: number
  max: number
}

/** Libraries of sets in JavaScript (WebAssembly among them); not the plain loops, and not C. */
export const libraries = ['typedfastbitset', 'fastbitset', 'roaring-wasm'] as const

/** All peers of the engine, in the order of the tables. */
export const enginePeers = ['C, AVX2', 'C, native', ...libraries, 'plain JS'] as const

/** The peer's time ÷ tidemark's, each the fastest of its rounds: above 1, tidemark is faster. */
export function speedup(result: EngineResult, peer: string): number | undefined {
  const ours = result.times.tidemark?.min
  const theirs = result.times[peer]?.min
  return ours === undefined || theirs === undefined ? undefined : theirs / ours
}

/** Over all cases that have that peer. */
export function spread(results: readonly EngineResult[], peer: string): Spread | undefined {
  const ratios = results.flatMap(result => speedup(result, peer) ?? [])
  if (ratios.length === 0) return undefined
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) }
}

/** Against the fastest of these peers in each case. */
export function spreadOfBest(results: readonly EngineResult[], peers: readonly string[]): Spread | undefined {
  const best = results.flatMap(result => {
    const ratios = peers.flatMap(peer => speedup(result, peer) ?? [])
    return ratios.length > 0 ? Math.min(...ratios) : []
  })
  if (best.length === 0) return undefined
  return { median: median(best), min: Math.min(...best), max: Math.max(...best) }
}

/** Values by key, in the order of their first occurrence. */
export function groupBy<T, K>(items: readonly T[], key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const group = groups.get(key(item))
    if (group) group.push(item)
    else groups.set(key(item), [item])
  }
  return groups
}
