/**
 * Seeded random numbers: xoshiro128** 1.1 (Blackman, Vigna 2018, public domain), its state filled from the
 * seed by 32-bit FNV-1a and the finaliser of MurmurHash3. The same seed gives the same numbers on every
 * machine and in every version of Node, so a failing test is repeated by its seed alone.
 */
export class Random {
  readonly #seed: string
  readonly #state: Uint32Array

  constructor(seed: number | string) {
    this.#seed = String(seed)
    this.#state = stateFrom(this.#seed)
  }

  /** A generator with this very state, as the known answers of xoshiro128** are given. */
  static fromState(a: number, b: number, c: number, d: number): Random {
    const random = new Random(`${a},${b},${c},${d}`)
    random.#state.set([a, b, c, d])
    return random
  }

  /** The next 32 bits, 0 … 2^32−1. */
  uint32(): number {
    const s = this.#state as unknown as [number, number, number, number]
    const result = Math.imul(rotl(Math.imul(s[1], 5), 7), 9) >>> 0
    const t = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = rotl(s[3], 11)
    return result
  }

  /**
   * A whole number of lo … hi, both included, each as likely.
   *
   * @throws RangeError unless both are safe integers, lo ≤ hi, and hi − lo < 2^53.
   */
  int(lo: number, hi: number): number {
    const span = hi - lo + 1
    if (!Number.isSafeInteger(lo) || !Number.isSafeInteger(hi) || hi < lo || span > 2 ** 53) {
      throw new RangeError(`no whole number between ${lo} and ${hi}`)
    }
    // Draws beyond the last multiple of span are thrown away: a bare remainder would favour the low ones.
    const limit = 2 ** 53 - (2 ** 53 % span)
    for (;;) {
      const draw = (this.uint32() >>> 11) * 2 ** 32 + this.uint32()
      if (draw < limit) return lo + (draw % span)
    }
  }

  /** 0 ≤ x < 1, with 32 bits. */
  float(): number {
    return this.uint32() / 2 ** 32
  }

  /** True with probability p (default a half). */
  bool(p = 0.5): boolean {
    return this.float() < p
  }

  /** One of the items. @throws RangeError for an empty list. */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('nothing to pick from')
    return items[this.int(0, items.length - 1)] as T
  }

  /** A new list in random order (Fisher–Yates). */
  shuffle<T>(items: readonly T[]): T[] {
    const list = [...items]
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.int(0, i)
      const kept = list[i] as T
      list[i] = list[j] as T
      list[j] = kept
    }
    return list
  }

  /** n random bytes. */
  bytes(n: number): Uint8Array {
    const out = new Uint8Array(n)
    for (let i = 0; i < n; i += 4) {
      let word = this.uint32()
      for (let j = i; j < n && j < i + 4; j++) {
        out[j] = word & 0xff
        word >>>= 8
      }
    }
    return out
  }

  /**
   * A generator of its own, told only by this one's seed and the label: what is drawn here before or after
   * does not change it, so a new draw in one part of a test leaves the other parts as they were.
   */
  fork(label: number | string): Random {
    return new Random(`${this.#seed}/${label}`)
  }
}

function rotl(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k))
}

function stateFrom(seed: string): Uint32Array {
  let hash = 0x811c9dc5
  for (const byte of new TextEncoder().encode(seed)) hash = Math.imul(hash ^ byte, 0x01000193)
  const state = new Uint32Array(4)
  for (let i = 0; i < 4; i++) {
    hash = (hash + 0x9e3779b9) | 0
    let word = hash
    word = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
    word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35)
    state[i] = word ^ (word >>> 16)
  }
  // All zeros is the one state that xoshiro never leaves; four different counters can't all hash to it,
  // since the finaliser is a bijection.
  return state
}
