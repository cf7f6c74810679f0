/**
 * A disk's life in plain code: writes, checkpoints in either dialect, snapshots and block jobs as libvirt makes them,
 * and what goes wrong. It knows the truth, what was written since each checkpoint, and gives the facts that are left.
 */
import type { BackupFacts, CheckpointFacts, LayerFacts } from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer } from './facts.js'

interface ModelBitmap {
  recording: boolean
  inconsistent: boolean
  readonly bits: Set<number>
}

interface ModelLayer {
  readonly file: string
  readonly bitmaps: Map<string, ModelBitmap>
  /** All that was ever written while it was the top. */
  readonly data: Set<number>
  stale: boolean
}

export type Event =
  | { readonly kind: 'write'; readonly granule: number }
  | { readonly kind: 'checkpoint'; readonly excluded?: boolean }
  | { readonly kind: 'snapshot' }
  /** From here on bitmaps are no longer disabled: libvirt was upgraded. */
  | { readonly kind: 'upgrade' }
  | { readonly kind: 'commit'; readonly by: 'libvirt' | 'qemu-img' }
  | { readonly kind: 'pull' }

/** Done to the images when all else is over; numbers are taken modulo what there is. */
export interface Fault {
  readonly kind: 'remove' | 'inconsistent' | 'stale' | 'disable' | 'enable' | 'forget-checkpoint'
  readonly layer: number
  readonly bitmap: number
}

export class DiskModel {
  /** Top first. */
  readonly #layers: ModelLayer[] = [newLayer('/images/l0')]
  readonly #checkpoints: CheckpointFacts[] = []
  /** Checkpoint → granules written since. */
  readonly truth = new Map<string, Set<number>>()
  #chained: boolean
  #images = 1

  constructor(dialect: 'independent' | 'chained') {
    this.#chained = dialect === 'chained'
  }

  run(events: readonly Event[]): this {
    for (const event of events) this.#do(event)
    return this
  }

  get #top(): ModelLayer {
    return this.#layers[0]!
  }

  #do(event: Event): void {
    switch (event.kind) {
      case 'write':
        this.#top.data.add(event.granule)
        for (const { recording, bits } of this.#top.bitmaps.values()) if (recording) bits.add(event.granule)
        for (const since of this.truth.values()) since.add(event.granule)
        return
      case 'checkpoint':
        this.#checkpoint(event.excluded === true)
        return
      case 'snapshot': {
        const overlay = newLayer(`/images/l${this.#images++}`)
        for (const name of this.#valid()) overlay.bitmaps.set(name, newBitmap())
        this.#layers.unshift(overlay)
        return
      }
      case 'upgrade':
        this.#chained = false
        return
      case 'commit':
        this.#commit(event.by)
        return
      case 'pull':
        this.#pull()
    }
  }

  #checkpoint(excluded: boolean): void {
    const name = `cp${this.#checkpoints.length + 1}`
    const [top, ...below] = this.#layers.map(({ file }) => file)
    const backingStore = below.map(source => ({ type: 'file', source, format: 'qcow2' }))
    const given = { parent: this.#checkpoints.at(-1)?.name, creationTime: 1000 + this.#checkpoints.length }
    const disks = excluded ? [{ name: 'vda', checkpoint: 'no' as const, bitmap: undefined }] : undefined
    this.#checkpoints.push(
      checkpoint(name, { ...given, disks, domain: domain([disk('vda', top, { backingStore })]) }),
    )
    this.truth.set(name, new Set())
    if (excluded) return
    if (this.#chained) for (const old of this.#top.bitmaps.values()) old.recording = false
    this.#top.bitmaps.set(name, newBitmap())
  }

  /** libvirt's rule: which of the top's bitmaps are carried over. */
  #valid(): string[] {
    return [...this.#top.bitmaps.keys()].filter(name => {
      const held = this.#layers.map(({ bitmaps }) => bitmaps.get(name))
      const first = held.indexOf(undefined)
      const until = first < 0 ? held.length : first
      return (
        held.slice(until).every(each => each === undefined) &&
        held.slice(0, until).every(each => each!.recording)
      )
    })
  }

  #commit(by: 'libvirt' | 'qemu-img'): void {
    if (this.#layers.length < 2) return
    const valid = this.#valid()
    const [top, base] = [this.#layers.shift()!, this.#top]
    for (const each of base.bitmaps.values()) if (each.recording) for (const at of top.data) each.bits.add(at)
    for (const at of top.data) base.data.add(at)
    if (by === 'qemu-img') return
    for (const name of valid) {
      const target = base.bitmaps.get(name) ?? newBitmap()
      for (const at of top.bitmaps.get(name)!.bits) target.bits.add(at)
      base.bitmaps.set(name, target)
    }
  }

  /** The layer below the top goes up into it: its data are no writes, its bitmaps are merged if they are valid. */
  #pull(): void {
    if (this.#layers.length < 2) return
    const valid = this.#valid()
    const [gone] = this.#layers.splice(1, 1)
    for (const at of gone!.data) this.#top.data.add(at)
    for (const name of valid) {
      for (const at of gone!.bitmaps.get(name)?.bits ?? []) this.#top.bitmaps.get(name)!.bits.add(at)
    }
  }

  harm({ kind, layer: index, bitmap: which }: Fault): this {
    const layer = this.#layers[index % this.#layers.length]!
    const name = [...layer.bitmaps.keys()][which % Math.max(1, layer.bitmaps.size)]
    const target = name === undefined ? undefined : layer.bitmaps.get(name)
    if (kind === 'stale') layer.stale = true
    else if (kind === 'forget-checkpoint')
      this.#checkpoints.splice(which % Math.max(1, this.#checkpoints.length), 1)
    else if (target === undefined) return this
    else if (kind === 'remove') layer.bitmaps.delete(name!)
    else if (kind === 'inconsistent') {
      target.inconsistent = true
      target.bits.clear()
    } else target.recording = kind === 'enable'
    return this
  }

  facts(): BackupFacts {
    const chain = this.#layers.map(
      ({ file, bitmaps, stale }): LayerFacts =>
        layer(
          file,
          [...bitmaps].map(([name, { recording, inconsistent }]) =>
            bitmap(name, { recording, inconsistent }),
          ),
          { bitmapsStale: stale },
        ),
    )
    return {
      domain: domain([disk('vda', this.#top.file)]),
      checkpoints: this.#checkpoints,
      chains: new Map([['vda', chain]]),
    }
  }

  bits(layer: number, name: string): ReadonlySet<number> {
    return this.#layers[layer]!.bitmaps.get(name)!.bits
  }
}

function newLayer(file: string): ModelLayer {
  return { file, bitmaps: new Map(), data: new Set(), stale: false }
}

function newBitmap(): ModelBitmap {
  return { recording: true, inconsistent: false, bits: new Set() }
}
