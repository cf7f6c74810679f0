import { engineBenchmarks } from './engine/operations.js'
import { processBenchmarks } from './process/benchmarks.js'

/** Every benchmark's name and what it measures, in the order in which they run. */
export const registry: readonly { name: string; title: string }[] = [
  ...processBenchmarks,
  ...engineBenchmarks,
].map(({ name, title }) => ({ name, title }))
