import { describe, expect, it } from 'vitest'
import { createEngine, type DirectoryEntry, type EntryViolation, parseBitmapDirectory } from '../src/index.js'
import { concat, type EntryFields, encodeEntry, goodGeometry } from './encode.js'
import { arenaMark } from './model.js'

const engine = createEngine()

function parseOne(fields: Partial<EntryFields>, geometry: Partial<typeof goodGeometry> = {}): DirectoryEntry {
  const bytes = encodeEntry(fields)
  const entries = parseBitmapDirectory(engine, bytes, 1, { ...goodGeometry, ...geometry })
  expect(entries).toHaveLength(1)
  return entries[0]!
}

const name = (length: number) => new Uint8Array(length).fill(0x61)

describe('a directory entry', () => {
  it('is decoded field by field', () => {
    const entry = parseOne({ flags: 0b10, name: new TextEncoder().encode('libvirt-ä') })
    expect(entry).toEqual({
      index: 0,
      entryOffset: 0,
      entryBytes: 40,
      tableOffset: 0x50000,
      tableSize: 1,
      flags: 2,
      inUse: false,
      auto: true,
      type: 1,
      granularityBits: 16,
      extraData: new Uint8Array(0),
      nameBytes: new TextEncoder().encode('libvirt-ä'),
      name: 'libvirt-ä',
      violations: [],
    })
  })

  it('says which flags are set', () => {
    const flags = [0, 1, 2, 3, 4].map(value => parseOne({ flags: value }))
    expect(flags.map(entry => [entry.inUse, entry.auto])).toEqual([
      [false, false],
      [true, false],
      [false, true],
      [true, true],
      [false, false],
    ])
  })

  it('keeps every byte of the name: a byte order mark, a NUL, what is no UTF-8', () => {
    expect(parseOne({ name: Uint8Array.of(0xef, 0xbb, 0xbf, 0x61) }).name).toBe('\ufeffa')
    expect(parseOne({ name: Uint8Array.of(0x61, 0, 0x62) }).name).toBe('a\0b')
    const entry = parseOne({ name: Uint8Array.of(0x61, 0xff) })
    expect(entry.name).toBe('a\ufffd')
    expect([...entry.nameBytes]).toEqual([0x61, 0xff])
  })

  it('hands out names and extra data as views of the caller’s bytes', () => {
    const bytes = encodeEntry({ extraData: Uint8Array.of(1, 2, 3), name: name(4) })
    const [entry] = parseBitmapDirectory(engine, bytes, 1, goodGeometry)
    expect(entry!.nameBytes.buffer).toBe(bytes.buffer)
    expect([entry!.extraData.byteOffset, entry!.extraData.length]).toEqual([24, 3])
    expect([entry!.nameBytes.byteOffset, entry!.nameBytes.length]).toEqual([27, 4])
  })
})

