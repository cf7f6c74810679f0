/**
 * The checkpoints of a domain as they could be told to libvirt anew: those with metadata from these, and those that
 * are bitmaps alone from what the bitmaps show. Parents first, so that `virsh checkpoint-create --redefine` takes one
 * after the other.
 */
import { buildCheckpointTree, type CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointDisk, CheckpointFacts } from '../facts.js'
import type { Dialect } from '../plan/types.js'
import { judgeBitmap } from '../validity.js'
import { asFound } from './as-found.js'
import { holdsCheckpoints } from './every-checkpoint.js'
import type { LayerOrder } from './inclusion.js'
import { OrderGraph } from './order-graph.js'
import { type OrphanBitmap, orphanBitmaps } from './order-queries.js'
import { type Placing, placings, rankNames, type Sureness } from './placing.js'
import { inventTimes } from './times.js'

export interface RebuildOptions {
  /** Bitmaps without metadata to make checkpoints of. Default: all that may have been one. */
  readonly adopt?: readonly string[] | undefined
  /** What the bodies say (see `orderQueries`). Absent: names and layers alone. */
  readonly orders?: readonly LayerOrder[] | undefined
  /** The caller's word; see `BackupRequest.dialect`. Of use with `asFound`. */
  readonly dialect?: Dialect | undefined
  /** One line in the order found, whatever parents the metadata name. */
  readonly line?: boolean | undefined
  /** Leave disks out of a checkpoint whose bitmap of it is missing or cannot be used now. */
  readonly asFound?: boolean | undefined
}

export interface RebuiltCheckpoint {
  /** To be printed with `printCheckpoint`. */
  readonly checkpoint: CheckpointFacts
  readonly from: 'metadata' | 'bitmaps'
  /** Whether that is its parent. */
  readonly place: Placing
  /** Whether that is its time. */
  readonly time: Sureness
  /** libvirt does not know it so: it is new, or its parent, its time or its disks are others than in its metadata. */
  readonly changed: boolean
  /** Its metadata name another parent. */
  readonly relinked: boolean
}

/** A disk on which the bitmaps contradict each other, or bitmaps whose bodies could not be read. */
export interface RebuildNote {
  readonly code: 'bitmaps-incomparable' | 'bitmap-unread' | 'order-contradicts'
  readonly message: string
  readonly bitmaps: readonly string[]
}

export interface Rebuilt {
  /** Parents first. */
  readonly checkpoints: readonly RebuiltCheckpoint[]
  /** Bitmaps without metadata of which nothing was made. */
  readonly left: readonly OrphanBitmap[]
  readonly notes: readonly RebuildNote[]
}

/**
 * Makes checkpoints anew. Pure; never throws: what is not certain says so in `place` and `time`.
 *
 * A checkpoint made of bitmaps has no `<domain>`: what the domain was then is not known, and that of today would make
 * the top image of today vouch for a bitmap that another one should hold.
 *
 * @example
 * ```ts
 * const { checkpoints } = rebuildCheckpoints(facts, { orders })
 * for (const { checkpoint, place } of checkpoints) console.log(checkpoint.name, checkpoint.parent, place.sure)
 * ```
 */
export function rebuildCheckpoints(facts: BackupFacts, options: RebuildOptions = {}): Rebuilt {
  const tree = buildCheckpointTree(facts.checkpoints)
  const orphans = orphanBitmaps(facts)
  const { adopt } = options
  const wanted = adopt === undefined ? undefined : new Set(adopt)
  const adopted = orphans.filter(
    ({ name, unfit }) => unfit !== 'not-a-name' && (wanted?.has(name) ?? unfit === undefined),
  )
  const known = asFound(facts, tree, options.asFound === true, options.dialect)
  const rows = new Map<string, CheckpointFacts>(known)
  for (const orphan of adopted) rows.set(orphan.name, fromBitmaps(facts, orphan))

  const orders = options.orders ?? []
  const ranked = rankNames(facts, [...rows.values()])
  const graph = new OrderGraph(ranked)
  addParents(graph, tree, rows)
  for (const order of orders) addInclusion(graph, order)
  const order = graph.sort()

  const branched = tree.problems.some(
    problem => problem.code === 'checkpoint-branched' && problem.parent !== undefined,
  )
  const line = options.line === true || !(branched || severalRoots(tree))
  const parents = parentsIn(order.names, tree, rows, line)
  const places = placings(facts, order, parents, tree)
  const times = inventTimes(
    order.names,
    name => tree.get(name)?.creationTime,
    name => tree.get(name) === undefined,
  )
  const checkpoints = order.names.map(name => {
    const old = tree.get(name)
    const { time, sureness } = times.get(name)!
    const checkpoint = { ...rows.get(name)!, parent: parents.get(name), creationTime: time }
    const relinked = old !== undefined && old.parent !== checkpoint.parent
    const changed =
      old === undefined ||
      relinked ||
      old.libvirtSkips !== undefined ||
      old.creationTime !== time ||
      old.disks !== checkpoint.disks
    return {
      checkpoint,
      from: old === undefined ? ('bitmaps' as const) : ('metadata' as const),
      place: places.get(name)!,
      time: sureness,
      changed,
      relinked,
    }
  })
  const made = new Set(adopted)
  return {
    checkpoints,
    left: orphans.filter(orphan => !made.has(orphan)),
    notes: notes(orders, order.conflicts),
  }
}

