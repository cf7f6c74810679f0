import { describe, expect, it } from 'vitest'
import { bitmapLimits, createEngine, type ExtensionViolation, parseBitmapsExtension } from '../src/index.js'
import { encodePayload } from './encode.js'

const engine = createEngine()
const geometry = { clusterBits: 16, fileBytes: 2 ** 40 }
const MAX_DIRECTORY = 1024n * 65535n
const HIGH = 2 ** 53 - 1

type Payload = NonNullable<Parameters<typeof encodePayload>[0]>
const cases: [string, Payload, Partial<typeof geometry>, ExtensionViolation[]][] = [
  ['a good one', {}, {}, []],
  ['count 0', { count: 0 }, {}, ['count-zero']],
  ['count 1, smallest directory', { count: 1, size: 24n }, {}, []],
  ['count 65,535', { count: 65535, size: 65535n * 24n }, {}, []],
  ['count 65,536', { count: 65536, size: 65536n * 24n }, {}, ['count-too-large']],
  ['count 2^32 − 1', { count: 2 ** 32 - 1 }, {}, ['count-too-large', 'directory-too-small']],
  ['reserved bit 0', { reserved: 1 }, {}, ['reserved-not-zero']],
  ['reserved bit 31', { reserved: 2 ** 31 }, {}, ['reserved-not-zero']],
  ['directory of 0 bytes', { size: 0n }, {}, ['directory-too-small']],
  ['directory of one byte too few', { size: 23n }, {}, ['directory-too-small']],
  ['directory of one byte too few for 3', { count: 3, size: 71n }, {}, ['directory-too-small']],
  ['largest directory', { size: MAX_DIRECTORY }, {}, []],
  ['directory one byte too large', { size: MAX_DIRECTORY + 1n }, {}, ['directory-too-large']],
  ['directory of 2^32 + 32 bytes', { size: 2n ** 32n + 32n }, {}, ['directory-too-large']],
  ['directory of 2^53', { size: 1n << 53n }, {}, ['directory-too-large', 'past-end-of-file']],
  ['directory of 2^63', { size: 1n << 63n }, {}, ['directory-too-large', 'past-end-of-file']],
  ['offset 0', { offset: 0n }, {}, ['offset-zero']],
  ['offset bit 0', { offset: 0x50001n }, {}, ['offset-unaligned']],
  ['offset bit 15', { offset: 0x58000n }, {}, ['offset-unaligned']],
  ['offset bit 16', { offset: 0x10000n }, {}, []],
  ['offset bit 8, 512-byte clusters', { offset: 0x100n }, { clusterBits: 9 }, ['offset-unaligned']],
  ['offset bit 9, 512-byte clusters', { offset: 0x200n }, { clusterBits: 9 }, []],
  ['offset bit 20, 2 MiB clusters', { offset: 0x100000n }, { clusterBits: 21 }, ['offset-unaligned']],
  ['offset bit 21, 2 MiB clusters', { offset: 0x200000n }, { clusterBits: 21 }, []],
  ['directory ends with the file', {}, { fileBytes: 0x50020 }, []],
  ['directory ends a byte after the file', {}, { fileBytes: 0x5001f }, ['past-end-of-file']],
  ['file of 0 bytes', {}, { fileBytes: 0 }, ['past-end-of-file']],
  ['offset bit 52', { offset: 1n << 52n }, { fileBytes: HIGH }, []],
  ['offset 2^53', { offset: 1n << 53n }, { fileBytes: HIGH }, ['past-end-of-file']],
  ['offset bit 63', { offset: 1n << 63n }, { fileBytes: HIGH }, ['past-end-of-file']],
  [
    'offset of all ones',
    { offset: 2n ** 64n - 1n },
    { fileBytes: HIGH },
    ['offset-unaligned', 'past-end-of-file'],
  ],
]

describe('parseBitmapsExtension', () => {
  it.each(cases)('%s', (_, payload, changed, violations) => {
    const { count = 1, reserved = 0, size = 32n, offset = 0x50000n } = payload
    expect(parseBitmapsExtension(engine, encodePayload(payload), { ...geometry, ...changed })).toEqual({
      bitmapCount: count,
      reserved,
      directorySize: Number(size),
      directoryOffset: Number(offset),
      violations,
    })
  })

  it('takes the payload from wherever it lies', () => {
    const header = new Uint8Array(100)
    header.set(encodePayload({ count: 7, size: 999n }), 37)
    const extension = parseBitmapsExtension(engine, header.subarray(37, 61), geometry)
    expect(extension).toMatchObject({ bitmapCount: 7, directorySize: 999, violations: [] })
  })

  it.each([0, 23, 25, 32])('refuses a payload of %i bytes', length => {
    expect(() => parseBitmapsExtension(engine, new Uint8Array(length), geometry)).toThrow(RangeError)
  })
})

it('bitmapLimits() are QEMU’s', () => {
  expect(bitmapLimits()).toEqual({
    maxBitmaps: 65535,
    maxDirectoryBytes: 67107840,
    maxNameBytes: 1023,
    maxBitmapBytes: 536870912,
    minGranularityBits: 9,
    maxGranularityBits: 31,
  })
})
