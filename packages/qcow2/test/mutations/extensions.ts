import { extensionMagic, putU64, type Qcow2Layout } from '@tidemark/testkit'
import { backed, crypto, header32, header64, type Mutation, plain, unknown } from './mutation.js'

export const extensions: readonly Mutation[] = [
  { name: 'unknown extension', spec: { extensions: [unknown(3)] } },
  { name: 'unknown extension of no bytes', spec: { extensions: [unknown(0)] } },
  {
    name: 'extension to the last byte of cluster 0',
    spec: { ...plain, clusterBits: 9, extensions: [unknown(384)], featureNames: [] },
  },
  {
    name: 'extension one over cluster 0',
    spec: { ...plain, clusterBits: 9, extensions: [unknown(384, 385)], featureNames: [] },
  },
  { name: 'extension of 2^32 − 1 bytes', spec: { extensions: [unknown(8, 0xffffffff)] } },
  { name: 'extension over the backing name', spec: { ...backed, extensions: [unknown(8, 64)] } },
  { name: 'extension up to the backing name', spec: { ...backed, extensions: [unknown(8, 16)] } },
  ...[4, 7].map(bytes => ({
    name: `${bytes} bytes between the last extension and the backing name`,
    spec: backed,
    patch: (image: Uint8Array, layout: Qcow2Layout) =>
      putU64(image, 8, layout.backingFile!.offset - 8 + bytes),
  })),
  {
    name: 'no END before the backing name',
    spec: backed,
    patch: (image, layout) => putU64(image, 8, layout.backingFile!.offset - 8),
  },
  ...[0, 8, 104, 113].map(offset => header64('backing_file_offset', 8, offset, backed)),
  ...[65536, 65537, 2 ** 40].map(offset => header64('backing_file_offset', 8, offset, backed)),
  header64('backing_file_offset', 8, 2n ** 64n - 1n, backed),
  ...[0, 1, 1022, 1023, 1024, 0xffffffff].map(size => header32('backing_file_size', 16, size, backed)),
  { name: 'backing name over the end of cluster 0', spec: backed, patch: bytes => putU64(bytes, 8, 65530) },
  { name: 'backing name to the end of cluster 0', spec: backed, patch: bytes => putU64(bytes, 8, 65528) },
  { name: 'backing format of 15 bytes', spec: { ...backed, backingFormat: 'x'.repeat(15) } },
  { name: 'backing format of 16 bytes', spec: { ...backed, backingFormat: 'x'.repeat(16) } },
  { name: 'backing format without backing file', spec: { backingFormat: 'raw' } },
  { name: 'LUKS pointer without LUKS', spec: { ...plain, luks: { length: 4096 }, cryptMethod: 0 } },
  { name: 'LUKS pointer to zeros', spec: { ...plain, luks: { length: 4096 } } },
  { name: 'LUKS pointer of 8 bytes', spec: { ...plain, luks: { length: 4096 } }, patch: crypto(8, 0) },
  { name: 'LUKS pointer unaligned', spec: { ...plain, luks: { length: 4096 } }, patch: crypto(16, 8) },
  {
    name: 'feature names of 47 bytes',
    spec: {
      featureNames: [],
      extensions: [{ magic: extensionMagic.featureNames, data: new Uint8Array(47) }],
    },
  },
  { name: 'data file bit without a name', spec: { ...plain, incompatibleFeatures: 4n } },
  { name: 'data file that is missing', spec: { ...plain, dataFile: { name: 'no-such-file.raw' } } },
  {
    name: 'two backing formats',
    spec: { ...backed, extensions: [{ magic: extensionMagic.backingFormat, data: new Uint8Array([0x78]) }] },
  },
  {
    name: 'two bitmaps extensions',
    spec: { extensions: [{ magic: extensionMagic.bitmaps, data: new Uint8Array(24) }] },
  },
  {
    name: 'two bitmaps extensions, the first empty',
    spec: { extensions: [{ magic: extensionMagic.bitmaps, data: new Uint8Array(24), first: true }] },
  },
]
