// Bits to extents and back: every length, alignment and density, windows cut at every place.
import { describe, expect, it } from 'vitest'
import {
  createEngine,
  ExtentExtractor,
  ExtentPainter,
  extentsOf,
  type Lane,
  paintExtents,
} from '../src/index.js'
import { bitAt, densities, naiveExtents, patterned, sameBytes, seeded } from './model.js'

const engine = createEngine({ arenaBytes: 256 * 1024 })
const GRANULARITY = 512
const values = [1, 0] as const

function bitsOf(lane: Lane, bits: number): number[] {
  return Array.from({ length: bits }, (_, i) => bitAt(lane.bytes, i))
}

/** What the extents of a value are: the set bits' of the bits that have it. */
function expectedOf(bits: readonly number[], value: 0 | 1, limit: number): number[] {
  return naiveExtents(value === 1 ? bits : bits.map(bit => 1 - bit), GRANULARITY, limit)
}

function same(actual: readonly number[], expected: readonly number[], what: string): void {
  if (actual.length === expected.length && actual.every((n, i) => n === expected[i])) return
  throw new Error(`${what}: [${actual}], not [${expected}]`)
}

/** Every density at every alignment. */
function everywhere(byteLength: number, use: (lane: Lane, random: (limit: number) => number) => void): void {
  for (const [number, density] of densities.entries()) {
    const random = seeded(number + 7)
    for (let alignment = 0; alignment < 16; alignment++) {
      engine.scratch(() => {
        const lane = engine.subLane(engine.lane(byteLength + alignment), alignment)
        patterned(lane.bytes, density, random)
        use(lane, random)
      })
    }
  }
}

describe('extents', () => {
  it.each(values)('of value %i: of every length up to 1,024 bits, at every alignment', value => {
    everywhere(136, lane => {
      const bits = bitsOf(lane, 1024)
      const limit = 2 ** 40
      const extents = new ExtentExtractor(engine, { granularity: GRANULARITY, limit, value })
      // The extents of the first bits are those of all that begin in them, the last one clipped.
      const all = expectedOf(bits, value, limit)
      let numbers = 0
      for (let length = 0; length <= 1024; length++) {
        const end = length * GRANULARITY
        while (numbers < all.length && all[numbers]! < end) numbers += 2
        for (const _ of extents.push(lane, length)) throw new Error('a chunk')
        const actual = extents.finish() ?? new Float64Array(0)
        if (actual.length !== numbers)
          throw new Error(`${length} bits: ${actual.length} offsets, not ${numbers}`)
        for (let i = 0; i < numbers; i++) {
          if (actual[i] !== Math.min(all[i]!, end)) throw new Error(`${length} bits: offset ${i}`)
        }
      }
    })
  })

  it.each(values)('of value %i: cut into two windows at every place, the last granule clipped', value => {
    everywhere(600, (lane, random) => {
      // More than a block of 2,048 bits.
      const total = 4100 + random(600)
      const limit = total * GRANULARITY - random(GRANULARITY)
      const expected = expectedOf(bitsOf(lane, total), value, limit)
      const second = engine.lane(600)
      const extents = new ExtentExtractor(engine, { granularity: GRANULARITY, limit, value, roomBytes: 2048 })
      for (let cut = random(97); cut <= total; cut += 97) {
        for (let i = cut; i < total; i += 8) {
          let byte = 0
          for (let j = 0; j < 8 && i + j < total; j++) byte |= bitAt(lane.bytes, i + j) << j
          second.bytes[(i - cut) >> 3] = byte
        }
        const out: number[] = []
        for (const chunk of extents.push(lane, cut)) out.push(...chunk)
        for (const chunk of extents.push(second, total - cut)) out.push(...chunk)
        out.push(...(extents.finish() ?? []))
        same(out, expected, `cut at ${cut} of ${total}`)
      }
    })
  })

  it.each(values)('of value %i: runs without a lane', value => {
    engine.scratch(() => {
      const extents = new ExtentExtractor(engine, { granularity: 512, limit: 10 * 512, value })
      for (const [bit, bits] of [
        [0, 2],
        [1, 3],
        [0, 1],
        [1, 4],
      ] as const) {
        expect([...extents.pushRun(bit, bits)]).toEqual([])
      }
      const expected = expectedOf([0, 0, 1, 1, 1, 0, 1, 1, 1, 1], value, 10 * 512)
      expect([...extents.finish()!]).toEqual(expected)
    })
  })

  it.each(values)('as objects (value %i) are the same, and take no room while they wait', value => {
    everywhere(1200, (lane, random) => {
      const bits = 9000 + random(600)
      const limit = bits * GRANULARITY - random(GRANULARITY)
      const expected = expectedOf(bitsOf(lane, bits), value, limit)
      const mark = engine.mark()
      const out: number[] = []
      for (const { offset, length } of extentsOf(engine, lane, bits, {
        granularity: GRANULARITY,
        limit,
        value,
      })) {
        if (engine.mark() !== mark) throw new Error('room taken')
        out.push(offset, offset + length)
      }
      same(out, expected, `${bits} bits`)
    })
  })

  it('as objects end with the bits where no limit is given', () => {
    engine.scratch(() => {
      const lane = engine.lane(8)
      lane.bytes.fill(0xff)
      expect([...extentsOf(engine, lane, 13, { granularity: 512 })]).toEqual([
        { offset: 0, length: 13 * 512 },
      ])
      expect([...extentsOf(engine, lane, 13, { granularity: 512, value: 0 })]).toEqual([])
      for (const bits of [-1, 65, 0.5, Number.NaN]) {
        expect(() => extentsOf(engine, lane, bits, { granularity: 512 })).toThrow(RangeError)
      }
      expect(() => extentsOf(engine, lane, 1, { granularity: 0 })).toThrow(RangeError)
      expect(() => extentsOf(engine, lane, 1, { granularity: 1, value: 2 as 1 })).toThrow(RangeError)
    })
  })
})

