// Bodies that are damaged in part: an error, and with force dirty, never clean.
import { buildQcow2, type Qcow2Spec } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import {
  type BitmapSourceOptions,
  createEngine,
  dirtyExtents,
  findBitmap,
  type ImageInspection,
  inspectImage,
  memoryStorage,
  openBitmap,
} from '../src/index.js'
import { countingStorage } from './counting.js'
import { collect } from './model.js'

const engine = createEngine()
const GRANULE = 512
/** Guest bytes that one table entry of 512-byte clusters stands for. */
const STRETCH = 512 * 8 * GRANULE

async function image(spec: Qcow2Spec): Promise<ImageInspection> {
  return inspectImage(memoryStorage(buildQcow2({ clusterBits: 9, virtualSize: 4 * STRETCH, ...spec }).bytes))
}

const extents = async (
  from: ImageInspection,
  name: string,
  options?: BitmapSourceOptions,
): Promise<number[]> =>
  collect(dirtyExtents(engine, [openBitmap(from, findBitmap(from, name), engine, options)]))

const table = (...entries: bigint[]): Qcow2Spec => ({
  bitmaps: [{ name: 'b', granularityBits: 9, table: entries }],
})

describe('bitmap table entries', () => {
  it.each([
    ['bit 1', 1n << 1n],
    ['bit 8', 1n << 8n],
    ['bit 56', 1n << 56n],
    ['bit 63', 1n << 63n],
    ['ones with an offset', 513n],
    ['past the end of the file', 1n << 30n],
    ['bit 55, the offset’s last', 1n << 55n],
  ])('%s: corrupt, and dirty by force', async (_, raw) => {
    const bad = await image(table(0n, raw, 1n, 0n))
    await expect(extents(bad, 'b')).rejects.toMatchObject({
      code: 'corrupt-image',
      details: { field: 'entry 1', found: expect.stringContaining(`0x${raw.toString(16)}`) },
    })
    expect(await extents(bad, 'b', { force: true })).toEqual([STRETCH, 3 * STRETCH])
  })

  it('bit 9 is the offset’s first: clusters of 512 bytes begin there', async () => {
    // The header itself, read as bits: QFI\xfb.
    const { bytes } = buildQcow2({ clusterBits: 9, virtualSize: 4 * STRETCH, ...table(512n) })
    bytes.fill(0, 512, 1024)
    bytes[512] = 0b101
    const read = await inspectImage(memoryStorage(bytes))
    expect(await extents(read, 'b')).toEqual([0, GRANULE, 2 * GRANULE, 3 * GRANULE])
  })

  it('bits 9 and 55 are looked at, in a file as large as that', async () => {
    const { bytes } = buildQcow2({
      clusterBits: 9,
      virtualSize: 4 * STRETCH,
      ...table((1n << 55n) | (1n << 9n)),
    })
    const asked: number[] = []
    const inner = memoryStorage(bytes)
    const storage = {
      ...inner,
      size: 2 ** 53 - 512,
      async readInto(target: Uint8Array, offset: number) {
        asked.push(offset)
        if (offset < bytes.length) await inner.readInto(target, offset)
      },
    }
    const read = await inspectImage(storage)
    // 2^55 is more than a number holds: past the end of every file.
    await expect(extents(read, 'b')).rejects.toMatchObject({ code: 'corrupt-image' })
    expect(Math.max(...asked)).toBeLessThan(bytes.length)
  })

  it.each([52, 47, 48, 40])('bit %i is part of the offset', async bit => {
    const { bytes } = buildQcow2({ clusterBits: 9, virtualSize: 4 * STRETCH, ...table(1n << BigInt(bit)) })
    const inner = memoryStorage(bytes)
    const asked: number[] = []
    const storage = {
      ...inner,
      size: 2 ** 53 - 512,
      async readInto(target: Uint8Array, offset: number) {
        asked.push(offset)
        if (offset < bytes.length) await inner.readInto(target, offset)
      },
    }
    await extents(await inspectImage(storage), 'b')
    expect(asked.at(-1)).toBe(2 ** bit)
  })
})

