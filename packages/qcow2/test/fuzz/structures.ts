// Where what is in an image. Shares no code with the reader, and trusts the image: it is sound before it is mutated.
import { COMPRESSED } from '../data-image.js'

export type Kind =
  | 'header'
  | 'extension'
  | 'l1'
  | 'l2'
  | 'subclusters'
  | 'refcounts'
  | 'snapshot'
  | 'luks'
  | 'bitmap'

/** A number that can be set to another one. */
export interface Place {
  readonly kind: Kind
  readonly name: string
  readonly at: number
  readonly width: 1 | 2 | 4 | 8
}

export interface Structures {
  readonly clusterSize: number
  readonly clusterBits: number
  readonly places: ReadonlyMap<Kind, readonly Place[]>
  /** Offsets where something begins: what a reference can be bent to. */
  readonly offsets: readonly number[]
  readonly backingName: { readonly at: number; readonly length: number } | undefined
  /** Where cluster 0 has room for more. */
  readonly room: number
}

const OFFSET = 0x00fffffffffffe00n
const headerFields: readonly [string, number, 1 | 4 | 8][] = [
  ['version', 4, 4],
  ['backing_file_offset', 8, 8],
  ['backing_file_size', 16, 4],
  ['cluster_bits', 20, 4],
  ['size', 24, 8],
  ['crypt_method', 32, 4],
  ['l1_size', 36, 4],
  ['l1_table_offset', 40, 8],
  ['refcount_table_offset', 48, 8],
  ['refcount_table_clusters', 56, 4],
  ['nb_snapshots', 60, 4],
  ['snapshots_offset', 64, 8],
  ['incompatible_features', 72, 8],
  ['compatible_features', 80, 8],
  ['autoclear_features', 88, 8],
  ['refcount_order', 96, 4],
  ['header_length', 100, 4],
  ['compression_type', 104, 1],
]

