/** Clusters side by side: the first one's number, and how many. */
export interface Run {
  readonly first: number
  readonly count: number
}

/** @param clusters ascending */
export function runsOf(clusters: Iterable<number>): Run[] {
  const runs: { first: number; count: number }[] = []
  for (const cluster of clusters) {
    const last = runs.at(-1)
    if (last !== undefined && last.first + last.count === cluster) last.count++
    else runs.push({ first: cluster, count: 1 })
  }
  return runs
}

/** Their numbers, of those below `end`. */
export function* clustersOf(runs: Iterable<Run>, end: number): Generator<number, void, undefined> {
  for (const { first, count } of runs) {
    for (let cluster = first; cluster < Math.min(first + count, end); cluster++) yield cluster
  }
}
