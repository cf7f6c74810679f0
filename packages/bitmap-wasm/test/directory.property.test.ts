import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createEngine, parseBitmapDirectory } from '../src/index.js'
import { concat, encodeEntry, goodGeometry } from './encode.js'

const engine = createEngine()

const size = fc.oneof(fc.nat(40), fc.nat(1100), fc.nat(40_000))
const anyEntry = fc.record({
  tableOffset: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  tableSize: fc.nat(2 ** 32 - 1),
  flags: fc.nat(2 ** 32 - 1),
  type: fc.nat(255),
  granularityBits: fc.nat(255),
  extraData: size.map(length => new Uint8Array(length).fill(length)),
  name: size.map(length => new Uint8Array(length).fill(0x41 + (length % 26))),
})

describe('parseBitmapDirectory', () => {
  it('gives back each field of each entry, whatever the windows', () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { maxLength: 30 }), fields => {
        const parts = fields.map(encodeEntry)
        const entries = parseBitmapDirectory(engine, concat(parts), 65535, goodGeometry)
        expect(entries).toHaveLength(fields.length)
        let entryOffset = 0
        for (const [index, entry] of entries.entries()) {
          const { tableOffset, extraData, name, ...rest } = fields[index]!
          expect(entry).toMatchObject({ ...rest, index, entryOffset, entryBytes: parts[index]!.length })
          expect(entry.tableOffset).toBe(Number(tableOffset))
          expect(Buffer.compare(entry.extraData, extraData)).toBe(0)
          expect(Buffer.compare(entry.nameBytes, name)).toBe(0)
          expect(entry.violations).not.toContain('truncated')
          entryOffset += entry.entryBytes
        }
      }),
      { numRuns: 100 },
    )
  })

  it('says no more of a cut directory than of the whole one, but for its last entry', () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { minLength: 1, maxLength: 6 }), fc.nat(), (fields, random) => {
        const bytes = concat(fields.map(encodeEntry))
        const cut = bytes.subarray(0, random % bytes.length)
        const entries = parseBitmapDirectory(engine, bytes, 65535, goodGeometry)
        const some = parseBitmapDirectory(engine, cut, 65535, goodGeometry)
        const last = some.at(-1)
        const isWhole = last === undefined || !last.violations.includes('truncated')
        const whole = isWhole ? some : some.slice(0, -1)
        for (const [i, entry] of whole.entries()) {
          expect(entry.entryOffset).toBe(entries[i]!.entryOffset)
          expect(entry.violations).toEqual(entries[i]!.violations)
        }
        if (!isWhole) expect(last.violations.slice(1)).toEqual(entries[some.length - 1]!.violations)
        // Not one entry less than has its fixed 24 bytes.
        expect(some).toHaveLength(entries.filter(entry => entry.entryOffset + 24 <= cut.length).length)
      }),
      { numRuns: 150 },
    )
  })
})
