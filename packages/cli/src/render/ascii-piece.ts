const PIECE_BYTES = 256 * 1024
/** Room for what is added after the last look at `full`: a few lines, or one with a file's name. */
const MARGIN = 32 * 1024

/** For {@link AsciiPiece.bytes}. */
export function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/**
 * Output in the making, of ASCII but for names, in one buffer that is used again and again. Maps can have hundreds of
 * millions of lines: strings for each would be garbage faster than it is collected (measured: 170 MB and growing
 * after 12 s, 106 MB/s through a pipe; so: 60 MB, 178 MB/s).
 */
export class AsciiPiece {
  readonly #bytes = Buffer.allocUnsafeSlow(PIECE_BYTES + MARGIN)
  #length = 0

  /** Time to take it. */
  get full(): boolean {
    return this.#length >= PIECE_BYTES
  }

  /** What was added so far; good until more is added. */
  take(): Uint8Array {
    const piece = this.#bytes.subarray(0, this.#length)
    this.#length = 0
    return piece
  }

  text(ascii: string): void {
    const bytes = this.#bytes
    let at = this.#length
    for (let i = 0; i < ascii.length; i++) bytes[at++] = ascii.charCodeAt(i)
    this.#length = at
  }

  /** For what is written again and again: 20 ns, where text takes 3 ns for each character. */
  bytes(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  /** @param number a safe integer, not negative; spaces before it make it `width` wide */
  number(number: number, width = 0): void {
    const digits = digitsOf(number)
    for (let i = digits; i < width; i++) this.#bytes[this.#length++] = 0x20
    this.#length += digits
    let at = this.#length
    // Whole numbers of 32 bits are divided much faster.
    let rest = number
    while (rest >= 1e9) {
      const high = Math.floor(rest / 1e9)
      let low = (rest - high * 1e9) | 0
      for (let i = 0; i < 9; i++) {
        const next = (low / 10) | 0
        this.#bytes[--at] = 0x30 + low - next * 10
        low = next
      }
      rest = high
    }
    let low = rest | 0
    do {
      const next = (low / 10) | 0
      this.#bytes[--at] = 0x30 + low - next * 10
      low = next
    } while (low > 0)
  }
}

function digitsOf(number: number): number {
  let digits = 1
  for (let power = 10; number >= power; power *= 10) digits++
  return digits
}
