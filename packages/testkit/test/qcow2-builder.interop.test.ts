import { readFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { buildQcow2, dirtyMap, needs, qemuImg, tempDir, writeQcow2 } from '../src/index.js'
import { extentsOf } from './extents.js'

const peers = needs('qemu-img', 'qemu-nbd', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())

const clean = { corruptions: 0, leaks: 0, 'check-errors': 0, status: 0 }
let serial = 0
const fresh = (): string => dir.file(`b${serial++}.qcow2`)

describe.skipIf(peers.skip)(`crafted images and the real QEMU${peers.label}`, () => {
  const clusterBits = Array.from({ length: 13 }, (_, i) => 9 + i)
  it.each(clusterBits)(
    'is valid with clusters of 2^%i bytes, at each refcount width',
    async bits => {
      const virtualSize = 5 * 2 ** 20 + 3 * 512
      for (let refcountOrder = 0; refcountOrder <= 6; refcountOrder++) {
        const file = fresh()
        const granularityBits = 9 + ((bits + refcountOrder) % 12)
        const granules = Math.ceil(virtualSize / 2 ** granularityBits)
        const dirty = [0, 2, 3, granules - 1].filter(bit => bit < granules)
        const bitmaps = [{ name: 'b0', granularityBits, dirty }]
        writeQcow2(file, { clusterBits: bits, refcountOrder, virtualSize, bitmaps })
        expect(await qemuImg.check(file)).toMatchObject(clean)
        expect(await qemuImg.info(file)).toMatchObject({
          'virtual-size': virtualSize,
          'cluster-size': 2 ** bits,
          'format-specific': {
            data: {
              compat: '1.1',
              'refcount-bits': 2 ** refcountOrder,
              bitmaps: [{ name: 'b0', flags: ['auto'], granularity: 2 ** granularityBits }],
            },
          },
        })
        expect(await dirtyMap(file, 'b0')).toEqual(extentsOf(virtualSize, 2 ** granularityBits, dirty))
      }
    },
    600_000,
  )

  it('writes zeros, ones and data entries as QEMU reads them', async () => {
    const file = fresh()
    const clusterSize = 512
    const granularity = 512
    const perEntry = clusterSize * 8
    const virtualSize = 4 * perEntry * granularity + 512 * 9
    const data = new Uint8Array([0x81, 0, 1])
    const table = ['ones', 'zeros', data, 'zeros', 'ones'] as const
    writeQcow2(file, {
      clusterBits: 9,
      virtualSize,
      bitmaps: [
        { name: 'mixed', granularityBits: 9, table },
        { name: 'full', granularityBits: 9, fill: 'ones' },
        { name: 'off', granularityBits: 9, flags: 0 },
      ],
    })
    const dirty = [
      ...Array.from({ length: perEntry }, (_, i) => i),
      ...[0, 7, 16].map(bit => 2 * perEntry + bit),
      ...Array.from({ length: 9 }, (_, i) => 4 * perEntry + i),
    ]
    expect(await dirtyMap(file, 'mixed')).toEqual(extentsOf(virtualSize, granularity, dirty))
    expect(await dirtyMap(file, 'full')).toEqual([
      { offset: 0, length: virtualSize, type: 1, description: 'dirty' },
    ])
    expect(await dirtyMap(file, 'off')).toEqual([
      { offset: 0, length: virtualSize, type: 0, description: 'clean' },
    ])
    expect(await qemuImg.check(file)).toMatchObject(clean)
  })

  it('makes 16 TiB with tables of zeros, at small cost', async () => {
    const file = fresh()
    const virtualSize = 2 ** 44
    const { bytes } = writeQcow2(file, {
      virtualSize,
      bitmaps: [
        { name: '64k', dirty: [2 ** 28 - 1] },
        { name: '4k', granularityBits: 12, dirty: [5] },
      ],
    })
    expect(bytes.length).toBeLessThan(2 ** 20)
    expect(await qemuImg.check(file)).toMatchObject(clean)
    expect(await dirtyMap(file, '64k')).toEqual(extentsOf(virtualSize, 65536, [2 ** 28 - 1]))
  }, 600_000)

  it('names: UTF-8 and the longest', async () => {
    const file = fresh()
    const names = ['größe 7/ü', 'x'.repeat(1023), 'ends in space ']
    writeQcow2(file, { bitmaps: names.map((name, i) => ({ name, dirty: [i] })) })
    const image = await qemuImg.info(file)
    expect(image['format-specific']?.data.bitmaps?.map(bitmap => bitmap.name)).toEqual(names)
    expect(await qemuImg.check(file)).toMatchObject(clean)
  })

  it('takes a predicate and a generator for the dirty bits', async () => {
    const file = fresh()
    function* odd(): Iterable<number> {
      for (let bit = 1; bit < 16; bit += 2) yield bit
    }
    const bitmaps = [
      { name: 'p', dirty: (bit: number) => bit % 2 === 1 },
      { name: 'g', dirty: odd() },
    ]
    writeQcow2(file, { bitmaps })
    const expected = extentsOf(2 ** 20, 65536, [...odd()])
    expect(await dirtyMap(file, 'p')).toEqual(expected)
    expect(await dirtyMap(file, 'g')).toEqual(expected)
  })

  it('version 2, backing files and every kind of header extension', async () => {
    const base = fresh()
    writeQcow2(base, { version: 2 })
    expect(await qemuImg.info(base)).toMatchObject({ 'format-specific': { data: { compat: '0.10' } } })
    const file = fresh()
    writeQcow2(file, {
      headerTail: new Uint8Array(16).fill(0xee),
      backingFile: base,
      backingFormat: 'qcow2',
      featureNames: true,
      extensions: [
        { magic: 0x11223344, data: new Uint8Array([1, 2, 3]), first: true },
        { magic: 0x55667788, data: new Uint8Array(0) },
      ],
      bitmaps: [{ name: 'b0' }],
    })
    expect(await qemuImg.info(file)).toMatchObject({
      'full-backing-filename': base,
      'backing-filename-format': 'qcow2',
      'format-specific': { data: { bitmaps: [{ name: 'b0' }] } },
    })
    expect(await qemuImg.check(file)).toMatchObject(clean)
  })

  it('writes the header and the feature names that QEMU writes', async () => {
    const real = fresh()
    await qemuImg.create(real, 2 ** 20)
    const { bytes } = buildQcow2({ featureNames: true })
    const theirs = readFileSync(real).subarray(0, 65536)
    // The order of the tables in the file is each builder's own: L1 at 40, refcount table at 48.
    expect(Buffer.from(bytes.subarray(0, 40))).toEqual(theirs.subarray(0, 40))
    expect(Buffer.from(bytes.subarray(56, 65536))).toEqual(theirs.subarray(56))
  })

  it('an external data file is opened by its name', async () => {
    const file = fresh()
    const raw = dir.file('data.raw')
    await qemuImg.create(raw, 2 ** 20, { format: 'raw' })
    writeQcow2(file, { dataFile: { name: raw, raw: true }, bitmaps: [{ name: 'b0', dirty: [3] }] })
    expect(await qemuImg.info(file)).toMatchObject({
      'format-specific': { data: { 'data-file': raw, 'data-file-raw': true } },
    })
    expect(await dirtyMap(file, 'b0')).toEqual(extentsOf(2 ** 20, 65536, [3]))
  })

  it('what is made wrong is wrong for QEMU', async () => {
    const stale = fresh()
    writeQcow2(stale, { bitmaps: [{ name: 'b0' }], bitmapsConsistent: false })
    expect((await qemuImg.info(stale))['format-specific']?.data.bitmaps).toBeUndefined()

    const wrongSize = fresh()
    writeQcow2(wrongSize, { bitmaps: [{ name: 'b0', claims: { tableSize: 2 } }] })
    await expect(qemuImg.info(wrongSize)).rejects.toThrow(/bitmap/i)

    const reserved = fresh()
    writeQcow2(reserved, { bitmaps: [{ name: 'b0' }], bitmapsExtension: { reserved: 1 } })
    await expect(qemuImg.info(reserved)).rejects.toThrow(/bitmap/i)

    const past = fresh()
    const outside = writeQcow2(past, { bitmaps: [{ name: 'b0', table: [2n ** 40n] }] })
    expect((await qemuImg.check(past)).corruptions).toBeGreaterThan(0)
    expect(outside.layout.bitmaps[0]?.data.size).toBe(0)
  })

  it('a short last cluster is no corruption', async () => {
    const file = fresh()
    const { bytes, layout } = writeQcow2(file, {
      bitmaps: [{ name: 'b0', dirty: [0, 15] }],
      lastClusterBytes: 2,
    })
    expect(bytes.length).toBe(layout.end - layout.clusterSize + 2)
    expect(await qemuImg.check(file)).toMatchObject(clean)
    expect(await dirtyMap(file, 'b0')).toEqual(extentsOf(2 ** 20, 65536, [0, 15]))
  })
})
