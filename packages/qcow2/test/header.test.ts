import { buildQcow2, putU32, putU64, qemuFeatureNames } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import {
  CorruptImageError,
  checkHeader,
  extensionMagic,
  extensionName,
  inspectImage,
  memoryStorage,
  parseExtensions,
  parseFeatureNames,
  parseHeader,
  UnsupportedFeatureError,
} from '../src/index.js'

describe('parseHeader', () => {
  it('reads every field, at its offset and no other', () => {
    const bytes = new Uint8Array(112)
    bytes.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3])
    const u64 = { 8: 0x11, 24: 0x22, 40: 0x33, 48: 0x44, 64: 0x55, 72: 0x66, 80: 0x77, 88: 0x88 }
    const u32 = { 16: 1, 20: 16, 32: 2, 36: 3, 56: 4, 60: 5, 96: 6, 100: 112 }
    for (const [at, value] of Object.entries(u64)) putU64(bytes, Number(at), value)
    for (const [at, value] of Object.entries(u32)) putU32(bytes, Number(at), value)
    bytes[104] = 9
    expect(parseHeader(bytes, 'x')).toEqual({
      version: 3,
      backingFileOffset: 0x11,
      backingFileSize: 1,
      clusterBits: 16,
      size: 0x22,
      cryptMethod: 2,
      l1Size: 3,
      l1TableOffset: 0x33,
      refcountTableOffset: 0x44,
      refcountTableClusters: 4,
      nbSnapshots: 5,
      snapshotsOffset: 0x55,
      incompatibleFeatures: 0x66n,
      compatibleFeatures: 0x77n,
      autoclearFeatures: 0x88n,
      refcountOrder: 6,
      headerLength: 112,
      compressionType: 9,
    })
    // A header that ends before it has no compression type.
    putU32(bytes, 100, 104)
    expect(parseHeader(bytes, 'x').compressionType).toBe(0)
  })

  it('version 2 ends at 72: what follows is not looked at', () => {
    const { bytes } = buildQcow2({ version: 2, featureNames: true })
    bytes.fill(0xff, 72, 112)
    expect(parseHeader(bytes.subarray(0, 72), 'x')).toMatchObject({
      version: 2,
      headerLength: 72,
      refcountOrder: 4,
      incompatibleFeatures: 0n,
      autoclearFeatures: 0n,
      compressionType: 0,
    })
    expect(parseHeader(bytes, 'x')).toEqual(parseHeader(bytes.subarray(0, 72), 'x'))
  })

  it('a view into a larger buffer', () => {
    const { bytes } = buildQcow2()
    const larger = new Uint8Array(bytes.length + 3)
    larger.set(bytes, 3)
    expect(parseHeader(larger.subarray(3), 'x')).toEqual(parseHeader(bytes, 'x'))
  })

  it.each([0, 1, 3, 4, 71, 72, 103])('%i bytes are too few', length => {
    const { bytes } = buildQcow2()
    const code = length < 4 ? 'not-qcow2' : 'corrupt-image'
    expect(() => parseHeader(bytes.subarray(0, length), 'x')).toThrow(expect.objectContaining({ code }))
  })

  it.each([
    [8, false],
    [9, true],
    [21, true],
    [22, false],
  ])('cluster_bits %i: %s', (clusterBits, ok) => {
    const bytes = buildQcow2().bytes.slice(0, 112)
    putU32(bytes, 20, clusterBits)
    if (ok) expect(parseHeader(bytes, 'x').clusterBits).toBe(clusterBits)
    else expect(() => parseHeader(bytes, 'x')).toThrow(CorruptImageError)
  })

  it('errors say where, what was expected and what was found', () => {
    const bytes = buildQcow2().bytes.slice(0, 112)
    putU32(bytes, 20, 30)
    expect(() => parseHeader(bytes, 'disk.qcow2')).toThrow(
      'disk.qcow2: header, cluster_bits at 0x14: expected 9 … 21, found 30',
    )
    putU32(bytes, 4, 7)
    expect(() => parseHeader(bytes, 'disk.qcow2')).toThrow(UnsupportedFeatureError)
  })
})

describe('checkHeader', () => {
  const checked = (at: number, value: bigint, names = qemuNames) => {
    const { bytes } = buildQcow2()
    putU64(bytes, at, value)
    return checkHeader(parseHeader(bytes, 'x'), bytes.length, names)
  }
  const qemuNames = [{ type: 'incompatible' as const, bit: 9, name: 'time travel' }]

  it('incompatible bits 0 to 4 are known, all others not, by number and by name', () => {
    for (let bit = 0; bit < 64; bit++) {
      const features = checked(72, 1n << BigInt(bit)).filter(({ code }) => code === 'unsupported-feature')
      expect(features.map(({ found }) => found)).toEqual(
        bit < 5 ? [] : [`incompatible feature bit ${bit}${bit === 9 ? ' (time travel)' : ''}`],
      )
    }
  })

  it('compatible and autoclear bits are never a reason', () => {
    expect(checked(80, 2n ** 64n - 1n)).toEqual([])
    expect(checked(88, 2n ** 64n - 1n)).toEqual([])
  })
})

