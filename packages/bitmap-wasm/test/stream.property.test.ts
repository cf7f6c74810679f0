// The bounded-memory paths: what comes in windows says the same as what comes in one piece.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  BitmapFormatError,
  createEngine,
  createTableDecoder,
  type DirectoryEntry,
  DirectoryReader,
  type DirectoryReaderOptions,
  parseBitmapDirectory,
  tableRunKinds,
} from '../src/index.js'
import { concat, type EntryFields, encodeEntry, encodeTable, goodGeometry } from './encode.js'
import { seeded } from './model.js'

const engine = createEngine()

function readInWindows(
  bytes: Uint8Array,
  cuts: readonly number[],
  options: Partial<DirectoryReaderOptions> = {},
): DirectoryEntry[] {
  return engine.scratch(() => {
    const reader = new DirectoryReader(engine, {
      ...goodGeometry,
      bitmapCount: 65535,
      directoryBytes: bytes.length,
      ...options,
    })
    const out: DirectoryEntry[] = []
    const take = (all: ReturnType<typeof reader.push>) => {
      for (const records of all) {
        expect(records.firstIndex).toBe(out.length)
        for (let i = 0; i < records.count; i++) {
          const entry = records.entry(i)
          expect({
            entryOffset: records.entryOffset(i),
            entryBytes: records.entryBytes(i),
            tableOffset: records.tableOffset(i),
            tableSize: records.tableSize(i),
            flags: records.flags(i),
            type: records.type(i),
            granularityBits: records.granularityBits(i),
            violations: records.violations(i),
            name: records.name(i),
            nameBytes: new Uint8Array(records.nameBytes(i)),
          }).toEqual({
            entryOffset: entry.entryOffset,
            entryBytes: entry.entryBytes,
            tableOffset: entry.tableOffset,
            tableSize: entry.tableSize,
            flags: entry.flags,
            type: entry.type,
            granularityBits: entry.granularityBits,
            violations: entry.violations,
            name: entry.name,
            nameBytes: entry.nameBytes,
          })
          expect(records.violationMask(i) === 0).toBe(entry.violations.length === 0)
          out.push(entry)
        }
      }
      expect(reader.entries).toBe(out.length)
    }
    let from = 0
    for (const cut of [...cuts, bytes.length]) {
      take(reader.push(bytes.subarray(from, cut)))
      from = cut
    }
    take(reader.finish())
    return out
  })
}

const size = fc.oneof(fc.nat(40), fc.nat(1100))
const anyEntry = fc.record({
  tableOffset: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  tableSize: fc.nat(2 ** 32 - 1),
  flags: fc.nat(7),
  granularityBits: fc.nat(40),
  extraData: fc.constantFrom(0, 0, 0, 9).map(length => new Uint8Array(length).fill(length)),
  name: size.map(length => new Uint8Array(length).fill(0x41 + (length % 26))),
})

describe('DirectoryReader', () => {
  it('says what parseBitmapDirectory says, wherever the bytes are cut', () => {
    const bytes = concat([
      encodeEntry({ name: new Uint8Array(3).fill(0x61) }),
      encodeEntry({ extraData: new Uint8Array(5).fill(7), name: new Uint8Array(9).fill(0x62) }),
      encodeEntry({ flags: 8 }),
    ])
    for (let length = 0; length <= bytes.length; length++) {
      const part = bytes.subarray(0, length)
      const expected = parseBitmapDirectory(engine, part, 65535, goodGeometry)
      for (let cut = 0; cut <= length; cut++) expect(readInWindows(part, [cut])).toEqual(expected)
      // Known to be longer than what there is.
      expect(readInWindows(part, [], { directoryBytes: length + 1000 })).toEqual(expected)
      expect(readInWindows(bytes, [7], { directoryBytes: length })).toEqual(expected)
    }
  })

  it('of any entries in any windows', () => {
    fc.assert(
      fc.property(
        fc.array(anyEntry, { maxLength: 200 }),
        fc.array(fc.nat(200_000), { maxLength: 6 }),
        fc.nat(30),
        (fields, cuts, short) => {
          const whole = concat(fields.map(encodeEntry))
          const bytes = whole.subarray(0, Math.max(0, whole.length - short))
          const at = cuts.map(cut => cut % (bytes.length + 1)).sort((a, b) => a - b)
          expect(readInWindows(bytes, at)).toEqual(parseBitmapDirectory(engine, bytes, 65535, goodGeometry))
        },
      ),
      { numRuns: 60 },
    )
  })

  it('steps over entries that no window holds', () => {
    const big: Partial<EntryFields> = { extraData: new Uint8Array(200_000).fill(1) }
    const bytes = concat([encodeEntry(), encodeEntry(big), encodeEntry(), encodeEntry(big)])
    const expected = parseBitmapDirectory(engine, bytes, 65535, goodGeometry)
    for (const cuts of [[], [60_000], [70_000, 199_000, 200_100], [bytes.length - 24]]) {
      const entries = readInWindows(bytes, cuts)
      const short = ({ extraData: _, nameBytes: __, name: ___, ...rest }: DirectoryEntry) => rest
      expect(entries.map(short)).toEqual(expected.map(short))
      expect(entries[2]).toEqual(expected[2])
    }
  })

  it('reads 65,535 names of 65,535 entries, and not one more', () => {
    const names = Array.from({ length: 65536 }, (_, i) => `checkpoint-${i}`)
    const bytes = concat(names.map(name => encodeEntry({ name: new TextEncoder().encode(name) })))
    engine.scratch(() => {
      const reader = new DirectoryReader(engine, {
        ...goodGeometry,
        bitmapCount: 65536,
        directoryBytes: bytes.length,
      })
      let at = 0
      for (let from = 0; from < bytes.length; from += 100_000) {
        for (const records of reader.push(bytes.subarray(from, from + 100_000))) {
          for (let i = 0; i < records.count; i++) {
            if (records.violationMask(i) !== 0 || records.name(i) !== names[at])
              throw new Error(`entry ${at}`)
            at++
          }
        }
      }
      expect([...reader.finish()]).toEqual([])
      expect(at).toBe(65535)
      expect(reader.bytesUsed).toBe(bytes.length - encodeEntry({ name: new Uint8Array(16) }).length)
    })
  })

  it('of random bytes ends, with no more entries than fit', () => {
    const random = seeded(5)
    for (let round = 0; round < 300; round++) {
      const zeros = random(4) * 85
      const bytes = Uint8Array.from({ length: random(3000) }, () => (random(256) < zeros ? 0 : random(256)))
      const cuts = [random(bytes.length + 1)]
      const expected = parseBitmapDirectory(engine, bytes, 65535, goodGeometry)
      const actual = readInWindows(bytes, cuts)
      expect(actual.map(entry => [entry.entryOffset, entry.violations])).toEqual(
        expected.map(entry => [entry.entryOffset, entry.violations]),
      )
    }
  })
})

