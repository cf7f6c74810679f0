import type { PersistentBitmap } from '../bitmaps/directory.js'
import { Qcow2Error } from '../errors.js'
import type { ImageInspection } from '../image/inspect.js'
import { NamedBitmaps } from './named-bitmaps.js'

/** What is to be done to the bitmaps of an image; names as qemu-img and QMP have them. */
export type BitmapAction =
  /** A new one, all clear. `granularity` in bytes (default: the cluster size, within 4 KiB and 64 KiB). */
  | {
      readonly action: 'add'
      readonly name: string
      readonly granularity?: number
      readonly disabled?: boolean
    }
  | { readonly action: 'remove'; readonly name: string }
  | { readonly action: 'clear'; readonly name: string }
  /** It records when a VM runs. */
  | { readonly action: 'enable'; readonly name: string }
  | { readonly action: 'disable'; readonly name: string }
  | { readonly action: 'rename'; readonly name: string; readonly to: string }
  /** `name` gets what `source` has too: a bitmap of the same image, or of `image`, of a disk of the same size. */
  | {
      readonly action: 'merge'
      readonly name: string
      readonly source: string
      readonly image?: ImageInspection
    }

/** A bitmap on disk whose bits go into another one. */
export interface BitsTerm {
  readonly image: ImageInspection
  readonly bitmap: PersistentBitmap
  /** log2 of the granules that its bits are widened to: what it has passed through may be coarser than itself. */
  readonly widenBits: number
}

/** A bitmap as it will be. */
export interface FutureBitmap {
  /** The one on disk that it comes from; undefined for a new one. */
  readonly origin: PersistentBitmap | undefined
  readonly name: string
  readonly nameBytes: Uint8Array
  readonly flags: number
  readonly granularityBits: number
  /** Undefined: its bits, and so its table and clusters, stay as they are. Else what they are made of; none: all clear. */
  readonly bits: readonly BitsTerm[] | undefined
}

const IN_USE = 1
const AUTO = 2
const MAX_NAME_BYTES = 1023
const MAX_BITMAPS = 65535
/** QEMU's BME_MAX_PHYS_SIZE. */
const MAX_BITMAP_BYTES = 512 * 1024 * 1024
const MAX_TABLE_ENTRIES = 0x8000000

/**
 * The bitmaps as they are after all the actions, in order. Nothing is read or written: what cannot be done is found
 * before anything is.
 *
 * @throws {Qcow2Error} for the first action that cannot be done: `bitmap-missing`, `bitmap-exists`,
 *   `bitmap-inconsistent`, `bitmap-invalid`, `disk-size-differs`
 */
export function applyActions(image: ImageInspection, actions: readonly BitmapAction[]): FutureBitmap[] {
  const state = new State(image)
  for (const action of actions) state.apply(action)
  return state.bitmaps.all()
}

class State {
  readonly bitmaps: NamedBitmaps
  readonly #image: ImageInspection
  /** Images that are merged from. */
  readonly #others = new Map<ImageInspection, State>()

  constructor(image: ImageInspection) {
    this.#image = image
    const bitmaps = (image.bitmapDirectory?.bitmaps ?? []).map(origin => ({
      origin,
      name: origin.name,
      nameBytes: origin.nameBytes,
      flags: origin.flags,
      granularityBits: origin.granularityBits,
      bits: undefined,
    }))
    this.bitmaps = new NamedBitmaps(bitmaps)
  }

  apply(action: BitmapAction): void {
    switch (action.action) {
      case 'add':
        this.bitmaps.add(this.#added(action))
        return
      case 'remove':
        this.bitmaps.remove(this.#find(action.name))
        return
      case 'clear':
        this.#change(action.name, () => ({ bits: [] }))
        return
      case 'enable':
        this.#change(action.name, ({ flags }) => ({ flags: flags | AUTO }))
        return
      case 'disable':
        this.#change(action.name, ({ flags }) => ({ flags: flags & ~AUTO }))
        return
      case 'rename': {
        const nameBytes = this.#newName(action.to)
        this.#change(action.name, () => ({ name: action.to, nameBytes }))
        return
      }
      case 'merge':
        this.#merge(action)
    }
  }

  #find(name: string): FutureBitmap {
    const found = this.bitmaps.find(new TextEncoder().encode(name))
    if (found !== undefined) return found
    const available = this.bitmaps.all().map(each => each.name)
    throw new Qcow2Error('bitmap-missing', `${this.#image.storage.name} has no bitmap '${name}'`, {
      image: this.#image.storage.name,
      bitmap: name,
      available,
    })
  }

  #change(name: string, change: (before: FutureBitmap) => Partial<FutureBitmap>): void {
    const before = this.#find(name)
    this.#mustBeSound(before)
    this.bitmaps.replace(before, { ...before, ...change(before) })
  }

  #mustBeSound({ flags, origin, name }: FutureBitmap): void {
    const details = { image: this.#image.storage.name, bitmap: name }
    if ((flags & IN_USE) !== 0) {
      const message = `bitmap '${name}' of ${details.image} is inconsistent (in-use): it can only be removed`
      throw new Qcow2Error('bitmap-inconsistent', message, details)
    }
    if (origin === undefined) return
    const strange =
      origin.unreadable ?? ((origin.flags & ~3) === 0 ? undefined : 'it has flags that QEMU does not know')
    if (strange === undefined && origin.extraData.byteLength === 0) return
    const why = strange ?? 'it has extra data, whose meaning is not known'
    throw new Qcow2Error(
      'bitmap-invalid',
      `bitmap '${name}' of ${details.image} cannot be changed: ${why}`,
      details,
    )
  }

