// Every length from 0 to 1,024 bits, at every alignment of 0 to 15 bytes, of every density: against models that look
// at one bit at a time. What is expected grows with the length by one bit, so that each case costs its comparison only.
import { describe, expect, it } from 'vitest'
import { createEngine, type Lane, type MergeOperation } from '../src/index.js'
import { bitAt, densities, patterned, sameBytes, seeded, setBit } from './model.js'

const MOST = 1024
const BYTES = MOST / 8
/** Around what an operation may touch: must stay as it was. */
const GUARD = 24
const engine = createEngine({ arenaBytes: 64 * 1024 })
const alignments = Array.from({ length: 16 }, (_, i) => i)

const models: Record<MergeOperation, (a: number, b: number) => number> = {
  union: (a, b) => a | b,
  intersection: (a, b) => a & b,
  difference: (a, b) => a & (1 - b),
  xor: (a, b) => a ^ b,
}
const operations = Object.keys(models) as MergeOperation[]

/** A lane at an address that is `alignment` more than a multiple of 16. */
function aligned(alignment: number, byteLength = BYTES + GUARD): Lane {
  return engine.subLane(engine.lane(byteLength + alignment), alignment)
}

/** Two lanes for each alignment, of each density. */
function everywhere(
  use: (a: Lane, b: Lane, random: (limit: number) => number, density: string) => void,
): void {
  for (const [number, density] of densities.entries()) {
    const random = seeded(number + 1)
    for (const alignment of alignments) {
      engine.scratch(() => {
        const a = aligned(alignment)
        const b = aligned((alignment * 7 + number) % 16)
        patterned(a.bytes, density, random)
        patterned(b.bytes, densities[random(densities.length)]!, random)
        use(a, b, random, density)
      })
    }
  }
}

describe.each(operations)('%s', operation => {
  it('and its count, of every length in bytes', () => {
    const model = models[operation]
    everywhere((dst, src) => {
      const original = dst.bytes.slice()
      const source = src.bytes.slice()
      const expected = original.slice()
      let set = 0
      for (let length = 0; length <= BYTES; length++) {
        dst.bytes.set(original)
        engine.merge(operation, dst, src, length)
        sameBytes(dst.bytes, expected, `${length} bytes`)
        dst.bytes.set(original)
        if (engine.mergeCount(operation, dst, src, length) !== set)
          throw new Error(`count of ${length} bytes`)
        sameBytes(dst.bytes, expected, `${length} bytes, counted`)
        for (let i = length * 8; i < length * 8 + 8; i++) {
          const bit = model(bitAt(original, i), bitAt(source, i))
          setBit(expected, i, bit)
          set += bit
        }
      }
      sameBytes(src.bytes, source, 'the source')
    })
  })
})

describe('complement', () => {
  it('inverts, clears the rest of its last byte and leaves what follows', () => {
    everywhere(dst => {
      const original = dst.bytes.slice()
      const inverted = original.slice()
      for (let bits = 0; bits <= MOST; bits++) {
        dst.bytes.set(original)
        engine.complement(dst, bits)
        const last = bits >> 3
        const tail = inverted[last]!
        if (bits % 8 !== 0) inverted[last] = tail & ((1 << (bits % 8)) - 1)
        sameBytes(dst.bytes, inverted, `${bits} bits`)
        inverted[last] = tail
        setBit(inverted, bits, 1 - bitAt(original, bits))
      }
    })
  })
})

describe('fillRange', () => {
  it.each([0, 1] as const)('gives every length from any bit the value %i', value => {
    everywhere((dst, _, random) => {
      const original = dst.bytes.slice()
      const first = random(72)
      const expected = original.slice()
      for (let bits = 0; bits <= MOST; bits++) {
        dst.bytes.set(original)
        engine.fillRange(dst, first, bits, value)
        sameBytes(dst.bytes, expected, `${bits} bits from ${first}`)
        setBit(expected, first + bits, value)
      }
    })
  })
})

