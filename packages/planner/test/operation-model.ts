/**
 * A disk whose bitmaps are changed by the planner's operations alone, carried out on sets of granules; guest data move as
 * QEMU moves them. It knows the truth: what was written since each checkpoint.
 */
import {
  type BackupFacts,
  type BitmapOperation,
  type CheckpointFacts,
  type Dialect,
  type LayerFacts,
  type OperationsPlan,
  type Place,
  PlanError,
  planCommit,
  planCopy,
  planDelete,
  planPull,
  planSnapshot,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer } from './facts.js'

interface ModelBitmap {
  recording: boolean
  inconsistent: boolean
  readonly bits: Set<number>
}

interface ModelLayer {
  readonly file: string
  readonly bitmaps: Map<string, ModelBitmap>
  /** Granules that the image holds itself. */
  readonly data: Set<number>
  stale: boolean
}

/** Numbers are taken modulo what there is. */
export type Event =
  | { readonly kind: 'write'; readonly granule: number }
  /** `leaveOut`: it has other disks alone, so nothing happens to this one's bitmaps. */
  /** `bare`: its metadata are made of bitmaps alone, without the domain. */
  | { readonly kind: 'checkpoint'; readonly leaveOut?: boolean; readonly bare?: boolean }
  /** The disk is unplugged, and plugged in again as another target. */
  | { readonly kind: 'retarget' }
  | { readonly kind: 'snapshot' }
  /** `torn`: cut off, and nobody recovered it: a mask of the layers that are done; 0: all, and the metadata. */
  | { readonly kind: 'delete'; readonly checkpoint: number; readonly torn?: number }
  | { readonly kind: 'commit'; readonly top: number; readonly base: number; readonly moved: boolean }
  | { readonly kind: 'pull'; readonly base: number; readonly moved: boolean }
  | { readonly kind: 'copy'; readonly shallow: boolean }
  | {
      readonly kind: 'harm'
      readonly how: 'remove' | 'inconsistent' | 'stale' | 'disable' | 'bare-overlay'
      readonly layer: number
      readonly bitmap: number
    }

export class OperationModel {
  #layers: ModelLayer[] = [newLayer('/images/l0')]
  #checkpoints: CheckpointFacts[] = []
  #target = 'vda'
  readonly truth = new Map<string, Set<number>>()
  /** What was planned, and how often it was blocked. */
  readonly done: Record<string, number> = {}
  readonly #dialect: Dialect
  readonly #recordsCopies: boolean
  readonly #told: Dialect | undefined
  #serial = 0

  /**
   * @param recordsCopies a commit is recorded by the base's bitmaps, as QEMU does it
   * @param finds nobody tells the dialect: it is found from the flags
   */
  constructor(dialect: Dialect, recordsCopies: boolean, finds = false) {
    this.#dialect = dialect
    this.#recordsCopies = recordsCopies
    this.#told = finds ? undefined : dialect
  }

  get checkpoints(): readonly string[] {
    return this.#checkpoints.map(({ name }) => name)
  }

