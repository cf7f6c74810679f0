import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import type { BitmapSource, StretchState } from './source.js'
import { sourceTerm, type Term, WINDOW_BITS, WINDOW_BYTES } from './terms.js'

/** A bitmap as one of a coarser granularity: a bit is set where any bit below it is. */
export function widenedSource(engine: BitmapEngine, source: BitmapSource, granularity: number): BitmapSource {
  return granularity > source.granularity ? new WidenedSource(engine, source, granularity) : source
}

class WidenedSource implements BitmapSource {
  readonly label: string
  readonly granularity: number
  readonly diskBytes: number
  readonly granules: number
  readonly #engine: BitmapEngine
  readonly #term: Term

  constructor(engine: BitmapEngine, source: BitmapSource, granularity: number) {
    this.label = source.label
    this.granularity = granularity
    this.diskBytes = source.diskBytes
    this.granules = Math.ceil(source.diskBytes / granularity)
    this.#engine = engine
    this.#term = sourceTerm(engine, source, -Math.log2(granularity / source.granularity))
  }

  peek(byteOffset: number, byteLength: number): Promise<StretchState> {
    return this.#term.peek(byteOffset * 8, this.#bits(byteOffset, byteLength))
  }

  async readInto(target: Uint8Array, byteOffset: number): Promise<void> {
    const mark = this.#engine.mark()
    try {
      const lane = this.#engine.lane(WINDOW_BYTES)
      for (let done = 0; done < target.byteLength; done += WINDOW_BYTES) {
        const part = target.subarray(done, done + WINDOW_BYTES)
        const bits = this.#bits(byteOffset + done, part.byteLength)
        const state = bits === 0 ? 'zeros' : await this.#term.evaluate(lane, (byteOffset + done) * 8, bits)
        if (state === 'mixed') {
          part.fill(0)
          part.set(lane.bytes.subarray(0, Math.ceil(bits / 8)))
        } else part.fill(state === 'ones' ? 0xff : 0)
      }
    } finally {
      this.#engine.release(mark)
    }
  }

  #bits(byteOffset: number, byteLength: number): number {
    return Math.max(0, Math.min(byteLength * 8, WINDOW_BITS, this.granules - byteOffset * 8))
  }
}
