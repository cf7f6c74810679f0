import {
  dirtyMaps,
  needs,
  type Qcow2Spec,
  qemuImg,
  Random,
  type TempDir,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemarkJson } from './cli.js'
import { missingFrom } from './superset.js'

const peers = needs('qemu-img', 'qemu-nbd', 'nbdinfo')
const KiB = 1024
const ones = (bytes: number): Uint8Array => new Uint8Array(bytes).fill(0xff)

/** 64 GiB at 4 KiB: 2 MiB of bitmap, 32 table entries of 64 KiB. */
const long = { virtualSize: 64 * 2 ** 30 - 512, bitmaps: [] }

const cases: Record<string, Qcow2Spec> = {
  'version 2': { version: 2, virtualSize: 10 * KiB * KiB },
  'version 2 with a backing file': { version: 2, backingFile: 'base of v2.raw', backingFormat: 'raw' },
  'all-ones entries': {
    ...long,
    bitmaps: [
      { name: 'all', granularityBits: 12, fill: 'ones' },
      { name: 'some', granularityBits: 12, table: ['ones', 'zeros', 'ones', 'ones'], fill: 'zeros' },
      {
        name: 'mixed',
        granularityBits: 12,
        table: ['zeros', ones(64 * KiB), 'ones', new Uint8Array([0, 0x80, 1]), 'ones'],
      },
      { name: 'last', granularityBits: 12, table: Array(31).fill('zeros'), fill: 'ones' },
    ],
  },
  'all-ones entries, 512-byte clusters': {
    clusterBits: 9,
    virtualSize: 512 * 4096 * 9 + 512,
    bitmaps: [
      { name: 'a', granularityBits: 9, table: ['ones', 'zeros', ones(512), 'ones'], fill: 'ones' },
      { name: 'b', granularityBits: 31, fill: 'ones' },
    ],
  },
  'bits behind the last granule': {
    virtualSize: 3 * 65536 + 512,
    bitmaps: [{ name: 'tail', table: [new Uint8Array([0xf1, 0xff, 0xff])] }],
  },
  'unknown extensions, before and behind the bitmaps': {
    extensions: [
      { magic: 0x11223344, data: new Uint8Array([1, 2, 3]), first: true },
      { magic: 0xdeadbeef, data: new Uint8Array(100).fill(7) },
      { magic: 0x7fffffff, data: new Uint8Array(0) },
    ],
    featureNames: true,
    bitmaps: [{ name: 'x', dirty: [0, 3, 5, 15] }],
  },
  'a longer header': {
    headerTail: new Uint8Array(48).fill(0),
    bitmaps: [{ name: 'x', dirty: [2] }],
  },
  'the shortest header of version 3': { headerLength: 104, bitmaps: [{ name: 'x', dirty: [2] }] },
  'a size that is no multiple of 512': {
    virtualSize: 1_000_003,
    bitmaps: [{ name: 'x', granularityBits: 9, dirty: bit => bit % 3 === 0 }],
  },
  'names of bytes': {
    bitmaps: [
      { name: 'ünï', dirty: [1] },
      { name: 'a@b', dirty: [3] },
      { name: 'n'.repeat(1023), dirty: [4] },
    ],
  },
  'lazy refcounts': { compatibleFeatures: 1n, bitmaps: [{ name: 'x', dirty: [0] }] },
  zstd: { compressionType: 1, bitmaps: [{ name: 'x', dirty: [0] }] },
  'extended L2 entries': { incompatibleFeatures: 16n, bitmaps: [{ name: 'x', dirty: [0] }] },
  'in use': {
    bitmaps: [
      { name: 'crashed', flags: 3, dirty: [0] },
      { name: 'disabled and crashed', flags: 1, dirty: [0] },
      { name: 'disabled', flags: 0, dirty: [0, 1, 2] },
    ],
  },
  'stale bitmaps': { bitmapsConsistent: false, bitmaps: [{ name: 'x', dirty: [0] }] },
  // All of the bitmap's own bytes are there: 2048 bits.
  'a file whose last cluster is short': {
    lastClusterBytes: 256,
    bitmaps: [{ name: 'x', granularityBits: 9, table: [new Uint8Array([0xff, 0x0f])] }],
  },
  ...Object.fromEntries(
    [0, 1, 2, 3, 4, 5, 6].map(refcountOrder => [
      `refcounts of ${2 ** refcountOrder} bits`,
      { refcountOrder, bitmaps: [{ name: 'x', dirty: [refcountOrder] }] },
    ]),
  ),
  ...Object.fromEntries(
    Array.from({ length: 13 }, (_, i) => [
      `clusters of ${2 ** (9 + i)} bytes`,
      {
        clusterBits: 9 + i,
        virtualSize: 3 * 2 ** 20 + 512,
        bitmaps: [randomBitmap(9 + i, 'fine', 9), randomBitmap(9 + i, 'coarse', 31)],
      },
    ]),
  ),
}

function randomBitmap(seed: number, name: string, granularityBits: number) {
  const random = new Random(`builder-${seed}-${name}`)
  return { name, granularityBits, dirty: () => random.bool(0.3) }
}

describe.skipIf(peers.skip)(`images that QEMU does not write${peers.label}`, () => {
  let dir: TempDir
  beforeAll(() => {
    dir = tempDir()
  })
  afterAll(() => dir?.remove())

  it.each(Object.entries(cases))('%s', async (name, spec) => {
    const file = dir.file(`${name.replaceAll(' ', '-')}.qcow2`)
    writeQcow2(file, spec)
    const qemu = await qemuImg.info(file)
    expect(missingFrom(await tidemarkJson(['info', file]), qemu)).toEqual([])
    for (const [bitmap, map] of await dirtyMaps(file)) {
      expect(await tidemarkJson(['map', file, '--bitmap', bitmap]), bitmap).toEqual(map)
    }
  })
})
