import type { FutureBitmap } from './actions.js'

/** Bitmaps in the order of a directory, found by the bytes of their names: there may be 65,535 of them, and as many actions. */
export class NamedBitmaps {
  /** Those that were removed are holes. */
  readonly #slots: (FutureBitmap | undefined)[] = []
  readonly #slotOf = new Map<string, number>()
  /** How often there is a name, up to its first NUL. */
  readonly #shown = new Map<string, number>()

  constructor(bitmaps: Iterable<FutureBitmap>) {
    for (const bitmap of bitmaps) this.add(bitmap)
  }

  get count(): number {
    return this.#slotOf.size
  }

  all(): FutureBitmap[] {
    return this.#slots.filter(bitmap => bitmap !== undefined)
  }

  /** Of two with one name the first. */
  find(nameBytes: Uint8Array): FutureBitmap | undefined {
    return this.#slots[this.#slotOf.get(keyOf(nameBytes)) ?? -1]
  }

  /** Whether QEMU, to which what precedes a NUL is the whole, takes one of them to have this name. */
  isTaken(nameBytes: Uint8Array): boolean {
    return this.#shown.has(keyOf(nameBytes))
  }

  add(bitmap: FutureBitmap): void {
    this.#put(bitmap, this.#slots.length)
  }

  remove(bitmap: FutureBitmap): void {
    this.#slots[this.#take(bitmap)] = undefined
  }

  /** In its place, under another name perhaps. */
  replace(before: FutureBitmap, after: FutureBitmap): void {
    this.#put(after, this.#take(before))
  }

  #put(bitmap: FutureBitmap, slot: number): void {
    const key = keyOf(bitmap.nameBytes)
    this.#slots[slot] = bitmap
    if (!this.#slotOf.has(key)) this.#slotOf.set(key, slot)
    this.#shown.set(untilNul(key), (this.#shown.get(untilNul(key)) ?? 0) + 1)
  }

  #take({ nameBytes }: FutureBitmap): number {
    const key = keyOf(nameBytes)
    const slot = this.#slotOf.get(key)!
    this.#slotOf.delete(key)
    const left = this.#shown.get(untilNul(key))! - 1
    if (left > 0) this.#shown.set(untilNul(key), left)
    else this.#shown.delete(untilNul(key))
    return slot
  }
}

const latin1 = new TextDecoder('latin1')

/** A character for each byte: not every name is UTF-8. */
function keyOf(nameBytes: Uint8Array): string {
  return latin1.decode(nameBytes)
}

function untilNul(key: string): string {
  const nul = key.indexOf('\0')
  return nul < 0 ? key : key.slice(0, nul)
}