/** Several without a parent: as `checkpoint-branched` without one has it, with nothing missing. */
function severalRoots(tree: CheckpointTree): boolean {
  return tree.problems.some(problem => problem.code === 'checkpoint-branched' && problem.parent === undefined)
}

/** Metadata know what came after what; in a circle each pair contradicts the others, so none of it counts. */
function addParents(
  graph: OrderGraph,
  tree: CheckpointTree,
  rows: ReadonlyMap<string, CheckpointFacts>,
): void {
  const circular = new Set(
    tree.problems.flatMap(problem => (problem.code === 'checkpoint-cycle' ? problem.checkpoints : [])),
  )
  for (const name of tree.names) {
    const parent = tree.get(name)?.parent
    if (parent === undefined || !rows.has(parent) || circular.has(name)) continue
    graph.add([parent], [name], { kind: 'metadata', message: 'as its metadata say' })
  }
}

function addInclusion(graph: OrderGraph, { target, layer, filename, chains }: LayerOrder): void {
  for (const classes of chains) {
    for (const [i, older] of classes.entries()) {
      const newer = classes[i + 1]
      if (newer === undefined) continue
      const message = `on ${target} (layer ${layer}, ${filename}) the older bitmap holds all that the newer one does, and more`
      graph.add(older, newer, { kind: 'inclusion', message })
    }
  }
}

/** The parent that each gets: the one before it in a line, else what its metadata say, if that is there. */
function parentsIn(
  order: readonly string[],
  tree: CheckpointTree,
  rows: ReadonlyMap<string, CheckpointFacts>,
  line: boolean,
): ReadonlyMap<string, string | undefined> {
  const circular = new Set(
    tree.problems.flatMap(problem => (problem.code === 'checkpoint-cycle' ? problem.checkpoints : [])),
  )
  const parents = new Map<string, string | undefined>()
  for (const [i, name] of order.entries()) {
    const before = order[i - 1]
    const old = tree.get(name)
    const kept = old?.parent !== undefined && rows.has(old.parent) && !circular.has(name)
    const isRoot = old !== undefined && old.parent === undefined
    parents.set(name, line ? before : kept ? old.parent : isRoot ? undefined : before)
  }
  return parents
}

/** Every disk of the domain: those with the bitmap in their top layer have it, if libvirt would take it or not. */
function fromBitmaps(facts: BackupFacts, { name, places }: OrphanBitmap): CheckpointFacts {
  const tops = new Set(places.filter(({ layer }) => layer === 0).map(({ target }) => target))
  const disks = facts.domain.disks.map((disk): CheckpointDisk => {
    const has = tops.has(disk.target) && holdsCheckpoints(disk)
    return has
      ? { name: disk.target, checkpoint: 'bitmap', bitmap: name }
      : { name: disk.target, checkpoint: 'no', bitmap: undefined }
  })
  return {
    name,
    description: undefined,
    parent: undefined,
    creationTime: undefined,
    disks,
    domain: undefined,
  }
}

/**
 * Whether a checkpoint made of the bitmap would be usable on every disk that has it. In the chained dialect one that is
 * disabled is as it should be.
 */
export function isSoundOrphan(
  facts: BackupFacts,
  { name, places }: OrphanBitmap,
  dialect: Dialect = 'independent',
): boolean {
  const targets = new Set(places.map(({ target }) => target))
  return [...targets].every(target => {
    const verdict = judgeBitmap(facts.chains.get(target) ?? [], name)
    return verdict.valid || (dialect === 'chained' && verdict.violation.rule === 'bitmap-disabled')
  })
}

function notes(orders: readonly LayerOrder[], conflicts: ReadonlySet<string>): readonly RebuildNote[] {
  const found: RebuildNote[] = []
  for (const { target, layer, filename, apart, unread } of orders) {
    for (const { bitmap, from } of apart) {
      const message =
        `On ${target} (layer ${layer}, ${filename}) neither of '${bitmap}' and '${from}' holds all that the other does: ` +
        'one of them lost writes or was made otherwise than by a checkpoint, so they tell nothing of their order.'
      found.push({ code: 'bitmaps-incomparable', message, bitmaps: [bitmap, from] })
    }
    for (const { bitmap, message } of unread) {
      found.push({ code: 'bitmap-unread', message, bitmaps: [bitmap] })
    }
  }
  if (conflicts.size > 0) {
    const bitmaps = [...conflicts]
    const message = `What the disks and the metadata tell of the order of ${bitmaps.map(name => `'${name}'`).join(', ')} contradicts itself.`
    found.push({ code: 'order-contradicts', message, bitmaps })
  }
  return found
}