// Each fault alone, with its neighbours on the right side of the edge.
const HIGH = 2 ** 53 - 1
const faults: [string, Partial<EntryFields>, Partial<typeof goodGeometry>, EntryViolation[]][] = [
  ['table offset 0', { tableOffset: 0n }, {}, ['table-offset-zero']],
  ['table offset of one cluster', { tableOffset: 0x10000n }, {}, []],
  ['table offset bit 0', { tableOffset: 0x50001n }, {}, ['table-offset-unaligned']],
  ['table offset bit 15', { tableOffset: 0x58000n }, {}, ['table-offset-unaligned']],
  [
    'table offset bit 8, 512-byte clusters',
    { tableOffset: 0x50100n, tableSize: 4 },
    { clusterBits: 9 },
    ['table-offset-unaligned'],
  ],
  ['table offset bit 9, 512-byte clusters', { tableOffset: 0x50200n, tableSize: 4 }, { clusterBits: 9 }, []],
  [
    'table offset bit 20, 2 MiB clusters',
    { tableOffset: 0x300000n },
    { clusterBits: 21, fileBytes: HIGH },
    ['table-offset-unaligned'],
  ],
  [
    'table offset bit 21, 2 MiB clusters',
    { tableOffset: 0x200000n },
    { clusterBits: 21, fileBytes: HIGH },
    [],
  ],
  ['table ends with the file', { tableOffset: 0xf0000n }, { fileBytes: 0xf0008 }, []],
  [
    'table ends a byte after the file',
    { tableOffset: 0xf0000n },
    { fileBytes: 0xf0007 },
    ['table-past-end-of-file'],
  ],
  ['table offset bit 52', { tableOffset: 1n << 52n }, { fileBytes: HIGH }, []],
  ['table offset 2^53', { tableOffset: 1n << 53n }, { fileBytes: HIGH }, ['table-past-end-of-file']],
  ['table offset bit 63', { tableOffset: 1n << 63n }, { fileBytes: HIGH }, ['table-past-end-of-file']],
  [
    'table offset bits 16–63',
    { tableOffset: 0xffffffffffff0000n },
    { fileBytes: HIGH },
    ['table-past-end-of-file'],
  ],
  ['in-use table of no entries', { tableSize: 0, flags: 1 }, {}, ['table-size-zero']],
  ['table of no entries', { tableSize: 0 }, {}, ['table-size-zero', 'table-size-mismatch']],
  ['table of one entry too many', { tableSize: 2 }, {}, ['table-size-mismatch']],
  ['in-use table of one entry too many', { tableSize: 2, flags: 1 }, {}, []],
  ['in-use table of 512 MiB', { tableSize: 8192, flags: 1 }, { fileBytes: HIGH }, []],
  [
    'in-use table of more than 512 MiB',
    { tableSize: 8193, flags: 1 },
    { fileBytes: HIGH },
    ['table-too-large'],
  ],
  [
    'in-use table of 2^32 − 1',
    { tableSize: 2 ** 32 - 1, flags: 1 },
    { fileBytes: HIGH },
    ['table-too-large'],
  ],
  [
    'in-use table of 512 MiB, 512-byte clusters',
    { tableSize: 2 ** 20, flags: 1 },
    { clusterBits: 9, fileBytes: HIGH },
    [],
  ],
  [
    'in-use table of 512 MiB and 512',
    { tableSize: 2 ** 20 + 1, flags: 1 },
    { clusterBits: 9, fileBytes: HIGH },
    ['table-too-large'],
  ],
  [
    'in-use table of 512 MiB, 2 MiB clusters',
    { tableSize: 256, tableOffset: 1n << 21n, flags: 1 },
    { clusterBits: 21, fileBytes: HIGH },
    [],
  ],
  [
    'in-use table of 514 MiB',
    { tableSize: 257, tableOffset: 1n << 21n, flags: 1 },
    { clusterBits: 21, fileBytes: HIGH },
    ['table-too-large'],
  ],
  [
    'in-use table of 2^29 entries, whose bytes are 0 modulo 2^32',
    { tableSize: 2 ** 29, flags: 1 },
    {},
    ['table-past-end-of-file', 'table-too-large'],
  ],
  ['flag bit 2', { flags: 1 << 2 }, {}, []],
  ['flag bit 3', { flags: 1 << 3 }, {}, ['flags-reserved']],
  ['flag bit 31', { flags: 2 ** 31 }, {}, ['flags-reserved']],
  ['type 0', { type: 0 }, {}, ['type-unknown']],
  ['type 2', { type: 2 }, {}, ['type-unknown']],
  ['type 255', { type: 255 }, {}, ['type-unknown']],
  ['granularity 2^8', { granularityBits: 8 }, {}, ['granularity']],
  ['granularity 2^9', { granularityBits: 9, tableSize: 4 }, {}, []],
  ['granularity 2^31', { granularityBits: 31 }, {}, []],
  ['granularity 2^32', { granularityBits: 32 }, {}, ['granularity']],
  ['granularity 2^0', { granularityBits: 0 }, {}, ['granularity']],
  ['granularity 2^255', { granularityBits: 255 }, {}, ['granularity']],
  ['name of 0 bytes', { name: name(0) }, {}, ['name-empty']],
  ['name of 1 byte', { name: name(1) }, {}, []],
  ['name of 1,023 bytes', { name: name(1023) }, {}, []],
  ['name of 1,024 bytes', { name: name(1024) }, {}, ['name-too-long']],
  ['name of 65,535 bytes', { name: name(65535) }, {}, ['name-too-long']],
  ['extra data of 1 byte', { extraData: name(1) }, {}, ['extra-data']],
  ['extra data of 100,000 bytes', { extraData: name(100_000) }, {}, ['extra-data']],
]