  #newName(name: string): Uint8Array {
    const nameBytes = new TextEncoder().encode(name)
    const details = { image: this.#image.storage.name, bitmap: name }
    const invalid = (why: string) =>
      new Qcow2Error('bitmap-invalid', `no bitmap can be called '${name}': ${why}`, details)
    if (nameBytes.byteLength === 0) throw invalid('a name has at least one byte')
    if (nameBytes.byteLength > MAX_NAME_BYTES) throw invalid(`a name has at most ${MAX_NAME_BYTES} bytes`)
    if (new TextDecoder().decode(nameBytes) !== name.replace(/^\uFEFF/, ''))
      throw invalid('it has half of a surrogate pair')
    if (nameBytes.includes(0)) throw invalid('QEMU takes what precedes a NUL for the whole')
    // QEMU takes what precedes a NUL for the whole: two of such names, and it does not open the image.
    if (this.bitmaps.isTaken(nameBytes)) {
      throw new Qcow2Error('bitmap-exists', `${details.image} has a bitmap '${name}' already`, details)
    }
    return nameBytes
  }

  #added({
    name,
    granularity = defaultGranularity(this.#image),
    disabled,
  }: BitmapAction & { action: 'add' }): FutureBitmap {
    const nameBytes = this.#newName(name)
    const granularityBits = Math.log2(granularity)
    const details = { image: this.#image.storage.name, bitmap: name, granularity }
    const invalid = (why: string) =>
      new Qcow2Error('bitmap-invalid', `bitmap '${name}' cannot be added: ${why}`, details)
    if (!(Number.isInteger(granularityBits) && granularityBits >= 9 && granularityBits <= 31)) {
      throw invalid(`a granularity of ${granularity} bytes is not a power of two from 512 bytes to 2 GiB`)
    }
    if (this.#image.virtualSize === 0) throw invalid('the disk has no bytes')
    const bytes = bitmapBytes(this.#image.virtualSize, granularityBits)
    const entries = Math.ceil(bytes / this.#image.clusterSize)
    if (entries * this.#image.clusterSize > MAX_BITMAP_BYTES || entries > MAX_TABLE_ENTRIES) {
      throw invalid('it would be larger than 512 MiB: take a coarser granularity')
    }
    if (this.bitmaps.count >= MAX_BITMAPS) throw invalid(`an image has at most ${MAX_BITMAPS} bitmaps`)
    return { origin: undefined, name, nameBytes, flags: disabled ? 0 : AUTO, granularityBits, bits: [] }
  }

  #merge({ name, source, image = this.#image }: BitmapAction & { action: 'merge' }): void {
    const target = this.#find(name)
    this.#mustBeSound(target)
    const other = image === this.#image ? this : this.#other(image)
    const from = other.#find(source)
    other.#mustBeSound(from)
    if (image.virtualSize !== this.#image.virtualSize) {
      throw new Qcow2Error(
        'disk-size-differs',
        `bitmap '${source}' is of a disk of ${image.virtualSize} bytes, '${name}' of one of ${this.#image.virtualSize}`,
        { sizes: [this.#image.virtualSize, image.virtualSize] },
      )
    }
    // With itself nothing changes.
    if (from === target) return
    const terms = [...bitsOf(this.#image, target), ...bitsOf(image, from)].map(term => ({
      ...term,
      widenBits: Math.max(term.widenBits, target.granularityBits),
    }))
    this.#change(name, () => ({ bits: withoutRepeats(terms) }))
  }

  #other(image: ImageInspection): State {
    const known = this.#others.get(image)
    if (known !== undefined) return known
    const other = new State(image)
    this.#others.set(image, other)
    return other
  }
}

/** What a bitmap's bits are made of now. */
function bitsOf(image: ImageInspection, { origin, bits }: FutureBitmap): readonly BitsTerm[] {
  if (bits !== undefined) return bits
  return [{ image, bitmap: origin!, widenBits: origin!.granularityBits }]
}

/** One and the same twice: the wider one has all that the other has. */
function withoutRepeats(terms: readonly BitsTerm[]): BitsTerm[] {
  const kept: BitsTerm[] = []
  for (const term of terms) {
    const i = kept.findIndex(({ image, bitmap }) => image === term.image && bitmap === term.bitmap)
    if (i < 0) kept.push(term)
    else if (kept[i]!.widenBits < term.widenBits) kept[i] = term
  }
  return kept
}

/** As QEMU chooses it (bdrv_get_default_bitmap_granularity). */
export function defaultGranularity({ clusterSize }: Pick<ImageInspection, 'clusterSize'>): number {
  return Math.min(65536, Math.max(4096, clusterSize))
}

/** Bytes of a bitmap: a bit for each granule, the last one clipped. */
export function bitmapBytes(diskBytes: number, granularityBits: number): number {
  return Math.ceil(Math.ceil(diskBytes / 2 ** granularityBits) / 8)
}