describe('a short last cluster', () => {
  const spec: Qcow2Spec = {
    virtualSize: STRETCH + 9 * GRANULE,
    bitmaps: [{ name: 'b', granularityBits: 9, table: ['zeros', new Uint8Array([0xff, 0xff])] }],
  }
  it('is fine where no bit lies beyond it; stale bits after the last are ignored', async () => {
    expect(await extents(await image({ ...spec, lastClusterBytes: 2 }), 'b')).toEqual([
      STRETCH,
      STRETCH + 9 * GRANULE,
    ])
  })
  it('is corrupt where bits are missing', async () => {
    const short = await image({ ...spec, lastClusterBytes: 1 })
    await expect(extents(short, 'b')).rejects.toMatchObject({ code: 'corrupt-image' })
    expect(await extents(short, 'b', { force: true })).toEqual([STRETCH, STRETCH + 9 * GRANULE])
  })
})

describe('in use', () => {
  const inUse = (tableSize: number): Qcow2Spec => ({
    bitmaps: [
      { name: 'b', flags: 1, granularityBits: 9, tableSize, table: ['zeros', 'ones', new Uint8Array([2])] },
    ],
  })
  it('is refused without force', async () => {
    await expect(extents(await image(inUse(4)), 'b')).rejects.toMatchObject({
      code: 'bitmap-inconsistent',
      details: { bitmap: 'b' },
    })
  })
  it.each([
    [1, [STRETCH, 4 * STRETCH]],
    [2, [STRETCH, 4 * STRETCH]],
    [3, [STRETCH, 2 * STRETCH, 2 * STRETCH + GRANULE, 2 * STRETCH + 2 * GRANULE, 3 * STRETCH, 4 * STRETCH]],
    [4, [STRETCH, 2 * STRETCH, 2 * STRETCH + GRANULE, 2 * STRETCH + 2 * GRANULE]],
    [9, [STRETCH, 2 * STRETCH, 2 * STRETCH + GRANULE, 2 * STRETCH + 2 * GRANULE]],
  ])('with a table of %i where 4 are due: what it does not speak of is dirty', async (size, expected) => {
    expect(await extents(await image(inUse(size)), 'b', { force: true })).toEqual(expected)
  })
  it('of a granularity that no table could hold', async () => {
    const fine = await image({
      virtualSize: 2 ** 42,
      l1Size: 1,
      bitmaps: [{ name: 'b', flags: 1, granularityBits: 9, tableSize: 1 }],
    })
    await expect(extents(fine, 'b', { force: true })).rejects.toMatchObject({ code: 'corrupt-image' })
  })
})

describe('stale', () => {
  it('is refused without force, and damage in it is a warning', async () => {
    const stale = await image({ ...table(1n), bitmapsConsistent: false, bitmapsExtension: { reserved: 1 } })
    expect(stale.bitmapDirectory).toMatchObject({ stale: true })
    expect(stale.findings.map(({ code, severity }) => [code, severity])).toEqual([
      ['bitmaps-extension-reserved-not-zero', 'warning'],
      ['bitmaps-stale', 'warning'],
    ])
    await expect(extents(stale, 'b')).rejects.toMatchObject({ code: 'bitmaps-stale' })
    expect(await extents(stale, 'b', { force: true })).toEqual([0, STRETCH])
  })
})

describe('names', () => {
  it('a missing one: says which there are', async () => {
    const some = await image({ bitmaps: [{ name: 'a' }, { name: 'größe' }] })
    expect(() => findBitmap(some, 'c')).toThrow(/has no bitmap 'c'; it has 'a', 'größe'/)
    const many = await image({ bitmaps: Array.from({ length: 30 }, (_, i) => ({ name: `n${i}` })) })
    expect(() => findBitmap(many, 'c')).toThrow(/'n19', and 10 more/)
    expect(() => findBitmap(some, 'A')).toThrow(expect.objectContaining({ code: 'bitmap-missing' }))
    const none = await image({})
    expect(() => findBitmap(none, 'c')).toThrow(/it has none/)
  })
  it('twice the same: neither is meant', async () => {
    const twice = await image({ bitmaps: [{ name: 'a' }, { name: 'b' }, { name: 'a', dirty: [1] }] })
    expect(twice.findings.map(({ code }) => code)).toEqual(['bitmap-name-duplicate'])
    expect(() => findBitmap(twice, 'a')).toThrow(expect.objectContaining({ code: 'corrupt-image' }))
    expect(findBitmap(twice, 'b').index).toBe(1)
    const [first, other] = twice.bitmapDirectory!.bitmaps
    expect(() => openBitmap(twice, first!, engine, { force: true })).toThrow(
      /another bitmap has the same name/,
    )
    expect(other!.unreadable).toBeUndefined()
  })
  it('bytes that are not UTF-8 are kept apart', async () => {
    const names = [new Uint8Array([0xff]), new Uint8Array([0xfe]), new TextEncoder().encode('\ufffd')]
    const odd = await image({ bitmaps: names.map(name => ({ name })) })
    expect(odd.findings).toEqual([])
    expect(odd.bitmapDirectory!.bitmaps.map(({ nameBytes }) => [...nameBytes])).toEqual(
      names.map(n => [...n]),
    )
    expect(findBitmap(odd, '\ufffd').index).toBe(2)
  })
  it('a NUL ends a name for QEMU: warned of, and a clash where QEMU sees one', async () => {
    const nul = await image({ bitmaps: [{ name: 'a\0x' }, { name: 'a\0y' }] })
    expect(nul.findings.map(({ code }) => code)).toEqual([
      'bitmap-name-nul',
      'bitmap-name-nul',
      'bitmap-name-duplicate',
    ])
    expect(findBitmap(nul, 'a\0y').index).toBe(1)
  })
  it('a byte order mark is part of a name', async () => {
    const marked = await image({ bitmaps: [{ name: '\ufeffa' }, { name: 'a' }] })
    expect(marked.bitmapDirectory!.bitmaps.map(({ name }) => name)).toEqual(['\ufeffa', 'a'])
  })
})