describe('count and countRange', () => {
  it('of every length, from any bit, cut at every place', () => {
    everywhere((src, _, random) => {
      const first = random(72)
      let set = 0
      let whole = 0
      const total = engine.countRange(src, first, MOST)
      for (let bits = 0; bits <= MOST; bits++) {
        if (engine.countRange(src, first, bits) !== set) throw new Error(`${bits} bits from ${first}`)
        if (set + engine.countRange(src, first + bits, MOST - bits) !== total)
          throw new Error(`cut at ${bits}`)
        if (bits % 8 === 0 && engine.count(src, bits / 8) !== whole) throw new Error(`${bits / 8} bytes`)
        set += bitAt(src.bytes, first + bits)
        whole += bitAt(src.bytes, bits)
      }
    })
  })
})

describe('equals', () => {
  it('sees each bit that differs, and none behind the end', () => {
    everywhere((a, b, random) => {
      b.bytes.set(a.bytes)
      for (let bit = 0; bit < MOST; bit++) {
        b.bytes[bit >> 3]! ^= 1 << (bit & 7)
        const length = (bit >> 3) + 1
        if (engine.equals(a, b, length) || !engine.equals(a, b, length - 1)) throw new Error(`bit ${bit}`)
        if (engine.equals(a, b, length + random(BYTES - length + 1))) throw new Error(`bit ${bit}`)
        b.bytes[bit >> 3]! ^= 1 << (bit & 7)
        if (!engine.equals(a, b, length)) throw new Error(`${length} bytes`)
      }
    })
  })
})

describe('firstViolation and isSubset', () => {
  it('of every length', () => {
    everywhere((a, b) => {
      let first = -1
      for (let bits = 0; bits <= MOST; bits++) {
        if (engine.firstViolation(a, b, bits) !== first) throw new Error(`${bits} bits`)
        if (engine.isSubset(a, b, bits) !== first < 0) throw new Error(`${bits} bits`)
        if (first < 0 && bitAt(a.bytes, bits) > bitAt(b.bytes, bits)) first = bits
      }
    })
  })

  it('finds one bit wherever it is', () => {
    everywhere((a, b) => {
      b.bytes.set(a.bytes)
      for (let bit = 0; bit < MOST; bit++) {
        const before = [bitAt(a.bytes, bit), bitAt(b.bytes, bit)] as const
        setBit(a.bytes, bit, 1)
        setBit(b.bytes, bit, 0)
        if (engine.firstViolation(a, b, MOST) !== bit) throw new Error(`bit ${bit}`)
        if (engine.firstViolation(a, b, bit) !== -1) throw new Error(`bit ${bit}, behind the end`)
        setBit(a.bytes, bit, before[0])
        setBit(b.bytes, bit, before[1])
      }
    })
  })
})

describe('nextSet and nextClear', () => {
  it('from every bit, below every length', () => {
    everywhere((src, _, random) => {
      for (const value of [0, 1] as const) {
        const next = (from: number, bits: number) =>
          value === 1 ? engine.nextSet(src, from, bits) : engine.nextClear(src, from, bits)
        let found = -1
        for (let from = MOST - 1; from >= 0; from--) {
          if (bitAt(src.bytes, from) === value) found = from
          if (next(from, MOST) !== found) throw new Error(`from ${from}`)
          const bits = from + random(MOST - from + 1)
          if (next(from, bits) !== (found < bits ? found : -1)) throw new Error(`from ${from} below ${bits}`)
        }
        for (let bits = 0; bits <= MOST; bits++) {
          if (next(0, bits) !== (found < bits ? found : -1)) throw new Error(`below ${bits}`)
          if (next(bits, bits) !== -1) throw new Error(`from the end, ${bits}`)
        }
      }
    })
  })
})

const shifts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22]

