/** Which of several checkpoints came first: what is known of it, and one order that goes with all of that. */

/** Why one came before another. */
export interface OrderEvidence {
  readonly kind: 'metadata' | 'inclusion'
  readonly message: string
}

interface Edge {
  readonly to: number
  readonly evidence: OrderEvidence
}

export interface GraphOrder {
  /** Oldest first; every name once. */
  readonly names: readonly string[]
  /** Those whose place was decided against some of the evidence, since it contradicts itself. */
  readonly conflicts: ReadonlySet<string>
  /** What says that `newer` came after `older`, directly. */
  evidence(older: string, newer: string): OrderEvidence | undefined
  /** Whether all before it in the order are known to be older than it. */
  isAfterAll(name: string): boolean
  /** Whether all after it in the order are known to be newer than it. */
  isBeforeAll(name: string): boolean
}

/**
 * A graph of names, each edge from an older to a newer one. Groups (all of these came before all of those) take one
 * node more instead of an edge for each pair.
 */
export class OrderGraph {
  readonly #names: readonly string[]
  readonly #index: ReadonlyMap<string, number>
  readonly #out: Edge[][]
  readonly #before: number[]
  /** Edges of metadata alone: these outweigh the others. */
  readonly #parents: number[]

  /** @param names in the order that counts where nothing else does; each once */
  constructor(names: readonly string[]) {
    this.#names = names
    this.#index = new Map(names.map((name, i) => [name, i]))
    this.#out = names.map(() => [])
    this.#before = names.map(() => 0)
    this.#parents = names.map(() => 0)
  }

  /** Names that are not in the graph are passed over. */
  add(older: readonly string[], newer: readonly string[], evidence: OrderEvidence): void {
    const from = this.#indices(older)
    const to = this.#indices(newer)
    if (from.length === 0 || to.length === 0) return
    if (from.length === 1 || to.length === 1) {
      for (const a of from) for (const b of to) this.#edge(a, b, evidence)
      return
    }
    const group = this.#out.push([]) - 1
    this.#before.push(0)
    this.#parents.push(0)
    for (const a of from) this.#edge(a, group, evidence)
    for (const b of to) this.#edge(group, b, evidence)
  }

  #indices(names: readonly string[]): number[] {
    return names.map(name => this.#index.get(name)).filter(index => index !== undefined)
  }

  #edge(from: number, to: number, evidence: OrderEvidence): void {
    this.#out[from]!.push({ to, evidence })
    this.#before[to]!++
    if (evidence.kind === 'metadata') this.#parents[to]!++
  }

  /**
   * One order: of those with nothing left before them always the first by rank. Where everything waits for something
   * else, the evidence goes in a circle; then one whose parent is placed is taken, since metadata outweigh bitmaps.
   * Edges of metadata must not go in a circle by themselves.
   */
  sort(): GraphOrder {
    const before = [...this.#before]
    const parents = [...this.#parents]
    const done = new Uint8Array(this.#out.length)
    const names: string[] = []
    const order: number[] = []
    const conflicts = new Set<string>()
    const groups: number[] = []
    const ready = new Heap()
    const placeable = new Heap()
    const isName = (node: number) => node < this.#names.length
    const free = (node: number) => (isName(node) ? ready.push(node) : groups.push(node))
    for (const [node, count] of before.entries()) {
      if (count === 0) free(node)
      else if (parents[node] === 0 && isName(node)) placeable.push(node)
    }
    const take = (node: number) => {
      if (done[node]) return
      done[node] = 1
      order.push(node)
      if (isName(node)) names.push(this.#names[node]!)
      for (const { to, evidence } of this.#out[node]!) {
        if (--before[to]! === 0) free(to)
        if (evidence.kind === 'metadata' && --parents[to]! === 0) placeable.push(to)
      }
    }
    while (names.length < this.#names.length) {
      const next = groups.pop() ?? ready.pop()
      if (next !== undefined) {
        take(next)
        continue
      }
      const choice = placeable.pop() ?? done.indexOf(0)
      if (done[choice]) continue
      if (isName(choice)) conflicts.add(this.#names[choice]!)
      take(choice)
    }
    const { after, before: first } = this.#ends(order)
    return {
      names,
      conflicts,
      evidence: (older, newer) => this.#evidence(older, newer),
      isAfterAll: name => after.has(name),
      isBeforeAll: name => first.has(name),
    }
  }

  /**
   * Of the nodes up to one in the order, those that no edge leads on from are its ends; if it is the only one, a path
   * from each of the others leads to it. The same from the other side. Edges against the order do not count.
   */
  #ends(order: readonly number[]): {
    readonly after: ReadonlySet<string>
    readonly before: ReadonlySet<string>
  } {
    const position = new Int32Array(this.#out.length)
    for (const [i, node] of order.entries()) position[node] = i
    const into: number[][] = this.#out.map(() => [])
    for (const [from, edges] of this.#out.entries()) {
      for (const { to } of edges) if (position[from]! < position[to]!) into[to]!.push(from)
    }
    const lone = (nodes: readonly number[], neighbours: (node: number) => readonly number[]): Set<string> => {
      const found = new Set<string>()
      const covered = new Uint8Array(this.#out.length)
      let ends = 0
      for (const node of nodes) {
        ends++
        for (const other of neighbours(node)) {
          if (covered[other]) continue
          covered[other] = 1
          ends--
        }
        const name = this.#names[node]
        if (ends === 1 && name !== undefined) found.add(name)
      }
      return found
    }
    const onward = (node: number) =>
      this.#out[node]!.filter(({ to }) => position[node]! < position[to]!).map(({ to }) => to)
    return { after: lone(order, node => into[node]!), before: lone(order.toReversed(), onward) }
  }

  #evidence(older: string, newer: string): OrderEvidence | undefined {
    const from = this.#index.get(older)
    const to = this.#index.get(newer)
    if (from === undefined || to === undefined) return undefined
    for (const edge of this.#out[from]!) {
      if (edge.to === to) return edge.evidence
      if (edge.to >= this.#names.length && this.#out[edge.to]!.some(inner => inner.to === to)) {
        return edge.evidence
      }
    }
    return undefined
  }
}

/** The least number first. */
class Heap {
  readonly #items: number[] = []

  push(item: number): void {
    const items = this.#items
    let at = items.push(item) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      if (items[above]! <= item) break
      items[at] = items[above]!
      at = above
    }
    items[at] = item
  }

  pop(): number | undefined {
    const items = this.#items
    const least = items[0]
    const last = items.pop()
    if (last === undefined || items.length === 0) return least
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= items.length) break
      if (below + 1 < items.length && items[below + 1]! < items[below]!) below++
      if (items[below]! >= last) break
      items[at] = items[below]!
      at = below
    }
    items[at] = last
    return least
  }
}