describe('extensions', () => {
  const area = (...extensions: [magic: number, length: number, data?: number][]): Uint8Array => {
    const bytes = new Uint8Array(512)
    let at = 112
    for (const [magic, length, data = length] of extensions) {
      putU32(bytes, at, magic)
      putU32(bytes, at + 4, length)
      bytes.fill(0xaa, at + 8, at + 8 + data)
      at += 8 + Math.ceil(data / 8) * 8
    }
    return bytes
  }
  const parse = (bytes: Uint8Array, start = 112, end = 512) => parseExtensions(bytes, start, end)

  it('are kept in order, unknown ones too, byte for byte, without their padding', () => {
    const { extensions, findings } = parse(
      area([0x11111111, 3], [extensionMagic.bitmaps, 24], [0x22222222, 0], [0x11111111, 8]),
    )
    expect(extensions.map(({ magic, offset, data }) => [magic, offset, data.length])).toEqual([
      [0x11111111, 120, 3],
      [extensionMagic.bitmaps, 136, 24],
      [0x22222222, 168, 0],
      [0x11111111, 176, 8],
    ])
    expect(extensions.every(({ data }) => data.every(byte => byte === 0xaa))).toBe(true)
    expect(findings).toEqual([])
  })

  it('end with END: what follows is not looked at', () => {
    expect(parse(area([0x11111111, 8], [extensionMagic.end, 0], [0x22222222, 8])).extensions.length).toBe(1)
  })

  it('may end without END where the area ends', () => {
    expect(parse(area([0x11111111, 392])).extensions.length).toBe(1)
    expect(parse(area([0x11111111, 392])).findings).toEqual([])
    expect(parse(area([0x11111111, 8]), 112, 128)).toMatchObject({
      extensions: [{ data: { length: 8 } }],
      findings: [],
    })
    expect(parse(area(), 512)).toEqual({ extensions: [], findings: [] })
    expect(parse(area(), 600)).toEqual({ extensions: [], findings: [] })
  })

  it.each([
    ['one byte too long', area([0x11111111, 393, 8]), 512],
    ['2^32 − 1 bytes', area([0x11111111, 0xffffffff, 8]), 512],
    ['END with a length', area([0, 1000, 0]), 512],
    ['over the backing file’s name', area([0x11111111, 16]), 128],
    ['a rest of 7 bytes', area([0x11111111, 8]), 135],
  ])('%s', (_, bytes, end) => {
    const { findings } = parse(bytes, 112, end)
    expect(findings).toMatchObject([{ code: 'extension-too-long', severity: 'error' }])
  })

  it('a longer header: they begin where it ends', async () => {
    const spec = { headerTail: new Uint8Array(40).fill(0xff), bitmaps: [{ name: 'b0' }] }
    const image = await inspectImage(memoryStorage(buildQcow2(spec).bytes))
    expect(image.header.headerLength).toBe(152)
    expect(image.extensions.map(({ magic, offset }) => [magic, offset])).toEqual([
      [extensionMagic.bitmaps, 160],
    ])
    expect(image.findings).toEqual([])
  })

  it('version 2 has them at 72', async () => {
    const image = await inspectImage(
      memoryStorage(buildQcow2({ version: 2, backingFile: 'b', backingFormat: 'raw' }).bytes),
    )
    expect(image).toMatchObject({ backingFile: 'b', backingFormat: 'raw', findings: [] })
    expect(image.extensions[0]!.offset).toBe(80)
  })

  it('have names', () => {
    expect(Object.values(extensionMagic).map(extensionName)).toEqual([
      'END',
      'backing file format',
      'feature name table',
      'bitmaps',
      'full disk encryption header pointer',
      'external data file name',
    ])
    expect(extensionName(0x1234)).toBe('unknown (0x00001234)')
  })
})

describe('parseFeatureNames', () => {
  it('reads the table that QEMU writes', async () => {
    const image = await inspectImage(memoryStorage(buildQcow2({ featureNames: true }).bytes))
    const types = ['incompatible', 'compatible', 'autoclear']
    expect(image.featureNames).toEqual(qemuFeatureNames.map(row => ({ ...row, type: types[row.type] })))
  })
  it('names of 46 bytes have no NUL; half a row and unknown types are left out', () => {
    const rows = new Uint8Array(48 * 3 + 47)
    rows.set([0, 63])
    rows.fill(0x61, 2, 48)
    rows.set([3, 1, 0x62], 48)
    rows.set([2, 1], 96)
    expect(parseFeatureNames(rows)).toEqual([
      { type: 'incompatible', bit: 63, name: 'a'.repeat(46) },
      { type: 'autoclear', bit: 1, name: '' },
    ])
    expect(parseFeatureNames(new Uint8Array(0))).toEqual([])
  })
})

describe('inspectImage', () => {
  it('tells what the header and its extensions say', async () => {
    const { bytes } = buildQcow2({
      virtualSize: 2 ** 20 + 511,
      compatibleFeatures: 1n,
      incompatibleFeatures: 1n | 2n | 16n,
      backingFile: 'größe.img',
      backingFormat: 'raw',
      dataFile: { name: 'data.raw', raw: true },
      luks: { length: 4096 },
    })
    expect(await inspectImage(memoryStorage(bytes, 'x.qcow2'))).toMatchObject({
      virtualSize: 2 ** 20,
      clusterSize: 65536,
      backingFile: 'größe.img',
      backingFormat: 'raw',
      dataFile: 'data.raw',
      dataFileRaw: true,
      lazyRefcounts: true,
      dirty: true,
      corrupt: true,
      extendedL2: true,
      encrypted: true,
      bitmapDirectory: undefined,
      findings: [{ code: 'corrupt-flag', severity: 'warning' }],
    })
  })
})