describe('refine', () => {
  it.each(shifts)('by 2^%i, every length from any position', shift => {
    everywhere((dst, coarse, random) => {
      dst.bytes.fill(0xa5)
      const coarseBit = random(16)
      const phase = [0, random(2 ** shift), 2 ** shift - 1][random(3)]!
      if (coarseBit + ((phase + MOST) >> shift) >= BYTES * 8) return
      const expected = dst.bytes.slice()
      for (let bits = 0; bits <= MOST; bits++) {
        dst.bytes.fill(0xa5)
        engine.refine(coarse, coarseBit, shift, dst, bits, phase)
        sameBytes(dst.bytes, expected, `${bits} bits from ${coarseBit}, phase ${phase}`)
        // The rest of a byte is cleared when its first bit is written.
        if (bits % 8 === 0) expected[bits >> 3] = 0
        setBit(expected, bits, bitAt(coarse.bytes, coarseBit + ((phase + bits) >> shift)))
      }
    })
  })

  it.each(shifts)('by 2^%i, cut at every place, is the same', shift => {
    const random = seeded(shift)
    engine.scratch(() => {
      const coarse = aligned(random(16))
      patterned(coarse.bytes, 'half', random)
      const whole = aligned(random(16))
      const part = aligned(random(16))
      const phase = random(2 ** shift)
      engine.refine(coarse, 0, shift, whole, MOST - 2, phase)
      for (let cut = 0; cut <= MOST - 2; cut++) {
        engine.refine(coarse, (phase + cut) >> shift, shift, part, MOST - 2 - cut, (phase + cut) % 2 ** shift)
        for (let i = cut; i < MOST - 2; i++) {
          if (bitAt(part.bytes, i - cut) !== bitAt(whole.bytes, i)) throw new Error(`cut at ${cut}: bit ${i}`)
        }
      }
    })
  })
})

describe('refineMerge', () => {
  it.each(operations.flatMap(operation => shifts.map(shift => [operation, shift] as const)))(
    '%s by 2^%i, every length from any position',
    (operation, shift) => {
      const random = seeded(shift)
      for (let round = 0; round < 16; round++) {
        engine.scratch(() => {
          const dst = aligned(round)
          const coarse = aligned(random(16))
          patterned(dst.bytes, densities[random(densities.length)]!, random)
          patterned(coarse.bytes, densities[round % densities.length]!, random)
          const coarseBit = random(8)
          const phase = round % 2 === 0 ? 0 : random(2 ** shift)
          if (coarseBit + ((phase + MOST) >> shift) >= BYTES * 8) return
          const original = dst.bytes.slice()
          const expected = original.slice()
          for (let bits = 0; bits <= MOST; bits++) {
            dst.bytes.set(original)
            engine.refineMerge(operation, coarse, coarseBit, shift, dst, bits, phase)
            sameBytes(dst.bytes, expected, `${bits} bits from ${coarseBit}, phase ${phase}`)
            const fine = bitAt(coarse.bytes, coarseBit + ((phase + bits) >> shift))
            setBit(expected, bits, models[operation](bitAt(original, bits), fine))
          }
        })
      }
    },
  )
})

describe('coarsen', () => {
  it.each(shifts)('by 2^%i, every length to any bit', shift => {
    everywhere((src, dst, random) => {
      const original = dst.bytes.slice()
      const expected = original.slice()
      const first = random(72)
      for (let bits = 0; bits <= MOST; bits++) {
        dst.bytes.set(original)
        engine.coarsen(src, bits, shift, dst, first)
        sameBytes(dst.bytes, expected, `${bits} bits to ${first}`)
        if (bitAt(src.bytes, bits)) setBit(expected, first + (bits >> shift), 1)
      }
    })
  })

  it.each(shifts)('by 2^%i, cut at every coarse bit that begins with a byte, is the same', shift => {
    const random = seeded(shift)
    engine.scratch(() => {
      const src = aligned(3)
      patterned(src.bytes, 'sparse', random)
      const [whole, parts] = [aligned(5), aligned(9)]
      engine.coarsen(src, MOST, shift, whole, 0)
      const step = Math.max(8, 2 ** shift)
      for (let cut = 0; cut <= MOST; cut += step) {
        parts.bytes.fill(0)
        engine.coarsen(src, cut, shift, parts, 0)
        engine.coarsen(engine.subLane(src, cut / 8), MOST - cut, shift, parts, cut >> shift)
        expect(engine.equals(whole, parts, BYTES)).toBe(true)
      }
    })
  })
})