describe('painting what was extracted', () => {
  it.each(values)('gives the bits back (value %i), in windows cut at every place', value => {
    everywhere(136, (lane, random) => {
      const bits = 1 + random(1024)
      const limit = bits * GRANULARITY - random(GRANULARITY)
      const extractor = new ExtentExtractor(engine, { granularity: GRANULARITY, limit, value })
      for (const _ of extractor.push(lane, bits)) throw new Error('a chunk')
      // In the engine's memory, or a copy out of it.
      const view = extractor.finish() ?? new Float64Array(0)
      const copy = view.slice()
      const dst = engine.lane(136)
      const window = { granularity: GRANULARITY, limit, value }
      for (let cut = 0; cut <= bits; cut += 1 + random(9)) {
        const extents = cut % 2 === 0 ? view : copy
        const blank = value === 1 ? 0 : 0xff
        dst.bytes.fill(blank)
        const done = paintExtents(engine, dst, extents, { ...window, firstBit: 0, bits: cut })
        for (let i = 0; i < bits; i++) {
          const expected = i < cut ? bitAt(lane.bytes, i) : 1 - value
          if (bitAt(dst.bytes, i) !== expected) throw new Error(`${bits} bits cut at ${cut}: bit ${i}`)
        }
        dst.bytes.fill(blank)
        const rest = extents.subarray(done)
        const after = done > 0 ? extents[done - 1]! : 0
        const all = paintExtents(engine, dst, rest, { ...window, firstBit: cut, bits: bits - cut, after })
        expect(all).toBe(rest.length)
        for (let i = cut; i < bits; i++) {
          if (bitAt(dst.bytes, i - cut) !== bitAt(lane.bytes, i)) throw new Error(`after ${cut}: bit ${i}`)
        }
      }
    })
  })

  it.each(values)('by a painter gives all windows (value %i)', value => {
    everywhere(600, (lane, random) => {
      const bits = random(4800)
      const limit = Math.max(0, bits * GRANULARITY - random(GRANULARITY))
      const extractor = new ExtentExtractor(engine, {
        granularity: GRANULARITY,
        limit,
        value,
        roomBytes: 1024,
      })
      const windowBits = [8, 64, 104, 2048, 8192][random(5)]!
      const painter = new ExtentPainter(engine, { granularity: GRANULARITY, limit, value, windowBits })
      // A painter begins again after finish().
      for (let round = 0; round < 2; round++) {
        let at = 0
        const check = (
          windows: Iterable<{ lane: Lane; firstBit: number; bits: number; touched: boolean }>,
        ) => {
          for (const window of windows) {
            if (window.firstBit !== at) throw new Error(`window at ${window.firstBit}, not ${at}`)
            for (let i = 0; i < window.bits; i++) {
              const bit = bitAt(window.lane.bytes, i)
              if (bit !== bitAt(lane.bytes, at + i)) throw new Error(`bit ${at + i}`)
              if (bit === value && !window.touched) throw new Error(`bit ${at + i} untouched`)
            }
            for (let i = window.bits; i < Math.ceil(window.bits / 8) * 8; i++) {
              if (bitAt(window.lane.bytes, i)) throw new Error(`tail bit ${i}`)
            }
            at += window.bits
          }
        }
        for (const chunk of extractor.push(lane, bits)) check(painter.push(chunk))
        const last = extractor.finish()
        if (last !== undefined) check(painter.push(last))
        check(painter.finish())
        expect(at).toBe(bits)
      }
    })
  })
})

