import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isZero, nextEntry, sameBytes } from '../src/format/bytes.js'

describe('nextEntry', () => {
  it.each([1, 2])('finds entries of %i × 8 bytes that are not 0, whichever half says so', width => {
    const entry = fc.constantFrom([0, 0], [0, 0], [0, 1], [-1, 0], [0x80, 0])
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 40 }), entries => {
        // The second 8 bytes of a wide entry say nothing of where a cluster is.
        const words = Int32Array.from(entries.flatMap(each => (width === 1 ? each : [...each, 7, 7])))
        const found = []
        const next = (from: number) => nextEntry(words, from, entries.length, width * 2)
        for (let i = next(0); i < entries.length; i = next(i + 1)) found.push(i)
        expect(found).toEqual(entries.flatMap(([high, low], i) => (high === 0 && low === 0 ? [] : [i])))
      }),
    )
  })
})

describe('isZero', () => {
  it('is so until any byte is not', () => {
    fc.assert(
      fc.property(fc.nat(40), fc.nat(39), fc.nat(3), (length, i, start) => {
        const bytes = new Uint8Array(64)
          .fill(0xff)
          .subarray(start * 4, start * 4 + length)
          .fill(0)
        expect(isZero(bytes)).toBe(true)
        if (i >= length) return
        bytes[i] = 1
        expect(isZero(bytes)).toBe(false)
      }),
    )
  })
})

describe('sameBytes', () => {
  const views = fc.record({ bytes: fc.uint8Array({ maxLength: 40 }), a: fc.nat(5), b: fc.nat(5) })
  const at = (bytes: Uint8Array, offset: number) => {
    const all = new Uint8Array(offset + bytes.byteLength + 3).fill(0xee)
    all.set(bytes, offset)
    return all.subarray(offset, offset + bytes.byteLength)
  }

  it('is so wherever they lie, until any one of them is another', () => {
    fc.assert(
      fc.property(views, fc.nat(39), ({ bytes, a, b }, i) => {
        const [one, other] = [at(bytes, a), at(bytes, b)]
        expect(sameBytes(one, other)).toBe(true)
        expect(sameBytes(one, at(Uint8Array.of(...bytes, 0), b))).toBe(false)
        if (i >= bytes.byteLength) return
        other[i] = other[i]! ^ 0x10
        expect(sameBytes(one, other)).toBe(false)
      }),
    )
  })
})