function thrown(call: () => unknown): BitmapFormatError {
  try {
    call()
  } catch (error) {
    if (error instanceof BitmapFormatError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe('strict directories', () => {
  const good = encodeEntry()
  const strict = { strict: true }
  const both = (bytes: Uint8Array, count: number, cuts: number[] = []) => {
    const one = thrown(() => parseBitmapDirectory(engine, bytes, count, goodGeometry, strict))
    const other = thrown(() => readInWindows(bytes, cuts, { ...strict, bitmapCount: count }))
    expect(other).toEqual(one)
    expect(other.message).toBe(one.message)
    const { code, index, offset, violations, message } = one
    return { code, index, offset, violations, message }
  }

  it('take what QEMU takes', () => {
    const bytes = concat([good, encodeEntry({ flags: 2 })])
    expect(parseBitmapDirectory(engine, bytes, 2, goodGeometry, strict)).toHaveLength(2)
    for (let cut = 0; cut <= bytes.length; cut++) {
      expect(readInWindows(bytes, [cut], { ...strict, bitmapCount: 2 })).toHaveLength(2)
    }
  })

  it('throw at the first entry with a violation', () => {
    const bytes = concat([good, encodeEntry({ flags: 8, type: 0 }), encodeEntry({ type: 0 })])
    const expected = {
      code: 'directory-entry',
      index: 1,
      offset: 32,
      violations: ['flags-reserved', 'type-unknown'],
      message: 'bitmap directory entry 1 at offset 0x20: flags-reserved, type-unknown',
    }
    for (const cuts of [[], [10], [40], [64]]) expect(both(bytes, 3, cuts)).toEqual(expected)
  })

  it('throw where entries are missing, cut, or followed by something', () => {
    expect(both(good, 2)).toMatchObject({ code: 'directory-short', index: 1, offset: 32 })
    expect(both(new Uint8Array(0), 1)).toMatchObject({ code: 'directory-short', index: 0, offset: 0 })
    expect(both(concat([good, good]), 1)).toMatchObject({ code: 'directory-size', index: 1, offset: 32 })
    expect(both(good.subarray(0, 31), 1)).toMatchObject({
      code: 'directory-entry',
      violations: ['truncated'],
    })
  })

  it('give their lanes back', () => {
    const mark = engine.mark()
    both(encodeEntry({ type: 9 }), 1)
    expect(engine.mark()).toBe(mark)
  })
})

describe('table runs as columns', () => {
  const geometry = { clusterBits: 9, bitmapBytes: 2 ** 40, fileBytes: 2 ** 30 }
  const random = seeded(17)

  /** Long and short runs of each kind, and some lies. */
  function table(entries: number): bigint[] {
    const raw: bigint[] = []
    while (raw.length < entries) {
      const n = [1, 2, 5, 40, 300][random(5)]!
      const host = BigInt(random(2 ** 20)) << 9n
      const kind = random(8)
      for (let i = 0; i < n; i++) {
        if (kind < 2) raw.push(0n)
        else if (kind === 2) raw.push(1n)
        else if (kind === 3) raw.push(BigInt(random(2 ** 31)) << BigInt(random(30)))
        else raw.push(host + (BigInt(i) << 9n))
      }
    }
    return raw.slice(0, entries)
  }

  it('are the runs that decode() gives, and join over windows', () => {
    for (let round = 0; round < 40; round++) {
      const raw = table(3000)
      const windowEntries = [1, 7, 64, 1000, 4096][round % 5]!
      engine.scratch(() => {
        const decoder = createTableDecoder(engine, geometry, windowEntries)
        const whole = createTableDecoder(engine, geometry, raw.length)
        encodeTable(raw, whole.window.bytes)
        const expected: [string, number, number, number | undefined][] = []
        for (const run of whole.decode(0, raw.length)) {
          const hostOffset = run.kind === 'data' ? run.hostOffset : undefined
          expected.push([run.kind, run.firstEntry, run.count, hostOffset])
        }
        const joined: typeof expected = []
        for (let first = 0; first < raw.length; first += windowEntries) {
          const entries = raw.slice(first, first + windowEntries)
          encodeTable(entries, decoder.window.bytes)
          for (const runs of decoder.runs(first, entries.length)) {
            for (let i = 0; i < runs.count; i++) {
              const kind = tableRunKinds[runs.kinds[i]!]!
              const count = runs.counts[i]!
              const host = kind === 'data' ? runs.hostOffsets[i] : undefined
              if (i === 0 && runs.continues) joined.at(-1)![2] += count
              else joined.push([kind, runs.firstEntries[i]!, count, host])
              const isInvalid = kind === 'invalid'
              if (isInvalid !== runs.violationMasks[i]! > 0) throw new Error('violations')
              if (isInvalid !== runs.violations(i).length > 0) throw new Error('names of violations')
              if (runs.raw(i) !== raw[runs.firstEntries[i]!]) throw new Error('raw')
            }
          }
        }
        // Through runs() of chunks that end with the room for 1,024 runs, decode() splits none: neither does it here.
        expect(joined).toEqual(expected)
      })
    }
  })

  it('of 2^20 entries in one kind are one run a window, and one in all', () => {
    for (const [fill, kind] of [
      [(view: DataView, i: number) => view.setBigUint64(i * 8, 0n), 'zeros'],
      [(view: DataView, i: number) => view.setBigUint64(i * 8, 1n), 'ones'],
      [
        (view: DataView, i: number, index: number) => view.setBigUint64(i * 8, BigInt(index + 1) << 9n),
        'data',
      ],
    ] as const) {
      engine.scratch(() => {
        const decoder = createTableDecoder(engine, geometry)
        const view = new DataView(decoder.window.bytes.buffer, decoder.window.ptr)
        let runs = 0
        for (let first = 0; first < 2 ** 20; first += 4096) {
          for (let i = 0; i < 4096; i++) fill(view, i, first + i)
          for (const chunk of decoder.runs(first, 4096)) {
            expect([chunk.count, tableRunKinds[chunk.kinds[0]!], chunk.counts[0]]).toEqual([1, kind, 4096])
            if (!chunk.continues) runs++
          }
        }
        expect(runs).toBe(1)
      })
    }
  })

  it('continue nothing after a gap, a step back or another place on disk', () => {
    engine.scratch(() => {
      const decoder = createTableDecoder(engine, geometry, 2)
      const continues = (first: number, raw: bigint[]) => {
        encodeTable(raw, decoder.window.bytes)
        return [...decoder.runs(first, raw.length)].map(runs => runs.continues)
      }
      expect(continues(0, [0x200n, 0x400n])).toEqual([false])
      expect(continues(2, [0x600n, 0x800n])).toEqual([true])
      expect(continues(4, [0x800n, 0xa00n])).toEqual([false])
      expect(continues(7, [0xc00n, 0xe00n])).toEqual([false])
      expect(continues(7, [0xc00n, 0xe00n])).toEqual([false])
      expect(continues(9, [2n, 2n])).toEqual([false])
      expect(continues(11, [2n, 0n])).toEqual([false])
      expect(continues(13, [0n, 0n])).toEqual([true])
    })
  })

  it('if strict throw at the first invalid entry, with its place', () => {
    engine.scratch(() => {
      const decoder = createTableDecoder(engine, geometry, 8, { strict: true })
      encodeTable([0n, 0x200n, 0x400n, 0x401n, 2n], decoder.window.bytes)
      expect([...decoder.decode(100, 3)]).toHaveLength(2)
      for (const take of [() => [...decoder.decode(100, 5)], () => [...decoder.runs(100, 5)]]) {
        const error = thrown(take)
        expect(error).toMatchObject({ code: 'table-entry', index: 103, offset: 824 })
        expect(error.violations).toEqual(['ones-with-offset'])
        expect(error.message).toBe('bitmap table entry 103 at offset 0x338: ones-with-offset')
      }
    })
  })
})
