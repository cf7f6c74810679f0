import { putU32, putU64 } from '@tidemark/testkit'
import { bitmaps, entries, stale, tables } from './bitmaps.js'
import { extensions } from './extensions.js'
import { headers } from './headers.js'
import type { Mutation } from './mutation.js'

export { type Mutation, mutate } from './mutation.js'

export const mutations: readonly Mutation[] = [
  ...headers.map(m => ({ ...m, name: `header: ${m.name}` })),
  ...extensions.map(m => ({ ...m, name: `extension: ${m.name}` })),
  ...bitmaps.map(m => ({ ...m, name: `bitmaps extension: ${m.name}` })),
  ...entries.map(m => ({ ...m, name: `directory entry: ${m.name}` })),
  ...tables.map(m => ({ ...m, name: `bitmap table: ${m.name}` })),
  stale('reserved', (b, l) => putU32(b, l.bitmapsExtension! + 4, 1)),
  stale('length 16', (b, l) => putU32(b, l.bitmapsExtension! - 4, 16)),
  stale('directory offset 0', (b, l) => putU64(b, l.bitmapsExtension! + 16, 0)),
  stale('table offset 0', (b, l) => putU64(b, l.bitmaps[0]!.entry.offset, 0)),
  stale('flags', (b, l) => putU32(b, l.bitmaps[0]!.entry.offset + 12, 8)),
  stale('directory truncated', (b, l) => putU64(b, l.bitmapsExtension! + 8, 48)),
  ...[1, 71, 72, 103, 104, 111, 112, 511, 512, 1000, 65535, 65536, 65537].map(length => ({
    name: `file of ${length} bytes`,
    spec: { fileLength: length },
  })),
]
