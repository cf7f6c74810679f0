import type { EngineResult } from '../engine/run.js'
import { processBenchmarks } from '../process/benchmarks.js'
import type { ProcessResult } from '../process/run.js'
import { megabytes, ratio } from './format.js'
import { groupBy, libraries, type Spread, spread, spreadOfBest } from './ratios.js'
import type { Results } from './results.js'

/** A promise of the project, and what was found. */
export interface Verdict {
  work: string
  target: string
  found: string
  reached: boolean
}

/** Judges a run by the project's targets. A target that this run did not measure is left out. */
export function judge({ engine, process }: Results): Verdict[] {
  return [...judgeEngine(engine), ...judgeProcesses(process)]
}

function judgeEngine(results: readonly EngineResult[]): Verdict[] {
  const of = (benchmark: string) => results.filter(result => result.benchmark === benchmark)
  const verdicts: Verdict[] = []
  const add = (work: string, target: string, found: Spread | undefined, least: number) => {
    if (!found) return
    verdicts.push({ work, target, found: ratio(found.median), reached: found.median >= least })
  }
  for (const [size, cases] of groupBy(of('union'), result => result.size)) {
    if (cases[0]!.bytes > 1e6) add(`union, ${size}`, '≥ 0.95× native C', spread(cases, 'C, native'), 0.95)
    add(`union, ${size}`, '≥ 2.5× the best JS library', spreadOfBest(cases, libraries), 2.5)
  }
  for (const [size, cases] of groupBy(of('count'), result => result.size)) {
    add(`count, ${size}`, '≥ 1.2× C, AVX2', spread(cases, 'C, AVX2'), 1.2)
  }
  for (const [pattern, cases] of groupBy(of('extents'), result => result.pattern)) {
    add(`extents, ${pattern}`, '≥ 1× the C ctz loop', spreadOfBest(cases, ['C, AVX2', 'C, native']), 1)
  }
  for (const name of ['coarsen-16', 'refine-16']) {
    for (const [size, cases] of groupBy(of(name), result => result.size)) {
      add(`${name}, ${size}`, '≥ 2× autovectorised C (AVX2)', spread(cases, 'C, AVX2'), 2)
    }
  }
  return verdicts
}

function judgeProcesses(results: readonly ProcessResult[]): Verdict[] {
  const verdicts: Verdict[] = []
  for (const { benchmark: name, tidemark, peer } of results) {
    const benchmark = processBenchmarks.find(each => each.name === name)
    if (!benchmark?.target) continue
    const { share, peakBytes } = benchmark.target
    if (share !== undefined && peer) {
      const found = tidemark.ms.median / peer.ms.median
      verdicts.push({
        work: benchmark.title,
        target: `≤ ${share}× the time of ${peer.name}`,
        found: found < 0.1 ? `${found.toFixed(4)}×` : `${found.toFixed(2)}×`,
        reached: found <= share,
      })
    }
    if (peakBytes !== undefined && tidemark.peakBytes !== undefined) {
      verdicts.push({
        work: benchmark.title,
        target: `≤ ${megabytes(peakBytes)}`,
        found: megabytes(tidemark.peakBytes),
        reached: tidemark.peakBytes <= peakBytes,
      })
    }
  }
  return verdicts
}
