/**
 * Bitmaps of one layer sorted by what is in what. In the independent dialect every bitmap records every write since
 * it began, so an older one holds all that a newer one does: who has a bit that another lacks is not the newer of both.
 */

/** Bitmaps to be sorted, in one layer of a disk. */
export interface OrderQuery {
  readonly target: string
  readonly layer: number
  readonly filename: string
  readonly bitmaps: readonly string[]
  /** Bytes: the coarsest of theirs. All are compared at this one, each granule dirty that they touch. */
  readonly granularity: number
}

/** The answer: chains, of which the first is the longest; most often there is one. */
export interface LayerOrder {
  readonly target: string
  readonly layer: number
  readonly filename: string
  /** From the one that holds most (the oldest) on; names with equal sets are together: what came first is open. */
  readonly chains: readonly (readonly (readonly string[])[])[]
  /** Each chain but the first begins with one that neither holds nor is held by the end of another. */
  readonly apart: readonly { readonly bitmap: string; readonly from: string }[]
  /** Those whose bodies cannot be read. */
  readonly unread: readonly { readonly bitmap: string; readonly message: string }[]
}

/** A bitmap with the number of its dirty granules, all at one granularity. */
export interface Counted {
  readonly name: string
  readonly granules: number
}

/** So many chains are tried for one bitmap; what fits in none begins a chain of its own. */
const MOST_TRIED = 8

/**
 * Sorts bitmaps into chains. Each is compared with the ends of chains only, since who holds the end holds nothing less:
 * one comparison for each bitmap where all lie in one chain.
 *
 * @param holds whether the first holds every bit of the second
 */
export async function sortByInclusion(
  bitmaps: readonly Counted[],
  holds: (older: string, newer: string) => Promise<boolean>,
): Promise<Pick<LayerOrder, 'chains' | 'apart'>> {
  const sorted = [...bitmaps].sort((a, b) => b.granules - a.granules || (a.name < b.name ? -1 : 1))
  const chains: { readonly classes: string[][]; last: Counted }[] = []
  const apart: { bitmap: string; from: string }[] = []
  for (const bitmap of sorted) {
    let placed = false
    for (const chain of chains.slice(0, MOST_TRIED)) {
      if (!(await holds(chain.last.name, bitmap.name))) continue
      if (chain.last.granules === bitmap.granules) chain.classes.at(-1)!.push(bitmap.name)
      else chain.classes.push([bitmap.name])
      chain.last = bitmap
      placed = true
      break
    }
    if (placed) continue
    if (chains[0] !== undefined) apart.push({ bitmap: bitmap.name, from: chains[0].last.name })
    chains.push({ classes: [[bitmap.name]], last: bitmap })
  }
  const length = (classes: readonly (readonly string[])[]) =>
    classes.reduce((sum, each) => sum + each.length, 0)
  const classes = chains.map(chain => chain.classes)
  return { chains: classes.sort((a, b) => length(b) - length(a)), apart }
}