describe('violations of an entry', () => {
  it.each(faults)('%s', (_, fields, geometry, expected) => {
    expect(parseOne(fields, geometry).violations).toEqual(expected)
  })

  it('are listed together, in the order of the list', () => {
    const all = { tableOffset: 0n, tableSize: 0, flags: 8, type: 0, granularityBits: 0, nameSize: 0 }
    expect(parseOne({ ...all, name: name(0), extraDataSize: 1 }).violations).toEqual([
      'truncated',
      'table-offset-zero',
      'table-size-zero',
      'flags-reserved',
      'type-unknown',
      'granularity',
      'name-empty',
      'extra-data',
    ])
  })
})

describe('the size of a table', () => {
  // ceil(ceil(ceil(size / granularity) / 8) / cluster): one entry holds 4,096 bits of 512-byte clusters.
  const perEntry = 512 * 8 * 65536
  it.each([
    [perEntry, 1],
    [perEntry + 511, 1],
    [perEntry + 512, 2],
    [2 * perEntry, 2],
    [2 * perEntry + 512, 3],
    [512, 1],
    [1023, 1],
  ])('for a disk of %i bytes is %i', (virtualSize, tableSize) => {
    const geometry = { clusterBits: 9, virtualSize, fileBytes: 2 ** 40 }
    for (const size of [tableSize - 1, tableSize, tableSize + 1].filter(count => count > 0)) {
      const mismatch = size === tableSize ? [] : ['table-size-mismatch']
      expect(parseOne({ tableSize: size }, geometry).violations).toEqual(mismatch)
      expect(parseOne({ tableSize: size, flags: 1 }, geometry).violations).toEqual([])
    }
  })

  it('can be none for a disk of no sectors', () => {
    for (const virtualSize of [0, 511]) {
      expect(parseOne({ tableSize: 0 }, { virtualSize }).violations).toEqual(['table-size-zero'])
      expect(parseOne({ tableSize: 1 }, { virtualSize }).violations).toEqual(['table-size-mismatch'])
    }
  })

  it('does not overflow for the largest disk', () => {
    const virtualSize = 2 ** 53 - 1
    // 2^53 / 2^31 = 2^22 bits, 2^19 bytes, 8 clusters.
    expect(parseOne({ granularityBits: 31, tableSize: 8 }, { virtualSize }).violations).toEqual([])
    const fine = parseOne({ granularityBits: 9, tableSize: 1 }, { virtualSize })
    expect(fine.violations).toEqual(['table-size-mismatch'])
  })
})

