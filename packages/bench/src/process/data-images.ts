import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs'
import { buildQcow2, Random, runSync } from '@tidemark/testkit'
import { CLUSTER_BYTES } from './image-writer.js'

const MiB = 2 ** 20
const GiB = 2 ** 30
const TiB = 2 ** 40

export type DataImageName = 'data-plain' | 'data-half' | 'data-zlib' | 'data-zstd' | 'map-1t'

/** Images with guest data; each writes one into `file`. */
export const dataImages: Record<DataImageName, (file: string) => void> = {
  'data-plain': file => converted(file, GiB, MiB, () => true, []),
  'data-half': file => converted(file, 2 * GiB, MiB, index => index % 2 === 0, []),
  'data-zlib': file => converted(file, GiB / 2, MiB, () => true, ['-c', '-o', 'compression_type=zlib']),
  'data-zstd': file => converted(file, GiB / 2, MiB, () => true, ['-c', '-o', 'compression_type=zstd']),
  'map-1t': file => fragmented(file, TiB, 16),
}

/** qemu-img makes the image, of a raw disk whose pieces are text of 64 words, or holes. */
function converted(
  file: string,
  size: number,
  pieceBytes: number,
  filled: (index: number) => boolean,
  args: readonly string[],
): void {
  const raw = `${file}.raw`
  const random = new Random('bench/data')
  const words = Array.from({ length: 64 }, () => Buffer.from(random.bytes(random.int(2, 12))))
  const text = Buffer.concat(Array.from({ length: 400_000 }, () => random.pick(words)))
  const fd = openSync(raw, 'w')
  try {
    ftruncateSync(fd, size)
    for (let index = 0; index * pieceBytes < size; index++) {
      // Each piece begins elsewhere in the text, so that no two clusters are the same.
      const from = (index * 4099) % (text.byteLength - pieceBytes)
      if (filled(index)) writeSync(fd, text, from, pieceBytes, index * pieceBytes)
    }
  } finally {
    closeSync(fd)
  }
  runSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...args, raw, file])
  rmSync(raw)
}

/**
 * A disk of which every other run of clusters is allocated, its L2 tables strewn over the file between them. Only
 * tables are written; the data are one hole.
 */
function fragmented(file: string, size: number, runClusters: number): void {
  const { bytes, layout } = buildQcow2({ virtualSize: size })
  const entries = CLUSTER_BYTES / 8
  const tables = layout.l1.entries
  const first = Math.ceil(bytes.byteLength / CLUSTER_BYTES)
  const tableAt = (index: number) => (first + index * (entries / 2 + 1)) * CLUSTER_BYTES
  const entry = (offset: number) => BigInt(offset) | (1n << 63n)
  const header = Buffer.from(bytes.buffer)
  for (let i = 0; i < tables; i++) header.writeBigUInt64BE(entry(tableAt(i)), layout.l1.offset + i * 8)
  const fd = openSync(file, 'w')
  try {
    writeSync(fd, header)
    const table = Buffer.alloc(CLUSTER_BYTES)
    for (let i = 0; i < tables; i++) {
      let next = tableAt(i) + CLUSTER_BYTES
      for (let e = 0; e < entries; e++) {
        const allocated = Math.floor(e / runClusters) % 2 === 0
        table.writeBigUInt64BE(allocated ? entry(next) : 0n, e * 8)
        if (allocated) next += CLUSTER_BYTES
      }
      writeSync(fd, table, 0, CLUSTER_BYTES, tableAt(i))
    }
    ftruncateSync(fd, tableAt(tables))
  } finally {
    closeSync(fd)
  }
}
