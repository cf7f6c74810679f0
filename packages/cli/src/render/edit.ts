import type { EditPlan, EditWrite } from '@tidemark/qcow2'
import type { BitmapEditOptions, BitmapStep } from '../bitmap/options.js'
import { formatSize } from '../units.js'

/** What was done to the bitmaps of an image, or would be. */
export interface BitmapEdit {
  readonly filename: string
  readonly name: string
  readonly options: BitmapEditOptions
  readonly plan: EditPlan
  /** A file: it grows, and the space of old clusters is given back to its file system. */
  readonly resizable: boolean
}

/** Neighbours as one: `first` and how many. */
export interface Run {
  readonly first: number
  readonly count: number
}

export interface ShownWrite {
  readonly kind: EditWrite['kind']
  readonly what: string
  /** Bytes that are written; of refcounts, how many. */
  readonly amount: number
  /** Clusters for refcounts, else stretches of bytes. */
  readonly runs: readonly Run[]
  /** Of refcounts. */
  readonly value?: number
}

type Json = Record<string, unknown>
type Future = EditPlan['bitmaps'][number]

/** Flags as qemu-img info has them. */
export function flagsOf({ flags }: Future): string[] {
  return [...((flags & 1) === 0 ? [] : ['in-use']), ...((flags & 2) === 0 ? [] : ['auto'])]
}

/** One line for who sits in front of it. */
export function editSummary({ name, options, plan }: BitmapEdit): string {
  const done = options.steps.map(step => doneText(step, name, options, plan)).join(', ')
  return `bitmap '${name}': ${done}; ${costText(plan)}`
}

/** `4 clusters written, 2 given back`. */
export function costText({ steps, cost: { allocated, freed } }: EditPlan): string {
  if (steps.length === 0) return 'nothing had to be written'
  const written = `${allocated} ${allocated === 1 ? 'cluster' : 'clusters'} written`
  return freed === 0 ? written : `${written}, ${freed} given back`
}

function doneText(step: BitmapStep, name: string, options: BitmapEditOptions, plan: EditPlan): string {
  switch (step.action) {
    case 'add': {
      const added = plan.bitmaps.find(each => each.name === name)
      const bytes = options.granularity || (added && 2 ** added.granularityBits)
      return bytes === undefined ? 'added' : `added (${formatSize(bytes)} granularity)`
    }
    case 'merge':
      return `merged '${step.source}'${options.b === undefined ? '' : ` of ${options.b}`}`
    case 'rename':
      return `renamed to '${step.to}'`
    case 'remove':
      return 'removed'
    case 'clear':
      return 'cleared'
    default:
      return `${step.action}d`
  }
}

export function editToJson(edit: BitmapEdit): Json {
  const { filename, name, options, plan, resizable } = edit
  return {
    filename,
    bitmap: name,
    'dry-run': options.dryRun === true,
    actions: options.steps.map(step => actionToJson(step, options)),
    ...planToJson(plan),
    ...(options.dryRun ? { steps: stepsToJson(plan, resizable) } : {}),
  }
}

/** What it takes, and which bitmaps there are then. */
export function planToJson({ clusterSize, cost, bitmaps }: EditPlan): Json {
  return {
    'cluster-size': clusterSize,
    cost: {
      allocated: cost.allocated,
      freed: cost.freed,
      data: cost.data,
      tables: cost.tables,
      directory: cost.directory,
      'refcount-structures': cost.refcountStructures,
      growth: cost.growth,
    },
    bitmaps: bitmaps.map(each => ({
      flags: flagsOf(each),
      name: each.name,
      granularity: 2 ** each.granularityBits,
    })),
  }
}

function actionToJson(step: BitmapStep, { granularity, b }: BitmapEditOptions): Json {
  switch (step.action) {
    case 'add':
      return { ...step, ...(granularity ? { granularity } : {}) }
    case 'merge':
      return { ...step, ...(b === undefined ? {} : { 'source-file': b }) }
    default:
      return { ...step }
  }
}

/** `barrier`: what the step wrote is on the disk before the next one begins. */
export function stepsToJson(plan: EditPlan, resizable: boolean): Json[] {
  const { clusterSize } = plan
  const steps: Json[] = plan.steps.map(({ name, writes }) => ({
    step: name,
    writes: writes.map(write => writeToJson(shownWrite(write, clusterSize))),
    barrier: 'flush',
  }))
  const holes = holesOf(plan)
  if (resizable && holes.length > 0) steps.push({ step: 'discard', extents: holes.map(toExtent) })
  return steps
}

function writeToJson({ kind, what, amount, runs, value }: ShownWrite): Json {
  switch (kind) {
    case 'grow':
      return { kind, what, size: amount }
    case 'bytes': {
      const { offset, length } = toExtent(runs[0]!)
      return { kind: 'write', what, offset, length }
    }
    case 'bits':
      return { kind: 'write', what, length: amount, extents: runs.map(toExtent) }
    case 'refcounts':
      return { kind, what, value, count: amount, clusters: runs }
  }
}

function toExtent({ first, count }: Run): { offset: number; length: number } {
  return { offset: first, length: count }
}

/** A write as it is told: to the cluster. */
export function shownWrite(write: EditWrite, clusterSize: number): ShownWrite {
  const { kind, what } = write
  switch (write.kind) {
    case 'grow':
      return { kind, what, amount: write.bytes, runs: [] }
    case 'bytes': {
      const count = write.length ?? write.bytes.byteLength
      return { kind, what, amount: count, runs: [{ first: write.offset, count }] }
    }
    case 'bits':
      return {
        kind,
        what,
        amount: write.offsets.length * clusterSize,
        runs: runsOf(write.offsets, clusterSize),
      }
    case 'refcounts':
      return {
        kind,
        what,
        amount: write.clusters.length,
        runs: runsOf(write.clusters, 1),
        value: write.value,
      }
  }
}

/** Stretches of bytes that the image gives back in the end. */
export function holesOf({ released, clusterSize }: EditPlan): Run[] {
  return runsOf(released, 1).map(({ first, count }) => ({
    first: first * clusterSize,
    count: count * clusterSize,
  }))
}

/** @param size of one: the next one is so much further */
function runsOf(numbers: Iterable<number>, size: number): Run[] {
  const runs: { first: number; count: number }[] = []
  for (const number of numbers) {
    const last = runs.at(-1)
    if (last !== undefined && last.first + last.count === number) last.count += size
    else runs.push({ first: number, count: size })
  }
  return runs
}