describe('the end of a directory', () => {
  it('cuts name and extra data where the bytes end', () => {
    const entry = parseOne({ extraDataSize: 2 ** 32 - 1, nameSize: 65535, name: name(8) })
    expect(entry.violations).toEqual(['truncated', 'name-too-long', 'extra-data'])
    expect(entry.entryBytes).toBe(Math.ceil((24 + 2 ** 32 - 1 + 65535) / 8) * 8)
    expect(entry.extraData).toHaveLength(8)
    expect(entry.nameBytes).toHaveLength(0)
  })

  it.each([2 ** 31 - 1, 2 ** 31, 2 ** 32 - 16, 2 ** 32 - 1])('is never found by wrapping around %i', size => {
    const bytes = concat([encodeEntry({ extraDataSize: size }), encodeEntry()])
    const entries = parseBitmapDirectory(engine, bytes, 2, goodGeometry)
    expect(entries.map(entry => entry.violations)).toEqual([['truncated', 'extra-data']])
    expect(entries[0]!.entryBytes).toBeGreaterThan(size)
  })

  it('may come right after the last entry, not a byte before', () => {
    const bytes = encodeEntry({ name: name(7) })
    expect(bytes).toHaveLength(32)
    expect(parseBitmapDirectory(engine, bytes, 1, goodGeometry)[0]!.violations).toEqual([])
    // Here only a byte of the padding is missing: the entry is still whole by its sizes, but it runs over.
    const short = parseBitmapDirectory(engine, bytes.subarray(0, 31), 1, goodGeometry)
    expect(short[0]!.violations).toEqual(['truncated'])
    expect(short[0]!.nameBytes).toHaveLength(7)
    expect(parseBitmapDirectory(engine, bytes.subarray(0, 24), 1, goodGeometry)[0]!.nameBytes).toHaveLength(0)
    expect(parseBitmapDirectory(engine, bytes.subarray(0, 23), 1, goodGeometry)).toEqual([])
    expect(parseBitmapDirectory(engine, bytes.subarray(0, 0), 1, goodGeometry)).toEqual([])
  })

  it('stops a count that claims more entries than there are', () => {
    const bytes = concat([encodeEntry(), encodeEntry(), new Uint8Array(16)])
    for (const count of [3, 65535, 2 ** 32 - 1]) {
      expect(parseBitmapDirectory(engine, bytes, count, goodGeometry)).toHaveLength(2)
    }
  })

  it('is where the count says, when there are bytes behind', () => {
    const bytes = concat([encodeEntry(), encodeEntry(), encodeEntry()])
    expect(parseBitmapDirectory(engine, bytes, 0, goodGeometry)).toEqual([])
    expect(parseBitmapDirectory(engine, bytes, 2, goodGeometry).map(entry => entry.index)).toEqual([0, 1])
  })
})

describe('a large directory', () => {
  it('of 65,535 entries is parsed whole, and no entry beyond', () => {
    const count = 65535
    const encoder = new TextEncoder()
    const parts = Array.from({ length: count + 1 }, (_, i) => encodeEntry({ name: encoder.encode(`b${i}`) }))
    const bytes = concat(parts)
    const mark = arenaMark(engine)
    const entries = parseBitmapDirectory(engine, bytes, count, goodGeometry)
    expect(entries).toHaveLength(count)
    const wrong = entries.filter((e, i) => e.index !== i || e.name !== `b${i}` || e.violations.length > 0)
    expect(wrong).toEqual([])
    expect(arenaMark(engine)).toBe(mark)
    // nb_bitmaps is a u32, but 65,535 is all that an image can have.
    expect(parseBitmapDirectory(engine, bytes, 2 ** 32 - 1, goodGeometry)).toHaveLength(count)
  })

  it('goes on behind extra data that is longer than a window', () => {
    for (const size of [65535, 65536, 65536 - 24 - 2, 65536 * 2, 200_003]) {
      const long = encodeEntry({ extraData: new Uint8Array(size).fill(0xff) })
      const entries = parseBitmapDirectory(
        engine,
        concat([encodeEntry(), long, encodeEntry()]),
        3,
        goodGeometry,
      )
      expect(entries.map(entry => entry.violations)).toEqual([[], ['extra-data'], []])
      expect(entries[2]!.entryOffset).toBe(32 + long.length)
      expect(entries[1]!.extraData).toHaveLength(size)
    }
  })

  it('has entries that straddle a window at any of their bytes', () => {
    for (let lead = 65536 - 64; lead <= 65536 + 8; lead += 8) {
      const first = encodeEntry({ extraData: new Uint8Array(lead - 24), name: name(0) })
      expect(first).toHaveLength(lead)
      const bytes = concat([first, encodeEntry({ name: name(21), flags: 2 }), encodeEntry()])
      const entries = parseBitmapDirectory(engine, bytes, 3, goodGeometry)
      expect(entries.map(entry => entry.entryOffset)).toEqual([0, lead, lead + 48])
      expect(entries[1]).toMatchObject({ flags: 2, name: 'a'.repeat(21), violations: [] })
    }
  })
})