export function findStructures(bytes: Uint8Array): Structures {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const u64 = (at: number) => Number(view.getBigUint64(at))
  const places = new Map<Kind, Place[]>()
  const offsets = new Set<number>([0])
  const add = (kind: Kind, name: string, at: number, width: Place['width']) => {
    const of = places.get(kind)
    if (of === undefined) places.set(kind, [{ kind, name, at, width }])
    else of.push({ kind, name, at, width })
  }
  const version = view.getUint32(4)
  const clusterBits = view.getUint32(20)
  const clusterSize = 2 ** clusterBits
  const extended = version === 3 && (view.getBigUint64(72) & 16n) !== 0n
  for (const [name, at, width] of headerFields) if (version === 3 || at < 72) add('header', name, at, width)

  const backingAt = u64(8)
  let room = version === 3 ? view.getUint32(100) : 72
  for (; room + 8 <= (backingAt || clusterSize) && view.getUint32(room) !== 0; ) {
    const magic = view.getUint32(room)
    const length = view.getUint32(room + 4)
    add('extension', 'magic', room, 4)
    add('extension', 'length', room + 4, 4)
    // Rows of names are all alike.
    if (magic !== 0x6803f857)
      for (let i = 0; i + 8 <= length; i += 8) add('extension', `data ${i}`, room + 8 + i, 8)
    if (magic === 0x23852875) addBitmaps(room + 8)
    if (magic === 0x0537be77) addLuks(u64(room + 8))
    room += 8 + Math.ceil(length / 8) * 8
  }
  add('extension', 'END', room, 4)
  add('extension', 'END length', room + 4, 4)
  const backingName = backingAt === 0 ? undefined : { at: backingAt, length: view.getUint32(16) }
  if (backingName !== undefined) room = backingName.at + backingName.length

  const tables = new Set<number>()
  const addL1 = (at: number, entries: number, disk: number) => {
    if (entries > 0) offsets.add(at)
    const entryBytes = extended ? 16 : 8
    for (let i = 0; i < entries; i++) {
      add('l1', `entry ${i}`, at + i * 8, 8)
      const table = Number(view.getBigUint64(at + i * 8) & OFFSET)
      if (table === 0 || tables.has(table)) continue
      tables.add(table)
      offsets.add(table)
      const left = Math.ceil((disk - i * clusterSize * (clusterSize / entryBytes)) / clusterSize)
      for (let j = 0; j < Math.min(left, clusterSize / entryBytes); j++) {
        const entry = table + j * entryBytes
        add('l2', `entry ${j}`, entry, 8)
        if (extended) add('subclusters', `entry ${j}`, entry + 8, 8)
        const value = view.getBigUint64(entry)
        if ((value & COMPRESSED) === 0n && offsets.size < 200) offsets.add(Number(value & OFFSET))
      }
    }
  }
  addL1(u64(40), view.getUint32(36), u64(24))
  let at = u64(64)
  for (let i = 0; i < view.getUint32(60); i++) {
    offsets.add(at)
    for (const [name, from, width] of snapshotFields) add('snapshot', `${i} ${name}`, at + from, width)
    const extra = view.getUint32(at + 36)
    addL1(u64(at), view.getUint32(at + 8), extra >= 16 ? u64(at + 48) : u64(24))
    at += Math.ceil((40 + extra + view.getUint16(at + 12) + view.getUint16(at + 14)) / 8) * 8
  }
  const refcountTable = u64(48)
  offsets.add(refcountTable)
  for (let i = 0; i < Math.min(64, (view.getUint32(56) * clusterSize) / 8); i++) {
    add('refcounts', `table entry ${i}`, refcountTable + i * 8, 8)
    const block = u64(refcountTable + i * 8)
    if (block === 0) continue
    offsets.add(block)
    for (let j = 0; j < Math.min(512, clusterSize); j += 8) add('refcounts', `block ${j}`, block + j, 8)
  }
  return { clusterSize, clusterBits, places, offsets: [...offsets], backingName, room: room + 8 }

  function addBitmaps(extension: number): void {
    let entry = u64(extension + 16)
    offsets.add(entry)
    for (let i = 0; i < view.getUint32(extension); i++) {
      for (const [name, from, width] of bitmapFields) add('bitmap', `${i} ${name}`, entry + from, width)
      const table = u64(entry)
      offsets.add(table)
      add('bitmap', 'table entry', table, 8)
      entry += Math.ceil((24 + view.getUint32(entry + 20) + view.getUint16(entry + 18)) / 8) * 8
    }
  }

  function addLuks(header: number): void {
    offsets.add(header)
    for (const [name, from, width] of luksFields) add('luks', name, header + from, width)
    for (let slot = 0; slot < 8; slot++) {
      for (const [name, from] of slotFields)
        add('luks', `${slot} ${name}`, header + 208 + slot * 48 + from, 4)
    }
    offsets.add(header + view.getUint32(header + 208 + 40) * 512)
  }
}

const snapshotFields: readonly [string, number, 2 | 4 | 8][] = [
  ['l1_table_offset', 0, 8],
  ['l1_size', 8, 4],
  ['unique_id_len', 12, 2],
  ['name_len', 14, 2],
  ['vm_state_size', 32, 4],
  ['extra_data_size', 36, 4],
  ['extra vm_state_size', 40, 8],
  ['extra disk_size', 48, 8],
  ['extra icount', 56, 8],
]
const bitmapFields: readonly [string, number, 1 | 2 | 4 | 8][] = [
  ['table_offset', 0, 8],
  ['table_size', 8, 4],
  ['flags', 12, 4],
  ['type', 16, 1],
  ['granularity_bits', 17, 1],
  ['name_size', 18, 2],
  ['extra_data_size', 20, 4],
]
const luksFields: readonly [string, number, 1 | 2 | 4 | 8][] = [
  ['magic', 0, 4],
  ['version', 6, 2],
  ['cipher-name', 8, 8],
  ['cipher-mode', 40, 8],
  ['hash-spec', 72, 8],
  ['payload-offset', 104, 4],
  ['key-bytes', 108, 4],
  ['mk-digest', 112, 8],
  ['mk-digest-iter', 164, 4],
]
const slotFields: readonly [string, number][] = [
  ['active', 0],
  ['iterations', 4],
  ['key-material-offset', 40],
  ['stripes', 44],
]
