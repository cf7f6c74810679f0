import type { ImageInspection } from '../src/index.js'

const OFFSET = 0x00fffffffffffe00n
const LUKS = 0x0537be77

/**
 * The clusters that an image refers to, entry by entry as the specification has it, slow and plain: no windows, nothing
 * passed over.
 *
 * @throws RangeError for a table that is not within the file
 */
export function naiveReferences(bytes: Uint8Array, image: ImageInspection): Set<number> {
  const { clusterSize, header, extensions, bitmapDirectory, extendedL2 } = image
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const u64 = (at: number) => view.getBigUint64(at)
  const number = (at: number) => Number(u64(at))
  const used = new Set<number>()
  const add = (from: bigint | number, length: number): void => {
    const first = Math.floor(Number(from) / clusterSize)
    const end = Math.ceil((Number(from) + length) / clusterSize)
    for (let cluster = first; cluster < end; cluster++) used.add(cluster)
  }
  const entries = (at: number, count: number, each: (value: bigint) => void): void => {
    for (let i = 0; i < count; i++) each(u64(at + i * 8))
  }
  const l2Entry = (entry: bigint): void => {
    if ((entry & (1n << 62n)) === 0n) {
      if ((entry & OFFSET) !== 0n) add(entry & OFFSET, 1)
      return
    }
    const x = 62n - (BigInt(header.clusterBits) - 8n)
    const host = entry & ((1n << x) - 1n)
    const sectors = ((entry & ((1n << 62n) - 1n)) >> x) + 1n
    const end = Math.min(Number((host / 512n + sectors) * 512n), Math.max(Number(host) + 1, bytes.byteLength))
    add(host, end - Number(host))
  }
  const seen = new Set<number>()
  const l1 = (at: number, count: number): void => {
    add(at, count * 8)
    entries(at, count, entry => {
      const l2 = Number(entry & OFFSET)
      if (l2 === 0) return
      add(l2, 1)
      if (seen.has(l2) || image.dataFile !== undefined) return
      seen.add(l2)
      const width = extendedL2 ? 16 : 8
      // The file may end within the table.
      const end = Math.min(l2 + clusterSize, bytes.byteLength)
      for (let i = l2; i + width <= end; i += width) l2Entry(u64(i))
    })
  }
  add(0, 1)
  const counts = header.refcountTableClusters * clusterSize
  add(number(48), counts)
  const there = Math.min(counts, bytes.byteLength - number(48))
  entries(number(48), Math.floor(there / 8), entry => {
    if (entry >> 9n !== 0n) add((entry >> 9n) << 9n, 1)
  })
  const luks = extensions.findLast(({ magic }) => magic === LUKS)
  if (header.cryptMethod === 2 && luks !== undefined) add(number(luks.offset), number(luks.offset + 8))
  if (header.l1Size > 0) l1(number(40), header.l1Size)
  let at = number(64)
  for (let i = 0; i < header.nbSnapshots; i++) {
    if (view.getUint32(at + 8) > 0) l1(number(at), view.getUint32(at + 8))
    const names = view.getUint16(at + 12) + view.getUint16(at + 14)
    at += Math.ceil((40 + view.getUint32(at + 36) + names) / 8) * 8
  }
  if (header.nbSnapshots > 0) add(number(64), at - number(64))
  if (bitmapDirectory !== undefined) {
    const { directoryOffset, directorySize } = bitmapDirectory.extension
    add(directoryOffset, directorySize)
    for (const { tableOffset, tableSize } of bitmapDirectory.bitmaps) {
      add(tableOffset, tableSize * 8)
      entries(tableOffset, tableSize, entry => {
        if ((entry & OFFSET) !== 0n) add(entry & OFFSET, 1)
      })
    }
  }
  return used
}
