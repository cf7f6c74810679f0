// Entries of the bitmap directory (qcow2 specification, "Bitmap directory").
//
//   0  u64  bitmap_table_offset     16  u8   type (1: dirty tracking)
//   8  u32  bitmap_table_size       17  u8   granularity_bits
//  12  u32  flags                   18  u16  name_size
//                                   20  u32  extra_data_size
//  24  extra data, then the name, zero-padded to a multiple of 8
//
// Only the fixed 24 bytes are read here. Name and extra data stay where they are: the record says where.
//
// Record written for each entry (48 bytes, little-endian as wasm stores):
//   0 f64 tableOffset   8 f64 entryOffset (from the directory's start)   16 f64 entryBytes
//  24 u32 tableSize    28 u32 flags    32 u32 extraDataSize   36 u32 violations
//  40 u32 nameSize     44 u8 type      45 u8 granularityBits
import { MAX_SAFE, be16, be32, be64 } from './bytes'

export const ENTRY_RECORD_BYTES: u32 = 48

export const FLAG_IN_USE: u32 = 1 << 0
export const FLAG_AUTO: u32 = 1 << 1
export const FLAG_EXTRA_DATA_COMPATIBLE: u32 = 1 << 2

export const MIN_GRANULARITY_BITS: u32 = 9
export const MAX_GRANULARITY_BITS: u32 = 31
export const MAX_NAME_BYTES: u32 = 1023
export const MAX_TABLE_ENTRIES: u32 = 0x8000000
export const MAX_BITMAP_BYTES: u32 = 0x20000000

export const ENTRY_TRUNCATED: u32 = 1 << 0
export const ENTRY_TABLE_OFFSET_ZERO: u32 = 1 << 1
export const ENTRY_TABLE_OFFSET_UNALIGNED: u32 = 1 << 2
export const ENTRY_TABLE_PAST_END_OF_FILE: u32 = 1 << 3
export const ENTRY_TABLE_SIZE_ZERO: u32 = 1 << 4
export const ENTRY_TABLE_TOO_LARGE: u32 = 1 << 5
export const ENTRY_TABLE_SIZE_MISMATCH: u32 = 1 << 6
export const ENTRY_FLAGS_RESERVED: u32 = 1 << 7
export const ENTRY_TYPE_UNKNOWN: u32 = 1 << 8
export const ENTRY_GRANULARITY: u32 = 1 << 9
export const ENTRY_NAME_EMPTY: u32 = 1 << 10
export const ENTRY_NAME_TOO_LONG: u32 = 1 << 11
export const ENTRY_EXTRA_DATA: u32 = 1 << 12

/** Bytes to step over, from `src`, to reach the entry after the last one parsed; may lie past the window. */
export let lastConsumed: f64 = 0

/**
 * Parses the entries that begin in the window of `length` bytes at `src`, at most `maxEntries`.
 *
 * @param position where the window begins in the directory
 * @param directoryBytes the directory's size, so that entries that run over its end are seen
 * @param sizeBytes the disk's virtual size, already truncated to whole sectors as QEMU does
 * @returns records written at `out`; stops after a truncated entry, since nothing after it can be located
 */
export function parseDirectory(
  src: usize, length: u32, position: f64, directoryBytes: f64, maxEntries: u32,
  clusterBits: u32, sizeBytes: f64, fileBytes: f64, out: usize
): u32 {
  let at: f64 = 0
  let count: u32 = 0
  while (count < maxEntries && at + 24 <= <f64>length) {
    const entry = src + <usize>at
    const tableOffset = be64(entry)
    const tableSize = be32(entry + 8)
    const flags = be32(entry + 12)
    const type = load<u8>(entry + 16)
    const granularityBits = load<u8>(entry + 17)
    const nameSize = be16(entry + 18)
    const extraDataSize = be32(entry + 20)
    const entryBytes = (<u64>24 + extraDataSize + nameSize + 7) & ~(<u64>7)
    const truncated = position + at + <f64>entryBytes > directoryBytes

    let violations = checkEntry(
      tableOffset, tableSize, flags, type, granularityBits, nameSize, extraDataSize,
      clusterBits, <u64>sizeBytes, fileBytes
    )
    if (truncated) violations |= ENTRY_TRUNCATED

    store<f64>(out, <f64>tableOffset)
    store<f64>(out + 8, position + at)
    store<f64>(out + 16, <f64>entryBytes)
    store<u32>(out + 24, tableSize)
    store<u32>(out + 28, flags)
    store<u32>(out + 32, extraDataSize)
    store<u32>(out + 36, violations)
    store<u32>(out + 40, nameSize)
    store<u8>(out + 44, type)
    store<u8>(out + 45, granularityBits)
    out += ENTRY_RECORD_BYTES
    count++
    at += <f64>entryBytes
    if (truncated) break
  }
  lastConsumed = at
  return count
}

/** QEMU's check_dir_entry, and the bounds of the file. */
function checkEntry(
  tableOffset: u64, tableSize: u32, flags: u32, type: u8, granularityBits: u8, nameSize: u32,
  extraDataSize: u32, clusterBits: u32, sizeBytes: u64, fileBytes: f64
): u32 {
  let violations: u32 = 0
  if (tableOffset == 0) violations |= ENTRY_TABLE_OFFSET_ZERO
  if (tableOffset & ((1 << <u64>clusterBits) - 1)) violations |= ENTRY_TABLE_OFFSET_UNALIGNED
  if (tableOffset > MAX_SAFE || <f64>tableOffset + <f64>tableSize * 8 > fileBytes) {
    violations |= ENTRY_TABLE_PAST_END_OF_FILE
  }
  if (tableSize == 0) violations |= ENTRY_TABLE_SIZE_ZERO
  if (tableSize > MAX_TABLE_ENTRIES || (<u64>tableSize << clusterBits) > MAX_BITMAP_BYTES) {
    violations |= ENTRY_TABLE_TOO_LARGE
  }
  if (flags & ~(FLAG_IN_USE | FLAG_AUTO | FLAG_EXTRA_DATA_COMPATIBLE)) violations |= ENTRY_FLAGS_RESERVED
  if (type != 1) violations |= ENTRY_TYPE_UNKNOWN
  if (nameSize == 0) violations |= ENTRY_NAME_EMPTY
  if (nameSize > MAX_NAME_BYTES) violations |= ENTRY_NAME_TOO_LONG
  if (extraDataSize != 0) violations |= ENTRY_EXTRA_DATA
  if (granularityBits < MIN_GRANULARITY_BITS || granularityBits > MAX_GRANULARITY_BITS) {
    violations |= ENTRY_GRANULARITY
  } else if (!(flags & FLAG_IN_USE)) {
    // An in-use bitmap may have any size: QEMU only lets it be removed.
    if (<u64>tableSize != expectedTableSize(sizeBytes, granularityBits, clusterBits)) {
      violations |= ENTRY_TABLE_SIZE_MISMATCH
    }
  }
  return violations
}

@inline function expectedTableSize(sizeBytes: u64, granularityBits: u64, clusterBits: u64): u64 {
  const granules = (sizeBytes + (<u64>1 << granularityBits) - 1) >> granularityBits
  const bytes = (granules + 7) >> 3
  return (bytes + (<u64>1 << clusterBits) - 1) >> clusterBits
}
