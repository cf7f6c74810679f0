// Entries of a bitmap table (qcow2 specification, "Bitmap table"): where each cluster of a bitmap's data is.
//
//   bit 0      with offset 0: 1 = the cluster reads as all ones, 0 = as all zeros; with an offset: reserved
//   bits 1–8   reserved, 0
//   bits 9–55  host cluster offset
//   bits 56–63 reserved, 0
//
// Neighbours of one kind are joined into runs, so that a reader issues one request for clusters that lie side
// by side. Run record (32 bytes): 0 f64 hostOffset (data: where it begins; invalid: the entry's offset part)
//   8 u32 kind   12 u32 firstEntry   16 u32 count   20 u32 violations   24 u64 the raw entry where invalid
import { be64 } from './bytes'

export const RUN_RECORD_BYTES: u32 = 32

export const TABLE_RESERVED_MASK: u64 = 0xff000000000001fe
export const TABLE_OFFSET_MASK: u64 = 0x00fffffffffffe00
export const TABLE_ALL_ONES: u64 = 1

export const RUN_ZEROS: u32 = 0
export const RUN_ONES: u32 = 1
export const RUN_DATA: u32 = 2
export const RUN_INVALID: u32 = 3

export const TABLE_RESERVED_BITS: u32 = 1 << 0
export const TABLE_ONES_WITH_OFFSET: u32 = 1 << 1
export const TABLE_UNALIGNED: u32 = 1 << 2
export const TABLE_PAST_END_OF_FILE: u32 = 1 << 3

/** Entries that the last decodeTable turned into runs; fewer than asked when the runs' room was full. */
export let lastEntries: u32 = 0

/**
 * Decodes `entries` table entries at `src` into runs at `out`, at most `maxRuns` of them.
 *
 * @param firstEntry index of the first entry within the whole table
 * @param bitmapBytes the bitmap's length; of its last cluster only the bytes up to there have to exist
 * @returns the number of runs. An invalid entry is a run of its own, whatever its neighbours.
 */
export function decodeTable(
  src: usize, entries: u32, firstEntry: u32, clusterBits: u32, bitmapBytes: f64, fileBytes: f64,
  out: usize, maxRuns: u32
): u32 {
  const clusterBytes: f64 = <f64>(<u64>1 << <u64>clusterBits)
  let runs: u32 = 0
  let kind: u32 = RUN_INVALID
  let nextOffset: f64 = -1
  let i: u32 = 0
  for (; i < entries; i++) {
    const raw = be64(src + (<usize>i << 3))
    const host = raw & TABLE_OFFSET_MASK
    const hostOffset = <f64>host
    let violations: u32 = 0
    if (raw & TABLE_RESERVED_MASK) violations |= TABLE_RESERVED_BITS
    if (host != 0) {
      if (raw & TABLE_ALL_ONES) violations |= TABLE_ONES_WITH_OFFSET
      if (host & ((1 << <u64>clusterBits) - 1)) violations |= TABLE_UNALIGNED
      const needed = min(clusterBytes, max(0, bitmapBytes - <f64>(firstEntry + i) * clusterBytes))
      if (hostOffset + needed > fileBytes) violations |= TABLE_PAST_END_OF_FILE
    }
    let entryKind: u32
    if (violations) entryKind = RUN_INVALID
    else if (host) entryKind = RUN_DATA
    else entryKind = raw & TABLE_ALL_ONES ? RUN_ONES : RUN_ZEROS

    const joins = entryKind == kind && entryKind != RUN_INVALID
      && (entryKind != RUN_DATA || hostOffset == nextOffset)
    if (joins) {
      const count = out - RUN_RECORD_BYTES + 16
      store<u32>(count, load<u32>(count) + 1)
    } else {
      if (runs == maxRuns) break
      store<f64>(out, hostOffset)
      store<u32>(out + 8, entryKind)
      store<u32>(out + 12, firstEntry + i)
      store<u32>(out + 16, 1)
      store<u32>(out + 20, violations)
      store<u64>(out + 24, raw)
      out += RUN_RECORD_BYTES
      runs++
      kind = entryKind
    }
    nextOffset = hostOffset + clusterBytes
  }
  lastEntries = i
  return runs
}
