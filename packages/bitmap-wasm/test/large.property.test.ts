// Lanes longer than a piece of 256 KiB, which operations cut themselves into: the seams, and offsets behind them.
import { describe, expect, it } from 'vitest'
import { createEngine, type Lane, type MergeOperation } from '../src/index.js'
import { sameBytes, seeded } from './model.js'

const BYTES = 3 * 256 * 1024 + 1021
const BITS = BYTES * 8
const engine = createEngine({ arenaBytes: 8 * 2 ** 20 })

function filled(seed: number, sparse = false): Lane {
  const random = seeded(seed)
  const lane = engine.lane(BYTES)
  for (let i = 0; i < BYTES; i++) lane.bytes[i] = sparse && random(64) > 0 ? 0 : random(256)
  return lane
}

const popcount = (bytes: Uint8Array) => {
  let sum = 0
  for (const byte of bytes) for (let rest = byte; rest > 0; rest &= rest - 1) sum++
  return sum
}

describe('over several pieces', () => {
  it.each<[MergeOperation, (a: number, b: number) => number]>([
    ['union', (a, b) => a | b],
    ['intersection', (a, b) => a & b],
    ['difference', (a, b) => a & ~b],
    ['xor', (a, b) => a ^ b],
  ])('%s, its count, and refined', (operation, model) => {
    engine.scratch(() => {
      const [a, b] = [filled(1), filled(2)]
      const original = a.bytes.slice()
      const expected = original.map((byte, i) => model(byte, b.bytes[i]!))
      engine.merge(operation, a, b, BYTES)
      sameBytes(a.bytes, expected, operation)
      a.bytes.set(original)
      expect(engine.mergeCount(operation, a, b, BYTES)).toBe(popcount(expected))
      sameBytes(a.bytes, expected, 'counted')

      a.bytes.set(original)
      const fine = engine.lane(BYTES)
      engine.refine(b, 5, 4, fine, BITS - 3, 11)
      const merged = original.map((byte, i) => model(byte, fine.bytes[i]!))
      const tail = 0b11100000
      merged[BYTES - 1] = (merged[BYTES - 1]! & ~tail) | (original[BYTES - 1]! & tail)
      engine.refineMerge(operation, b, 5, 4, a, BITS - 3, 11)
      sameBytes(a.bytes, merged, 'refined')
    })
  })

  it('counts, ranges, complements and comparisons', () => {
    engine.scratch(() => {
      const a = filled(3)
      const b = engine.lane(BYTES)
      b.bytes.set(a.bytes)
      expect(engine.count(a, BYTES)).toBe(popcount(a.bytes))
      expect(engine.countRange(a, 8 * 1000, BITS - 8 * 1003)).toBe(
        popcount(a.bytes.subarray(1000, BYTES - 3)),
      )
      expect(engine.equals(a, b, BYTES)).toBe(true)
      expect(engine.firstViolation(a, b, BITS)).toBe(-1)
      engine.complement(b, BITS)
      sameBytes(
        b.bytes,
        a.bytes.map(byte => ~byte),
        'complement',
      )
      expect(engine.count(b, BYTES)).toBe(BITS - popcount(a.bytes))
      b.bytes.set(a.bytes)
      for (const bit of [0, 2 ** 21 - 1, 2 ** 21, 2 ** 22 + 77, BITS - 1]) {
        const byte = a.bytes[bit >> 3]!
        a.bytes[bit >> 3] = byte | (1 << (bit & 7))
        b.bytes[bit >> 3] = byte & ~(1 << (bit & 7))
        expect(engine.firstViolation(a, b, BITS)).toBe(bit)
        expect(engine.equals(a, b, BYTES)).toBe(false)
        a.bytes[bit >> 3] = byte
        b.bytes[bit >> 3] = byte
      }
    })
  })

  it('finds the next bit, and fills up to it', () => {
    engine.scratch(() => {
      const lane = engine.lane(BYTES)
      for (const bit of [0, 9, 2 ** 21 - 1, 2 ** 21, 2 ** 22 + 3, BITS - 1]) {
        lane.bytes.fill(0)
        engine.fillRange(lane, bit, 1, 1)
        expect(engine.count(lane, BYTES)).toBe(1)
        expect(engine.nextSet(lane, 0, BITS)).toBe(bit)
        expect(engine.nextSet(lane, Math.max(0, bit - 2 ** 20), BITS)).toBe(bit)
        expect(engine.nextSet(lane, bit + 1, BITS)).toBe(-1)
        engine.fillRange(lane, 0, bit, 1)
        expect(engine.nextClear(lane, 0, BITS)).toBe(bit + 1 < BITS ? bit + 1 : -1)
        engine.fillRange(lane, 3, BITS - 3, 1)
        expect(engine.countRange(lane, 3, BITS - 3)).toBe(BITS - 3)
        engine.fillRange(lane, 3, BITS - 4, 0)
        expect(engine.countRange(lane, 3, BITS - 3)).toBe(1)
      }
    })
  })

  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 17, 20, 21, 22])('coarsens and refines by 2^%i', shift => {
    engine.scratch(() => {
      const fine = filled(shift, true)
      const bits = BITS - 5
      const coarseBits = Math.ceil(bits / 2 ** shift)
      const coarse = engine.lane(Math.ceil((coarseBits + 3) / 8))
      engine.coarsen(fine, bits, shift, coarse, 3)
      const expected = new Uint8Array(coarse.bytes.length)
      for (let i = 0; i < BYTES; i++) {
        for (let rest = fine.bytes[i]!; rest > 0; rest &= rest - 1) {
          const bit = i * 8 + 31 - Math.clz32(rest & -rest)
          const at = 3 + (bit >> shift)
          if (bit < bits) expected[at >> 3]! |= 1 << (at & 7)
        }
      }
      sameBytes(coarse.bytes, expected, 'coarse')
      const back = engine.lane(BYTES)
      engine.refine(coarse, 3, shift, back, bits)
      expect(engine.isSubset(fine, back, bits)).toBe(true)
      expect(engine.nextSet(engine.subLane(back, BYTES - 1), 3, 8)).toBe(-1)
      coarse.bytes.fill(0)
      engine.coarsen(back, bits, shift, coarse, 3)
      sameBytes(coarse.bytes, expected, 'coarse again')
    })
  })
})