  get #top(): ModelLayer {
    return this.#layers[0]!
  }

  step(event: Event): void {
    switch (event.kind) {
      case 'write':
        this.#write(event.granule)
        break
      case 'checkpoint':
        this.#checkpoint(event)
        break
      case 'retarget':
        this.#target = this.#target === 'vda' ? 'vdb' : 'vda'
        break
      case 'snapshot':
        this.#snapshot()
        break
      case 'delete':
        this.#delete(event)
        break
      case 'commit':
        this.#commit(event)
        break
      case 'pull':
        this.#pull(event)
        break
      case 'copy':
        this.#copy(event)
        break
      case 'harm':
        this.#harm(event)
    }
  }
  facts(): BackupFacts {
    return {
      domain: domain([disk(this.#target, this.#top.file)]),
      checkpoints: this.#checkpoints,
      chains: new Map([[this.#target, this.#layers.map(factsOf)]]),
    }
  }

  /** All that bitmaps of these names mark, in these layers. */
  union(sources: readonly { readonly layer: number; readonly bitmap: string }[]): Set<number> {
    const bits = sources.flatMap(({ layer, bitmap }) => [
      ...(this.#layers[layer]!.bitmaps.get(bitmap)?.bits ?? []),
    ])
    return new Set(bits)
  }

  /** Every bitmap of these names, wherever it is. */
  everywhere(names: readonly string[]): Set<number> {
    const sources = this.#layers.flatMap((_, layer) => names.map(bitmap => ({ layer, bitmap })))
    return this.union(sources)
  }

  #plan(what: string, make: (facts: BackupFacts) => OperationsPlan): OperationsPlan | undefined {
    try {
      const plan = make(this.facts())
      const blocked = plan.problems.some(({ severity }) => severity !== 'note')
      const key = blocked ? `${what} blocked` : what
      this.done[key] = (this.done[key] ?? 0) + 1
      return blocked ? undefined : plan
    } catch (error) {
      if (error instanceof PlanError) return undefined
      throw error
    }
  }

  /** @param indexOf where a place is by now */
  #carryOut({ operations }: OperationsPlan, indexOf: (layer: Place['layer']) => number = Number): void {
    for (const operation of operations) {
      const { bitmaps, stale } = this.#layers[indexOf(operation.layer)]!
      // As editing it does.
      if (stale) throw new Error(`${operation.kind} in an image whose bitmaps are stale`)
      const found = bitmaps.get(operation.bitmap)
      if (operation.kind === 'add') {
        if (found !== undefined) throw new Error(`${operation.bitmap} is there already`)
        bitmaps.set(operation.bitmap, {
          recording: !operation.disabled,
          inconsistent: false,
          bits: new Set(),
        })
        continue
      }
      if (found === undefined) throw new Error(`there is no ${operation.bitmap}`)
      if (operation.kind === 'remove') bitmaps.delete(operation.bitmap)
      else if (found.inconsistent) throw new Error(`${operation.kind} of an inconsistent bitmap`)
      else if (operation.kind === 'merge') this.#merge(found, operation, indexOf)
      else found.recording = operation.kind === 'enable'
    }
  }

  #merge(
    target: ModelBitmap,
    { sources }: BitmapOperation & { kind: 'merge' },
    indexOf: (layer: Place['layer']) => number,
  ): void {
    for (const source of sources) {
      const found = this.#layers[indexOf(source.layer)]!.bitmaps.get(source.bitmap)
      if (found === undefined || found.inconsistent) throw new Error(`${source.bitmap} cannot be merged from`)
      for (const bit of found.bits) target.bits.add(bit)
    }
  }

  #write(granule: number): void {
    // QEMU drops what is stale when it opens an image for writing.
    if (this.#top.stale) {
      this.#top.bitmaps.clear()
      this.#top.stale = false
    }
    this.#top.data.add(granule)
    record(this.#top, granule)
    for (const since of this.truth.values()) since.add(granule)
  }

  #checkpoint({ leaveOut = false, bare = false }: Event & { kind: 'checkpoint' }): void {
    if (this.#top.stale) return
    const name = `cp${this.#serial++}`
    if (!leaveOut) this.#begin(name)
    const [source, ...below] = this.#layers.map(({ file }) => file)
    const then = disk(this.#target, source, {
      backingStore: below.map(file => ({ type: 'file', source: file, format: 'qcow2' })),
    })
    const parent = this.#checkpoints.at(-1)?.name
    const disks = leaveOut
      ? [{ name: this.#target, checkpoint: 'no' as const, bitmap: undefined }]
      : undefined
    this.#checkpoints.push(checkpoint(name, { parent, disks, domain: bare ? undefined : domain([then]) }))
    if (!leaveOut) this.truth.set(name, new Set())
  }

  #begin(name: string): void {
    if (this.#dialect === 'chained') {
      for (const each of this.#top.bitmaps.values()) each.recording = false
    }
    this.#top.bitmaps.set(name, { recording: true, inconsistent: false, bits: new Set() })
  }

  #harm({ how, layer: n, bitmap: i }: Event & { kind: 'harm' }): void {
    const harmed = this.#layers[n % this.#layers.length]!
    const name = [...harmed.bitmaps.keys()][i % Math.max(1, harmed.bitmaps.size)]
    if (how === 'bare-overlay') this.#layers.unshift(newLayer(this.#newFile()))
    else if (name === undefined) return
    else if (how === 'remove') harmed.bitmaps.delete(name)
    else if (how === 'inconsistent') harmed.bitmaps.get(name)!.inconsistent = true
    else if (how === 'disable') harmed.bitmaps.get(name)!.recording = false
    else {
      // Somebody wrote to it who knows no bitmaps.
      harmed.stale = true
      harmed.data.add(1000)
      // Whoever writes below an overlay destroys more than backups.
      if (harmed === this.#top) for (const since of this.truth.values()) since.add(1000)
    }
  }

  #snapshot(): void {
    const file = this.#newFile()
    const plan = this.#plan('snapshot', facts =>
      planSnapshot(facts, { overlays: new Map([[this.#target, file]]) }),
    )
    if (plan === undefined) return
    this.#layers.unshift(newLayer(file))
    // The overlay is layer 0 by now.
    this.#carryOut(plan, place => (place === 'overlay' ? 0 : Number(place) + 1))
  }

  #delete(event: Event & { kind: 'delete' }): void {
    const name = this.checkpoints[event.checkpoint % Math.max(1, this.checkpoints.length)]
    if (name === undefined) return
    const plan = this.#plan('delete', facts => planDelete(facts, { checkpoint: name, dialect: this.#told }))
    if (plan === undefined) return
    const { torn = 0 } = event
    if (torn > 0) {
      const done = plan.operations.filter(({ layer }) => (torn >> Number(layer)) & 1)
      this.#carryOut({ ...plan, operations: done })
      this.done.torn = (this.done.torn ?? 0) + 1
      return
    }
    this.#carryOut(plan)
    const { parent } = this.#checkpoints.find(each => each.name === name)!
    this.#checkpoints = this.#checkpoints
      .filter(each => each.name !== name)
      .map(each => (each.parent === name ? { ...each, parent } : each))
    this.truth.delete(name)
  }

  #commit(event: Event & { kind: 'commit' }): void {
    const count = this.#layers.length
    if (count < 2) return
    const top = event.top % (count - 1)
    const base = top + 1 + (event.base % (count - top - 1))
    const plan = this.#plan('commit', facts =>
      planCommit(facts, { disk: this.#target, top, base, dialect: this.#told }),
    )
    if (plan === undefined) return
    this.#carryOut(plan)
    if (!event.moved) return
    for (const { data } of this.#layers.slice(top, base)) {
      for (const granule of data) {
        this.#layers[base]!.data.add(granule)
        if (this.#recordsCopies) record(this.#layers[base]!, granule)
      }
    }
    this.#layers.splice(top, base - top)
  }

  #pull(event: Event & { kind: 'pull' }): void {
    const count = this.#layers.length
    const base = 2 + (event.base % Math.max(1, count - 1))
    if (count < 2 || base > count) return
    const plan = this.#plan('pull', facts =>
      planPull(facts, {
        disk: this.#target,
        base: base === count ? undefined : base,
        dialect: this.#told,
      }),
    )
    if (plan === undefined) return
    this.#carryOut(plan)
    if (!event.moved) return
    for (const { data } of this.#layers.splice(1, base - 1))
      for (const granule of data) this.#top.data.add(granule)
  }

  #copy(event: Event & { kind: 'copy' }): void {
    const count = this.#layers.length
    const file = this.#newFile()
    const plan = this.#plan('copy', facts =>
      planCopy(facts, { disk: this.#target, target: file, shallow: event.shallow, dialect: this.#told }),
    )
    if (plan === undefined) return
    const target = newLayer(file)
    const gone = event.shallow ? 1 : count
    this.#layers.push(target)
    this.#carryOut(plan, place => (place === 'target' ? count : Number(place)))
    for (const { data } of this.#layers.slice(0, gone)) for (const each of data) target.data.add(each)
    this.#layers = [target, ...this.#layers.slice(gone, count)]
  }

  #newFile(): string {
    return `/images/f${this.#serial++}`
  }
}

function newLayer(file: string): ModelLayer {
  return { file, bitmaps: new Map(), data: new Set(), stale: false }
}

function record({ bitmaps, stale }: ModelLayer, granule: number): void {
  if (stale) return
  for (const { recording, inconsistent, bits } of bitmaps.values())
    if (recording && !inconsistent) bits.add(granule)
}

function factsOf({ file, bitmaps, stale }: ModelLayer): LayerFacts {
  return layer(
    file,
    [...bitmaps].map(([name, { recording, inconsistent }]) => bitmap(name, { recording, inconsistent })),
    { bitmapsStale: stale },
  )
}
