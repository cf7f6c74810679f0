import { readFileSync } from 'node:fs'

/**
 * The guest data that a qcow2 file holds itself, not its backing file: guest offset of a cluster → its bytes, the last
 * one clipped to the disk. For files as QEMU writes them for a backup: no compression, no subclusters, no encryption,
 * no external data file. It reads the tables by hand, so it costs no program's start and shares no code with anybody.
 *
 * @throws Error for a file that is none such
 */
export function ownClusters(file: string): Map<number, Uint8Array> {
  const bytes = readFileSync(file)
  if (bytes.length < 104 || bytes.readUInt32BE(0) !== 0x514649fb) throw new Error(`${file} is not qcow2`)
  const incompatible = bytes.readUInt32BE(4) >= 3 ? bytes.readBigUInt64BE(72) : 0n
  // Bit 0, dirty (lazy refcounts), says nothing of the mapping.
  if ((incompatible & ~1n) !== 0n || bytes.readUInt32BE(32) !== 0) {
    throw new Error(`${file} has features that are not looked at here`)
  }
  const clusterSize = 2 ** bytes.readUInt32BE(20)
  const size = Number(bytes.readBigUInt64BE(24))
  const l1Size = bytes.readUInt32BE(36)
  const l1Offset = Number(bytes.readBigUInt64BE(40))
  const entries = clusterSize / 8
  const found = new Map<number, Uint8Array>()
  for (let i = 0; i < l1Size; i++) {
    const l2 = Number(bytes.readBigUInt64BE(l1Offset + i * 8) & OFFSET)
    if (l2 === 0) continue
    for (let j = 0; j < entries; j++) {
      const guest = (i * entries + j) * clusterSize
      if (guest >= size) break
      const entry = bytes.readBigUInt64BE(l2 + j * 8)
      if ((entry & COMPRESSED) !== 0n) throw new Error(`${file} has compressed clusters`)
      const host = Number(entry & OFFSET)
      const length = Math.min(clusterSize, size - guest)
      if ((entry & ZERO) !== 0n) found.set(guest, new Uint8Array(length))
      else if (host !== 0) {
        const cluster = new Uint8Array(length)
        // The file may end within its last cluster: what was never written reads as zeros.
        cluster.set(bytes.subarray(host, host + length))
        found.set(guest, cluster)
      }
    }
  }
  return found
}

/** Of an entry of an L1 or L2 table: bits 9–55; L2 only: compressed (62), reads as zeros (0). */
const OFFSET = 0x00ff_ffff_ffff_fe00n
const COMPRESSED = 1n << 62n
const ZERO = 1n
