import fc from 'fast-check'
import { describe, it } from 'vitest'
import { createEngine } from '../src/index.js'
import { bitAt, laneFrom, randomBits, sameBytes, seeded, setBit } from './model.js'

const engine = createEngine({ arenaBytes: 2 * 1024 * 1024 })
const shifts = Array.from({ length: 22 }, (_, i) => i + 1)
/** Fine bits for each window: 256 KiB, as the readers above feed them. */
const WINDOW_BITS = 2 ** 21

/** Enough fine bits for several windows and, with wide shifts, for several coarse bits; a multiple of nothing. */
function fineTotal(shift: number): number {
  return (shift >= 20 ? 2 ** 23 : 2 ** 21) + 12_345
}

describe('refine', () => {
  it.each(shifts)('by 2^%i, window by window, gives each fine bit its coarse one', shift => {
    const random = seeded(shift)
    const total = fineTotal(shift)
    const coarse = new Uint8Array(Math.ceil(Math.ceil(total / 2 ** shift) / 8))
    for (let i = 0; i < coarse.length; i++) coarse[i] = random(3) === 0 ? random(256) : 0
    if (shift >= 19) coarse.fill(0b10110)
    engine.scratch(() => {
      const src = engine.lane(coarse.length)
      src.bytes.set(coarse)
      const dst = engine.lane(WINDOW_BITS / 8)
      for (let start = 0; start < total; start += WINDOW_BITS) {
        const bits = Math.min(WINDOW_BITS, total - start)
        dst.bytes.fill(0xa5)
        engine.refine(src, Math.floor(start / 2 ** shift), shift, dst, bits)
        for (let i = 0; i < bits; i++) {
          if (bitAt(dst.bytes, i) !== bitAt(coarse, (start + i) >> shift)) throw new Error(`bit ${start + i}`)
        }
        const touched = Math.ceil(bits / 8)
        sameBytes(
          dst.bytes.subarray(touched),
          new Uint8Array(WINDOW_BITS / 8 - touched).fill(0xa5),
          'the rest',
        )
      }
    })
  })

  it('equals the bitwise model from any coarse bit, for any number of bits', () => {
    const cases = fc.record({
      seed: fc.nat(),
      shift: fc.integer({ min: 1, max: 12 }),
      from: fc.nat(900),
      fineBits: fc.oneof(fc.nat(300), fc.nat(40_000)),
      offset: fc.nat(16),
    })
    fc.assert(
      fc.property(cases, ({ seed, shift, from, fineBits, offset }) =>
        engine.scratch(() => {
          const coarseBit = shift < 3 ? from & ~7 : from
          const coarseBits = coarseBit + Math.ceil(fineBits / 2 ** shift)
          const src = laneFrom(engine.lane(Math.ceil(coarseBits / 8) + offset), offset)
          randomBits(src.bytes, seeded(seed))
          const dst = laneFrom(engine.lane(Math.ceil(fineBits / 8) + offset + 40), offset)
          dst.bytes.fill(0xa5)
          const expected = dst.bytes.slice()
          engine.refine(src, coarseBit, shift, dst, fineBits)
          for (let i = 0; i < fineBits; i++) setBit(expected, i, bitAt(src.bytes, coarseBit + (i >> shift)))
          // Whole bytes are written: the tail of the last one is the caller's to mask.
          engine.maskTail(dst, fineBits, Math.ceil(fineBits / 8))
          for (let i = fineBits; i < Math.ceil(fineBits / 8) * 8; i++) setBit(expected, i, 0)
          sameBytes(dst.bytes, expected, `${fineBits} bits by 2^${shift} from ${coarseBit}`)
        }),
      ),
      { numRuns: 150 },
    )
  })
})

describe('coarsen', () => {
  it.each(shifts)('by 2^%i, window by window, sets a coarse bit for any of its fine ones', shift => {
    const random = seeded(shift)
    const total = fineTotal(shift)
    const fine = new Uint8Array(Math.ceil(total / 8) + 8)
    for (let i = 0; i < 3000; i++) setBit(fine, random(total), 1)
    // A stretch of set bits, and one that ends at the last bit; all behind it is garbage.
    fine.fill(0xff, 1000, 5000)
    setBit(fine, total - 1, random(2))
    const expected = new Uint8Array(Math.ceil(Math.ceil(total / 2 ** shift) / 8))
    for (let i = 0; i < total; i++) if (bitAt(fine, i)) setBit(expected, i >> shift, 1)
    for (let i = total; i < fine.length * 8; i++) setBit(fine, i, 1)

    engine.scratch(() => {
      const src = engine.lane(WINDOW_BITS / 8)
      const dst = engine.lane(expected.length)
      for (let start = 0; start < total; start += WINDOW_BITS) {
        const bits = Math.min(WINDOW_BITS, total - start)
        src.bytes.fill(0xff)
        src.bytes.set(fine.subarray(start / 8, Math.min(fine.length, (start + WINDOW_BITS) / 8)))
        engine.coarsen(src, bits, shift, dst, start >> shift)
      }
      sameBytes(dst.bytes, expected, 'coarse bits')
    })
  })

  it('ORs into what is there, from any bit and for any number of bits, and ignores what follows', () => {
    const cases = fc.record({
      seed: fc.nat(),
      shift: fc.integer({ min: 1, max: 12 }),
      dstBit: fc.nat(900),
      fineBits: fc.oneof(fc.nat(300), fc.nat(40_000)),
      offset: fc.nat(16),
    })
    fc.assert(
      fc.property(cases, ({ seed, shift, dstBit, fineBits, offset }) =>
        engine.scratch(() => {
          const random = seeded(seed)
          const src = laneFrom(engine.lane(Math.ceil(fineBits / 8) + offset), offset)
          randomBits(src.bytes, random)
          for (let i = fineBits; i < src.bytes.length * 8; i++) setBit(src.bytes, i, 1)
          const coarseBits = dstBit + Math.ceil(fineBits / 2 ** shift)
          const dst = laneFrom(engine.lane(Math.ceil(coarseBits / 8) + offset + 40), offset)
          const expected = randomBits(dst.bytes, random).slice()
          for (let i = 0; i < fineBits; i++) {
            if (bitAt(src.bytes, i)) setBit(expected, dstBit + (i >> shift), 1)
          }
          engine.coarsen(src, fineBits, shift, laneFrom(dst, 0), dstBit)
          sameBytes(dst.bytes, expected, `${fineBits} bits by 2^${shift} from ${dstBit}`)
        }),
      ),
      { numRuns: 150 },
    )
  })

  it('of what refine made is what refine took', () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.integer({ min: 1, max: 10 }),
        fc.integer({ min: 1, max: 300 }),
        (seed, shift, n) =>
          engine.scratch(() => {
            const src = engine.lane(Math.ceil(n / 8))
            randomBits(src.bytes, seeded(seed))
            engine.maskTail(src, n, src.bytes.length)
            const fine = engine.lane(Math.ceil((n * 2 ** shift) / 8))
            const back = engine.lane(src.bytes.length)
            engine.refine(src, 0, shift, fine, n * 2 ** shift)
            engine.coarsen(fine, n * 2 ** shift, shift, back, 0)
            sameBytes(back.bytes, src.bytes, 'round trip')
          }),
      ),
      { numRuns: 150 },
    )
  })
})
