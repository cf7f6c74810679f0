/** What is said of a list of times, in whatever unit they have. */
export interface Summary {
  min: number
  median: number
  max: number
  rounds: number
}

/** The middle value; of an even number, the mean of the two in the middle. @throws RangeError of none */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('the median of nothing')
  const sorted = [...values].sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

/** @throws RangeError of none */
export function summarise(values: readonly number[]): Summary {
  const middle = median(values)
  return { min: Math.min(...values), median: middle, max: Math.max(...values), rounds: values.length }
}
