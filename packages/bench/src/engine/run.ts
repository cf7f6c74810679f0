import { isChosen } from '../harness/chosen.js'
import { type RoundOptions, timeInTurn } from '../harness/rounds.js'
import type { Summary } from '../harness/statistics.js'
import { makeField, sizes } from './field.js'
import type { NativeKernels } from './native.js'
import { type EngineBenchmark, engineBenchmarks } from './operations.js'
import { patterns } from './patterns.js'

/** One benchmark at one size and pattern: nanoseconds by contender; tidemark is always among them. */
export interface EngineResult {
  benchmark: string
  size: string
  bytes: number
  pattern: string
  times: Record<string, Summary>
}

export interface EngineRunOptions {
  quick: boolean
  natives: readonly NativeKernels[]
  only?: string | undefined
  progress(text: string): void
}

/** What quick runs leave out. */
const quickPatterns = new Set(['1 %', 'clustered'])
const quickSizes = new Set(['256 KiB', '2 MiB', '32 MiB'])
/** At 512 MiB each run takes a tenth of a second and more. */
const largePatterns = new Set(['1 %', 'clustered'])

/** Measures all of the engine's benchmarks. */
export function runEngine(options: EngineRunOptions): EngineResult[] {
  const { quick, natives, only, progress } = options
  const chosen = engineBenchmarks.filter(({ name }) => isChosen(name, only))
  const rounds: RoundOptions = quick
    ? { rounds: 5, budgetMs: 150, batchMs: 1 }
    : { rounds: 15, budgetMs: 600, batchMs: 4 }
  const results: EngineResult[] = []
  if (chosen.length === 0) return results
  for (const size of sizes) {
    if (quick && !quickSizes.has(size.name)) continue
    for (const pattern of patterns) {
      if ((quick && !quickPatterns.has(pattern.name)) || (size.large && !largePatterns.has(pattern.name)))
        continue
      progress(`${size.name}, ${pattern.name}`)
      const field = makeField(size, pattern)
      for (const benchmark of chosen) {
        if (benchmark.fits?.(size) === false) continue
        const times = runCase(benchmark, field, natives, rounds)
        results.push({
          benchmark: benchmark.name,
          size: size.name,
          bytes: size.bytes,
          pattern: pattern.name,
          times,
        })
      }
    }
  }
  return results
}

function runCase(
  benchmark: EngineBenchmark,
  field: ReturnType<typeof makeField>,
  natives: readonly NativeKernels[],
  rounds: RoundOptions,
): Record<string, Summary> {
  const mark = field.engine.mark()
  const contenders = benchmark.contenders(field, natives)
  try {
    return Object.fromEntries(timeInTurn(contenders, rounds))
  } catch (cause) {
    throw new Error(`${benchmark.name}, ${field.size.name}, ${field.pattern.name}`, { cause })
  } finally {
    for (const contender of contenders) contender.dispose?.()
    field.engine.release(mark)
  }
}
