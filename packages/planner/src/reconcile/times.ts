import { timeInName } from './owners.js'
import type { Sureness } from './placing.js'

/**
 * A time for each: its own, or that in its name where it goes with its neighbours', else the earliest that does. So an
 * invented time is never later than the true one, and nothing that happened to a disk since looks as if it were before.
 * With nothing to go by the first is 1 (1970-01-01T00:00:01Z), which nobody takes for true.
 *
 * @param order oldest first
 * @param known Unix seconds
 * @param fresh whether it has no metadata
 */
export function inventTimes(
  order: readonly string[],
  known: (name: string) => number | undefined,
  fresh: (name: string) => boolean,
): ReadonlyMap<string, { readonly time: number; readonly sureness: Sureness }> {
  const times = new Map<string, { readonly time: number; readonly sureness: Sureness }>()
  const latest: number[] = []
  let bound = Number.POSITIVE_INFINITY
  for (let i = order.length - 1; i >= 0; i--) {
    latest[i] = bound
    bound = Math.min(bound, known(order[i]!) ?? Number.POSITIVE_INFINITY)
  }
  let last = 0
  for (const [i, name] of order.entries()) {
    const own = known(name)
    if (own !== undefined) {
      times.set(name, { time: own, sureness: { sure: 'certain', evidence: ['as its metadata say'] } })
      last = Math.max(last, own)
      continue
    }
    const named = fresh(name) ? timeInName(name) : undefined
    const fits = named !== undefined && named >= last && named <= latest[i]!
    const time = fits ? named : Math.max(last, Math.min(last + 1, latest[i]!))
    times.set(name, { time, sureness: fits ? NAMED : invented(last, named) })
    last = time
  }
  return times
}

const NAMED: Sureness = { sure: 'likely', evidence: ['its name is a Unix time, as libvirt names by default'] }

function invented(last: number, named: number | undefined): Sureness {
  const misfit = named === undefined ? [] : ['the time in its name does not go with its neighbours']
  const why =
    last === 0
      ? 'invented: nothing tells it, so the earliest there is'
      : 'invented: right after the one before it, the earliest that can be'
  return { sure: 'guess', evidence: [...misfit, why] }
}
