/** How sure a checkpoint's place among the others is. */
import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointFacts } from '../facts.js'
import { loadedBitmap } from '../validity.js'
import type { GraphOrder } from './order-graph.js'
import { numberInName, timeInName } from './owners.js'

/** `certain`: shown by metadata or bits; `likely`: names or layers tell; `guess`: nothing does. */
export interface Sureness {
  readonly sure: 'certain' | 'likely' | 'guess'
  /** For people: what it is known from. */
  readonly evidence: readonly string[]
}

export type Placing = Sureness

/**
 * Names in the order that their looks suggest: those that count up together, in the order of their numbers; such groups
 * by the earliest time that is known of one of them.
 */
export function rankNames(facts: BackupFacts, rows: readonly CheckpointFacts[]): readonly string[] {
  const groups = new Map<string, { time: number; readonly names: Ranked[] }>()
  for (const { name, creationTime } of rows) {
    const { stem, number, named } = countInName(name)
    const group = groups.get(stem) ?? { time: Number.POSITIVE_INFINITY, names: [] }
    groups.set(stem, group)
    group.time = Math.min(group.time, creationTime ?? named ?? Number.POSITIVE_INFINITY)
    group.names.push({ name, number: number ?? -1, depth: deepest(facts, name) })
  }
  return [...groups]
    .sort(([a, { time }], [b, other]) => compare(time, other.time) || (a < b ? -1 : 1))
    .flatMap(([, { names }]) => names.sort(byLooks).map(({ name }) => name))
}

function countInName(name: string): { stem: string; number: number | undefined; named: number | undefined } {
  const named = timeInName(name)
  return named === undefined ? { ...numberInName(name), named } : { stem: '', number: named, named }
}

interface Ranked {
  readonly name: string
  readonly number: number
  readonly depth: number
}

function byLooks(a: Ranked, b: Ranked): number {
  return compare(a.number, b.number) || compare(b.depth, a.depth) || (a.name < b.name ? -1 : 1)
}

/** Also of infinities, whose difference is no number. */
function compare(a: number, b: number): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** The deepest layer with the bitmap, over all disks: it was there when that layer was the top. */
function deepest({ chains }: BackupFacts, name: string): number {
  let depth = -1
  for (const chain of chains.values()) {
    for (const [layer, facts] of chain.entries()) {
      if (loadedBitmap(facts, name) !== undefined) depth = Math.max(depth, layer)
    }
  }
  return depth
}

const METADATA: Placing = { sure: 'certain', evidence: ['as its metadata say'] }
const ALONE: Placing = { sure: 'certain', evidence: ['it is the only one'] }

/**
 * For each of the order how sure its parent is. With metadata that keep their parent: certain. Else what is known must
 * leave no other place: all before its parent are older than that, and it is older than all that come after it.
 */
export function placings(
  facts: BackupFacts,
  order: GraphOrder,
  parents: ReadonlyMap<string, string | undefined>,
  tree: CheckpointTree,
): ReadonlyMap<string, Placing> {
  const { names } = order
  const links = names.slice(1).map((name, i) => linkOf(facts, order, names[i]!, name))
  const doubted = contradicted(facts, names)
  const places = new Map<string, Placing>()
  for (const [i, name] of names.entries()) {
    const before = names[i - 1]
    const old = tree.get(name)
    if (old !== undefined && old.parent === parents.get(name)) {
      places.set(name, METADATA)
      continue
    }
    if (order.conflicts.has(name)) {
      places.set(name, { sure: 'guess', evidence: ['disks or metadata contradict each other'] })
      continue
    }
    if (doubted.has(name)) {
      const why = 'bitmaps tell another order than names or layers do: one of them may have lost writes'
      places.set(name, { sure: 'guess', evidence: [why] })
      continue
    }
    const follows = before === undefined || (order.isAfterAll(before) && order.isAfterAll(name))
    const around = [links[i - 2], links[i - 1], links[i]].filter(link => link !== undefined)
    places.set(name, weakest(around, follows && order.isBeforeAll(name)))
  }
  return places
}

/** Those which the order has before one that counts less, or that is in deeper layers of one disk; and these. */
function contradicted({ chains }: BackupFacts, names: readonly string[]): ReadonlySet<string> {
  const series = new Map<string, { readonly name: string; readonly value: number }[]>()
  for (const name of names) {
    const { stem, number } = countInName(name)
    if (number === undefined) continue
    const members = series.get(stem) ?? []
    series.set(stem, members)
    members.push({ name, value: number })
  }
  const depths = [...chains.values()].map(chain => {
    const deepest = new Map<string, number>()
    for (const [layer, image] of chain.entries()) {
      if (!image.bitmapsStale) for (const { name } of image.bitmaps) deepest.set(name, layer)
    }
    return names.flatMap(name => {
      const depth = deepest.get(name)
      return depth === undefined ? [] : [{ name, value: -depth }]
    })
  })
  const found = new Set<string>()
  for (const rising of [...series.values(), ...depths]) {
    let most = Number.NEGATIVE_INFINITY
    for (const { name, value } of rising) {
      if (value < most) found.add(name)
      most = Math.max(most, value)
    }
    let least = Number.POSITIVE_INFINITY
    for (const { name, value } of rising.toReversed()) {
      if (value > least) found.add(name)
      least = Math.min(least, value)
    }
  }
  return found
}

function weakest(links: readonly Placing[], shown: boolean): Placing {
  if (links.length === 0) return ALONE
  const weight = { guess: 0, likely: 1, certain: 2 } as const
  const least = links.reduce((sure, link) => (weight[link.sure] < weight[sure.sure] ? link : sure)).sure
  const evidence = [...new Set(links.flatMap(link => link.evidence))]
  if (least !== 'certain' || shown) return { sure: shown ? 'certain' : least, evidence }
  return { sure: 'likely', evidence: [...evidence, 'yet where some other one belongs is not certain'] }
}

/** What says that one of two neighbours is the older. */
function linkOf(facts: BackupFacts, order: GraphOrder, older: string, newer: string): Placing {
  const shown = order.evidence(older, newer)
  if (shown !== undefined) {
    return {
      sure: 'certain',
      evidence: [shown.kind === 'metadata' ? `'${newer}' after '${older}': ${shown.message}` : shown.message],
    }
  }
  const times = [timeInName(older), timeInName(newer)] as const
  if (times[0] !== undefined && times[1] !== undefined && times[0] < times[1]) {
    return { sure: 'likely', evidence: [`'${older}' and '${newer}' are times`] }
  }
  const a = numberInName(older)
  const b = numberInName(newer)
  if (a.stem === b.stem && a.number !== undefined && b.number !== undefined && a.number < b.number) {
    return { sure: 'likely', evidence: [`'${older}' and '${newer}' count up; their bitmaps do not tell`] }
  }
  if (deepest(facts, older) > deepest(facts, newer)) {
    return { sure: 'likely', evidence: [`'${older}' is in deeper layers than '${newer}'`] }
  }
  return { sure: 'guess', evidence: [`nothing tells which of '${older}' and '${newer}' is the older`] }
}
