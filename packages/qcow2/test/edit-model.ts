// What bitmaps are after edits, worked out on sets of bytes, slow and plain.
import type { Random } from '@tidemark/testkit'
import { expect } from 'vitest'
import { Refcounts } from '../src/check/refcounts.js'
import {
  type BitmapAction,
  createEngine,
  dirtyExtents,
  type ImageStorage,
  inspectImage,
  mapReferences,
  memoryStorage,
  openBitmap,
} from '../src/index.js'
import { collect } from './model.js'

export interface ModelBitmap {
  readonly granularity: number
  readonly enabled: boolean
  readonly inUse: boolean
  /** Alternating start and end of dirty stretches, ascending, in bytes; undefined where they cannot be read. */
  readonly edges: readonly number[] | undefined
}

export type Model = ReadonlyMap<string, ModelBitmap>

/** An image's bitmaps as tidemark reads them. */
export async function readModel(storage: ImageStorage): Promise<Model> {
  const engine = createEngine()
  const image = await inspectImage(storage, engine)
  const model = new Map<string, ModelBitmap>()
  if (image.bitmapDirectory === undefined || image.bitmapDirectory.stale) return model
  for (const bitmap of image.bitmapDirectory.bitmaps) {
    const { name, granularity, auto: enabled, inUse } = bitmap
    const edges = inUse ? undefined : await collect(dirtyExtents(engine, [openBitmap(image, bitmap, engine)]))
    model.set(name, { granularity, enabled, inUse, edges })
  }
  return model
}

export function applyModel(model: Model, actions: readonly BitmapAction[], diskBytes: number): Model {
  const after = new Map(model)
  const change = (name: string, more: Partial<ModelBitmap>) =>
    after.set(name, { ...after.get(name)!, ...more })
  for (const action of actions) {
    const { name } = action
    switch (action.action) {
      case 'add':
        after.set(name, {
          granularity: action.granularity!,
          enabled: action.disabled !== true,
          inUse: false,
          edges: [],
        })
        break
      case 'remove':
        after.delete(name)
        break
      case 'clear':
        change(name, { edges: [] })
        break
      case 'enable':
      case 'disable':
        change(name, { enabled: action.action === 'enable' })
        break
      case 'rename': {
        const entries = [...after].map(([key, value]) => [key === name ? action.to : key, value] as const)
        after.clear()
        for (const [key, value] of entries) after.set(key, value)
        break
      }
      case 'merge': {
        const { granularity, edges } = after.get(name)!
        change(name, {
          edges: united(edges!, widened(after.get(action.source)!.edges!, granularity, diskBytes)),
        })
      }
    }
  }
  return after
}

/** A guest wrote: those that record have it too. */
export function recorded(
  model: Model,
  writes: readonly { readonly offset: number; readonly length: number }[],
  diskBytes: number,
): Model {
  const after = new Map(model)
  for (const [name, bitmap] of model) {
    if (!bitmap.enabled || bitmap.inUse) continue
    const edges = writes.reduce(
      (sum: readonly number[], { offset, length }) =>
        united(sum, widened([offset, offset + length], bitmap.granularity, diskBytes)),
      bitmap.edges!,
    )
    after.set(name, { ...bitmap, edges })
  }
  return after
}

/** A disk of another size: a granule that the old end cut counts as a whole where there is more of it now. */
export function afterResize(model: Model, from: number, to: number): Model {
  return new Map(
    [...model].map(([name, bitmap]) => {
      const whole = bitmap.edges!.map(edge =>
        edge === from ? Math.ceil(edge / bitmap.granularity) * bitmap.granularity : edge,
      )
      const edges: number[] = []
      for (let i = 0; i < whole.length; i += 2) {
        if (whole[i]! < to) edges.push(whole[i]!, Math.min(to, whole[i + 1]!))
      }
      return [name, { ...bitmap, edges }]
    }),
  )
}

/** QEMU had it open for writing, and ended without a word. */
export function afterCrash(model: Model): Model {
  return new Map([...model].map(([name, bitmap]) => [name, { ...bitmap, inUse: true, edges: undefined }]))
}

function widened(edges: readonly number[], granularity: number, diskBytes: number): number[] {
  return edges.map((edge, i) =>
    i % 2 === 0
      ? edge - (edge % granularity)
      : Math.min(diskBytes, Math.ceil(edge / granularity) * granularity),
  )
}

function united(a: readonly number[], b: readonly number[]): number[] {
  const pairs: [number, number][] = []
  for (const edges of [a, b]) for (let i = 0; i < edges.length; i += 2) pairs.push([edges[i]!, edges[i + 1]!])
  pairs.sort(([x], [y]) => x - y)
  const out: number[] = []
  for (const [start, end] of pairs) {
    if (out.length > 0 && start <= out.at(-1)!) out[out.length - 1] = Math.max(out.at(-1)!, end)
    else out.push(start, end)
  }
  return out
}

const everyKind = [
  'add',
  'remove',
  'clear',
  'enable',
  'disable',
  'rename',
  'merge',
  'merge',
  'merge',
] as const

/** Actions that can be done, one after the other. */
export function randomActions(
  random: Random,
  model: Model,
  diskBytes: number,
  count: number,
  kinds: readonly BitmapAction['action'][] = everyKind,
): BitmapAction[] {
  const actions: BitmapAction[] = []
  let now = model
  while (actions.length < count) {
    const names = [...now].filter(([, { inUse }]) => !inUse).map(([name]) => name)
    const broken = [...now.keys()].filter(name => !names.includes(name))
    const kind = names.length === 0 ? 'add' : random.pick(kinds)
    const name = names.length === 0 ? '' : random.pick(names)
    // One that is inconsistent can be removed.
    const action: BitmapAction =
      broken.length > 0 && random.bool(0.2)
        ? { action: 'remove', name: random.pick(broken) }
        : make(kind, name)
    actions.push(action)
    now = applyModel(now, [action], diskBytes)
  }
  return actions

  function make(kind: BitmapAction['action'], name: string): BitmapAction {
    const fresh = `new-${random.int(0, 1e9)}`
    switch (kind) {
      case 'add':
        return { action: 'add', name: fresh, granularity: 2 ** random.int(9, 20), disabled: random.bool(0.3) }
      case 'rename':
        return { action: 'rename', name, to: fresh }
      case 'merge':
        return { action: 'merge', name, source: random.pick([...now].filter(([, { inUse }]) => !inUse))[0] }
      default:
        return { action: kind, name }
    }
  }
}

/** Nothing is lost: all that is used is counted, and can be read. */
export async function mustBeSound(bytes: Uint8Array): Promise<void> {
  const image = await inspectImage(memoryStorage(bytes))
  expect(image.findings.filter(({ severity }) => severity === 'error')).toEqual([])
  const { used, clusters } = await mapReferences(image, createEngine())
  const refcounts = await Refcounts.open(image)
  for (let cluster = 0; cluster < clusters; cluster++) {
    if (used.has(cluster)) expect(await refcounts.get(cluster), `cluster ${cluster}`).toBeGreaterThan(0)
  }
}

/** Clusters that are counted, and nobody's. */
export async function leaks(bytes: Uint8Array): Promise<number[]> {
  const image = await inspectImage(memoryStorage(bytes))
  const { used, clusters } = await mapReferences(image, createEngine())
  const refcounts = await Refcounts.open(image)
  const found: number[] = []
  for (let cluster = 0; cluster < clusters; cluster++) {
    if (!used.has(cluster) && (await refcounts.get(cluster)) > 0) found.push(cluster)
  }
  return found
}