describe('painting extents of another granularity', () => {
  it('sets what they touch and clears what they cover, for any granularity', () => {
    const random = seeded(99)
    for (let round = 0; round < 400; round++) {
      engine.scratch(() => {
        const granularity = [1, 3, 512, 1000, 65536, 2 ** 31][random(6)]!
        const granules = 1 + random(200)
        const limit = Math.max(1, granules * granularity - random(granularity))
        const offsets: number[] = []
        for (let at = random(3 * granularity); at < limit; ) {
          const end = Math.min(limit, at + 1 + random(3 * granularity))
          offsets.push(at, end)
          at = end + random(2 * granularity)
        }
        const count = Math.ceil(limit / granularity)
        const touched = new Uint8Array(32)
        const covered = new Uint8Array(32).fill(0xff)
        for (let i = 0; i < count; i++) {
          const [from, to] = [i * granularity, Math.min(limit, (i + 1) * granularity)]
          const pairs = offsets
            .filter((_, j) => j % 2 === 0)
            .map((start, j) => [start, offsets[j * 2 + 1]!] as const)
          if (pairs.some(([start, end]) => start < to && end > from)) touched[i >> 3]! |= 1 << (i & 7)
          if (pairs.some(([start, end]) => start <= from && end >= to)) covered[i >> 3]! &= ~(1 << (i & 7))
        }
        const dst = engine.lane(32)
        const window = { granularity, limit, firstBit: 0, bits: count }
        expect(paintExtents(engine, dst, Float64Array.from(offsets), window)).toBe(offsets.length)
        sameBytes(dst.bytes, touched, `touched, granularity ${granularity}`)
        dst.bytes.fill(0xff)
        paintExtents(engine, dst, Float64Array.from(offsets), { ...window, value: 0 })
        sameBytes(dst.bytes, covered, `covered, granularity ${granularity}`)
      })
    }
  })

  it('is exact near 2^53', () => {
    engine.scratch(() => {
      const limit = 2 ** 53 - 1
      const granularity = 2 ** 31
      const firstBit = 2 ** 22 - 64
      const start = limit - 3 * granularity
      const dst = engine.lane(8)
      const done = paintExtents(engine, dst, Float64Array.of(start, start + 1, limit - 1, limit), {
        granularity,
        limit,
        firstBit,
        bits: 64,
      })
      expect(done).toBe(4)
      expect(Array.from({ length: 64 }, (_, i) => i).filter(i => bitAt(dst.bytes, i) === 1)).toEqual([60, 63])
    })
  })

  it('copies long chunks piece by piece', () => {
    engine.scratch(() => {
      const extents = Float64Array.from({ length: 20_000 }, (_, i) => i * 512)
      const dst = engine.lane(2500)
      const window = { granularity: 512, limit: 2 ** 30, firstBit: 0 }
      const mark = engine.mark()
      expect(paintExtents(engine, dst, extents, { ...window, bits: 20_000 })).toBe(20_000)
      expect(dst.bytes.every(byte => byte === 0x55)).toBe(true)
      expect(paintExtents(engine, dst, extents, { ...window, bits: 4_097 })).toBe(4_098)
      expect(engine.mark()).toBe(mark)
    })
  })
})

describe('extents that cannot be', () => {
  const options = { granularity: 512, limit: 8192 }
  const bad = [
    [0],
    [512, 512],
    [512, 0],
    [0, 1024, 512, 2048],
    [0, 512, 0, 512],
    [Number.NaN, 512],
    [0, Number.NaN],
    [-512, 512],
    [0, 8193],
    [0, Number.POSITIVE_INFINITY],
    [Number.NEGATIVE_INFINITY, 1],
    [0.5, 512],
    [0, 511.5],
  ]
  it.each(bad.map(extents => [extents]))('%j are a RangeError', extents => {
    engine.scratch(() => {
      const mark = engine.mark()
      const dst = engine.lane(8)
      const chunk = Float64Array.from(extents)
      expect(() => paintExtents(engine, dst, chunk, { ...options, firstBit: 0, bits: 16 })).toThrow(
        RangeError,
      )
      expect(() => [...new ExtentPainter(engine, { ...options, windowBits: 8 }).push(chunk)]).toThrow(
        RangeError,
      )
      engine.release(mark)
    })
  })

  it('begin before the last one of the chunk before', () => {
    engine.scratch(() => {
      const painter = new ExtentPainter(engine, options)
      expect([...painter.push(Float64Array.of(1024, 2048))]).toEqual([])
      expect(() => [...painter.push(Float64Array.of(1024, 2048))]).toThrow(RangeError)
    })
  })

  it('and windows that the disk has not', () => {
    engine.scratch(() => {
      const dst = engine.lane(8)
      const other = createEngine().lane(8)
      const none = new Float64Array(0)
      const windows: [Lane, Parameters<typeof paintExtents>[3]][] = [
        [dst, { ...options, firstBit: 0, bits: 17 }],
        [dst, { ...options, firstBit: 1, bits: 16 }],
        [dst, { ...options, limit: 2 ** 30, firstBit: 0, bits: 65 }],
        [dst, { ...options, firstBit: -1, bits: 8 }],
        [dst, { ...options, firstBit: 0, bits: 8, after: Number.NaN }],
        [dst, { ...options, granularity: 0, firstBit: 0, bits: 8 }],
        [dst, { ...options, value: 3 as 1, firstBit: 0, bits: 8 }],
        [other, { ...options, firstBit: 0, bits: 8 }],
      ]
      for (const [lane, window] of windows) {
        expect(() => paintExtents(engine, lane, none, window)).toThrow(RangeError)
      }
      for (const windowBits of [0, 7, 12, -8, Number.NaN, 2 ** 32]) {
        expect(() => new ExtentPainter(engine, { ...options, windowBits })).toThrow(RangeError)
      }
    })
  })
})