describe('extra data', () => {
  const extra = (flags: number): Qcow2Spec => ({
    bitmaps: [{ name: 'b', granularityBits: 9, flags, extraData: new Uint8Array(8), table: [1n] }],
  })
  it('that may be ignored is ignored; else the bitmap is not readable, even by force', async () => {
    expect(await extents(await image(extra(6)), 'b')).toEqual([0, STRETCH])
    const other = await image(extra(2))
    expect(() => openBitmap(other, findBitmap(other, 'b'), engine, { force: true })).toThrow(
      expect.objectContaining({ code: 'corrupt-image' }),
    )
  })
})

describe('reads', () => {
  const bytesOf = (spec: Qcow2Spec) => buildQcow2({ virtualSize: 2 ** 40, ...spec })

  it('inspecting an image takes three', async () => {
    const { bytes, layout } = bytesOf({
      bitmaps: Array.from({ length: 50 }, (_, i) => ({ name: `b${i}`, dirty: [i] })),
    })
    const storage = countingStorage(bytes)
    await inspectImage(storage)
    expect(storage.reads).toEqual([
      { offset: 0, length: 112 },
      { offset: 0, length: 65536 },
      { offset: layout.directory!.offset, length: layout.directory!.size },
    ])
    const none = countingStorage(buildQcow2({}).bytes)
    await inspectImage(none)
    expect(none.reads.length).toBe(2)
  })

  it('a bitmap of zeros and ones entries: its table once, no data', async () => {
    const { bytes, layout } = bytesOf({
      bitmaps: [
        { name: 'b', table: ['zeros', 'ones'] },
        { name: 'c', dirty: [0] },
      ],
    })
    const storage = countingStorage(bytes)
    const read = await inspectImage(storage)
    storage.reads.length = 0
    await extents(read, 'b')
    const { table: place } = layout.bitmaps[0]!
    expect(storage.reads).toEqual([{ offset: place.offset, length: place.entries * 8 }])
  })

  it('an intersection with a clean bitmap reads no data', async () => {
    const { bytes, layout } = bytesOf({ bitmaps: [{ name: 'b' }, { name: 'c', dirty: [0, 2 ** 24 - 1] }] })
    const storage = countingStorage(bytes)
    const read = await inspectImage(storage)
    storage.reads.length = 0
    const sources = ['b', 'c'].map(name => openBitmap(read, findBitmap(read, name), engine))
    expect(await collect(dirtyExtents(engine, sources, { operation: 'intersection' }))).toEqual([])
    expect(storage.reads.map(({ offset }) => offset)).toEqual(
      layout.bitmaps.map(bitmap => bitmap.table.offset),
    )
  })

  it('clusters side by side are one read', async () => {
    const { bytes } = bytesOf({
      clusterBits: 9,
      virtualSize: 2 ** 30,
      bitmaps: [{ name: 'b', granularityBits: 9, dirty: bit => bit % 4096 === 0 }],
    })
    const storage = countingStorage(bytes)
    const read = await inspectImage(storage)
    storage.reads.length = 0
    expect((await extents(read, 'b')).length).toBe((2 ** 30 / 512 / 4096) * 2)
    expect(storage.reads.length).toBe(2)
  })
})
