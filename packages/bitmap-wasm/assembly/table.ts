// Entries of a bitmap table (qcow2 specification, "Bitmap table"): where each cluster of a bitmap's data is.
//
//   bit 0      with offset 0: 1 = the cluster reads as all ones, 0 = as all zeros; with an offset: reserved
//   bits 1–8   reserved, 0
//   bits 9–55  host cluster offset
//   bits 56–63 reserved, 0
//
// Neighbours of one kind are joined into runs, so that a reader issues one request for clusters that lie side
// by side. Runs are written as columns, each with room for maxRuns of them; 32 bytes a run:
//
//   f64 hostOffset (data: where it begins; invalid: the entry's offset part)
//   u64 raw, the entry that it begins with    u32 firstEntry    u32 count    u32 kind    u32 violations
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
  const clusterSize = <u64>1 << <u64>clusterBits
  const clusterBytes = <f64>clusterSize
  const raws = out + (<usize>maxRuns << 3)
  const firsts = out + (<usize>maxRuns << 4)
  const counts = firsts + (<usize>maxRuns << 2)
  const kinds = counts + (<usize>maxRuns << 2)
  const masks = kinds + (<usize>maxRuns << 2)
  let runs: u32 = 0
  let i: u32 = 0
  while (i < entries && runs < maxRuns) {
    const ptr = src + (<usize>i << 3)
    const raw = be64(ptr)
    const host = raw & TABLE_OFFSET_MASK
    const hostOffset = <f64>host
    let violations: u32 = 0
    if (raw & TABLE_RESERVED_MASK) violations |= TABLE_RESERVED_BITS
    if (host != 0) {
      if (raw & TABLE_ALL_ONES) violations |= TABLE_ONES_WITH_OFFSET
      if (host & (clusterSize - 1)) violations |= TABLE_UNALIGNED
      if (hostOffset + needed(firstEntry + i, clusterBytes, bitmapBytes) > fileBytes) {
        violations |= TABLE_PAST_END_OF_FILE
      }
    }
    let kind: u32
    let n: u32
    if (violations) {
      kind = RUN_INVALID
      n = 1
    } else if (host) {
      kind = RUN_DATA
      n = sideBySide(ptr, entries - i, firstEntry + i, raw, clusterSize, bitmapBytes, fileBytes)
    } else {
      kind = raw & TABLE_ALL_ONES ? RUN_ONES : RUN_ZEROS
      n = alike(ptr, entries - i)
    }
    store<f64>(out + (<usize>runs << 3), hostOffset)
    store<u64>(raws + (<usize>runs << 3), raw)
    const column = <usize>runs << 2
    store<u32>(firsts + column, firstEntry + i)
    store<u32>(counts + column, n)
    store<u32>(kinds + column, kind)
    store<u32>(masks + column, violations)
    runs++
    i += n
  }
  lastEntries = i
  return runs
}

/** Bytes that an entry's cluster has to have: fewer where the bitmap ends in it, none behind that. */
@inline function needed(entry: u32, clusterBytes: f64, bitmapBytes: f64): f64 {
  return min(clusterBytes, max(0, bitmapBytes - <f64>entry * clusterBytes))
}

/** How many entries from the first on, at most `most`, are the same as it. */
function alike(ptr: usize, most: u32): u32 {
  const word = load<u64>(ptr)
  const same = i64x2.splat(word)
  const end = ptr + (<usize>most << 3)
  let at = ptr + 8
  for (; at + 64 <= end; at += 64) {
    if (v128.any_true(v128.or(
      v128.or(v128.xor(v128.load(at), same), v128.xor(v128.load(at, 16), same)),
      v128.or(v128.xor(v128.load(at, 32), same), v128.xor(v128.load(at, 48), same))
    ))) break
  }
  while (at < end && load<u64>(at) == word) at += 8
  return <u32>(at - ptr) >> 3
}

/** How many entries from the first on, which is valid, name clusters side by side that are there. */
function sideBySide(
  ptr: usize, most: u32, firstEntry: u32, raw: u64, clusterSize: u64, bitmapBytes: f64, fileBytes: f64
): u32 {
  const size = <u64>fileBytes
  let n: u32 = 1
  let next = raw + clusterSize
  for (; n < most; n++, next += clusterSize) {
    if (be64(ptr + (<usize>n << 3)) != next) break
    // Below the file's end there are no reserved bits; near it not all of the cluster may be needed.
    if (next + clusterSize > size
      && <f64>next + needed(firstEntry + n, <f64>clusterSize, bitmapBytes) > fileBytes) break
  }
  return n
}
