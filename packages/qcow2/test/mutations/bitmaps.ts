import { putU8, putU16, putU32, putU64 } from '@tidemark/testkit'
import { entry, extension32, extension64, inUse, type Mutation, type Patch } from './mutation.js'

export const stale = (name: string, patch: Patch): Mutation => ({
  name: `stale: ${name}`,
  spec: { bitmapsConsistent: false },
  patch,
})

export const bitmaps: readonly Mutation[] = [
  ...[0, 16, 23, 25, 32].map(length => ({
    name: `length ${length}`,
    spec: { bitmapsExtension: { length } },
  })),
  ...[0, 1, 3, 65535, 65536, 0xffffffff].map(count => extension32('nb_bitmaps', 0, count)),
  extension32('reserved', 4, 1),
  extension64('directory size one short', 8, layout => layout.directory!.size - 1),
  extension64('directory size 8 short', 8, layout => layout.directory!.size - 8),
  extension64('directory size 1 long', 8, layout => layout.directory!.size + 1),
  extension64('directory size 8 long', 8, layout => layout.directory!.size + 8),
  extension64('directory size 24 long', 8, layout => layout.directory!.size + 24),
  extension64('directory size 32 long', 8, layout => layout.directory!.size + 32),
  extension64('directory size 0', 8, () => 0),
  extension64('directory size 23', 8, () => 23),
  extension64('directory size at the limit', 8, () => 1024 * 65535),
  extension64('directory size over the limit', 8, () => 1024 * 65535 + 1),
  extension64('directory size 2^64 − 1', 8, () => 2n ** 64n - 1n),
  extension64('directory offset 0', 16, () => 0),
  extension64('directory offset unaligned', 16, layout => layout.directory!.offset + 8),
  extension64('directory offset in the last cluster', 16, layout => layout.end - layout.clusterSize),
  extension64('directory offset past the end', 16, layout => layout.end),
  extension64('directory offset 2^40', 16, () => 2 ** 40),
  extension64('directory offset 2^63', 16, () => 2n ** 63n),
  extension64('directory offset 2^64 − 65536', 16, () => 2n ** 64n - 65536n),
]

export const entries: readonly Mutation[] = [
  entry('table offset 0', (b, at) => putU64(b, at, 0)),
  entry('table offset unaligned', (b, at, layout) => putU64(b, at, layout.bitmaps[0]!.table.offset + 512)),
  entry('table offset past the end', (b, at, layout) => putU64(b, at, layout.end)),
  entry('table offset 2^63', (b, at) => putU64(b, at, 2n ** 63n)),
  entry('table offset 2^56', (b, at) => putU64(b, at, 2n ** 56n)),
  entry('table size 0', (b, at) => putU32(b, at + 8, 0)),
  entry('table size 2', (b, at) => putU32(b, at + 8, 2)),
  entry('table size 8192', (b, at) => putU32(b, at + 8, 8192)),
  entry('table size 8193', (b, at) => putU32(b, at + 8, 8193)),
  entry('table size 0x8000001', (b, at) => putU32(b, at + 8, 0x8000001)),
  entry('in use: as built', () => {}, inUse),
  entry('in use: table size 0', (b, at) => putU32(b, at + 8, 0), inUse),
  entry('in use: table size 2', (b, at) => putU32(b, at + 8, 2), inUse),
  entry('in use: table size 8192', (b, at) => putU32(b, at + 8, 8192), inUse),
  entry('in use: table size 8193', (b, at) => putU32(b, at + 8, 8193), inUse),
  entry('in use: table offset past the end', (b, at, layout) => putU64(b, at, layout.end), inUse),
  entry('in use: granularity 9', (b, at) => putU8(b, at + 17, 9), inUse),
  ...[0, 1, 3, 4, 6, 8, 0x80000002].map(flags =>
    entry(`flags ${flags}`, (b, at) => putU32(b, at + 12, flags)),
  ),
  ...[0, 2, 255].map(type => entry(`type ${type}`, (b, at) => putU8(b, at + 16, type))),
  ...[0, 8, 31, 32, 63, 64, 255].map(g => entry(`granularity ${g}`, (b, at) => putU8(b, at + 17, g))),
  ...[0, 1, 8, 9, 1023, 1024, 65535].map(size =>
    entry(`name size ${size}`, (b, at) => putU16(b, at + 18, size)),
  ),
  entry('name of 1023 bytes', () => {}, { bitmaps: [{ name: 'n'.repeat(1023) }] }),
  entry('name of 1024 bytes', () => {}, { bitmaps: [{ name: 'n'.repeat(1024) }] }),
  ...[1, 8, 0xffffffff].map(size => entry(`extra data size ${size}`, (b, at) => putU32(b, at + 20, size))),
  entry('extra data', () => {}, { bitmaps: [{ name: 'b0', extraData: new Uint8Array(8) }] }),
  entry('extra data that may be ignored', () => {}, {
    bitmaps: [{ name: 'b0', extraData: new Uint8Array(8), flags: 6 }],
  }),
  entry('the same name twice', () => {}, { bitmaps: [{ name: 'b0' }, { name: 'b0' }] }),
  entry('the same name twice, in use', () => {}, {
    bitmaps: [
      { name: 'b0', flags: 1 },
      { name: 'b0', flags: 1 },
    ],
  }),
  entry('names that differ after a NUL', () => {}, { bitmaps: [{ name: 'b\0x' }, { name: 'b\0y' }] }),
  entry('a NUL in the name', () => {}, { bitmaps: [{ name: 'b\0x' }] }),
  entry('a NUL alone for a name', () => {}, { bitmaps: [{ name: '\0' }] }),
  entry('a name that is not UTF-8', () => {}, { bitmaps: [{ name: new Uint8Array([0xff, 0xfe]) }] }),
  entry('padding that is not zero', (b, at) => putU8(b, at + 24 + 7, 1)),
]

/** A table entry of the first bitmap, whose table has one. */
const tableEntry = (name: string, raw: bigint): Mutation => ({
  name,
  spec: { bitmaps: [{ name: 'b0', table: [raw] }] },
})

export const tables: readonly Mutation[] = [
  tableEntry('table entry all ones', 1n),
  ...Array.from({ length: 8 }, (_, i) => tableEntry(`table entry with bit ${i + 1}`, 1n << BigInt(i + 1))),
  ...Array.from({ length: 8 }, (_, i) => tableEntry(`table entry with bit ${i + 56}`, 1n << BigInt(i + 56))),
  tableEntry('table entry with bit 9', 1n << 9n),
  tableEntry('table entry with bit 15', 1n << 15n),
  tableEntry('table entry with bit 55', 1n << 55n),
  tableEntry('table entry at 64 KiB, all ones', 65537n),
  tableEntry('table entry past the end of the file', 1n << 30n),
  tableEntry('table entry at 64 KiB', 65536n),
]
