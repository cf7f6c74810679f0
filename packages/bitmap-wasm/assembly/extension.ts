// The 24-byte payload of the bitmaps header extension (qcow2 specification, "Bitmaps extension").
//
//   0  u32  nb_bitmaps              1 … 65535
//   4  u32  reserved                0
//   8  u64  bitmap_directory_size   ≤ 1024 × 65535 in QEMU
//  16  u64  bitmap_directory_offset cluster-aligned
import { MAX_SAFE, be32, be64 } from './bytes'

/** QEMU's range: 512 bytes to 2 MiB. */
export const MIN_CLUSTER_BITS: u32 = 9
export const MAX_CLUSTER_BITS: u32 = 21

export const EXTENSION_BYTES: u32 = 24
export const MAX_BITMAPS: u32 = 65535
/** QEMU's BME_MAX_… limits give each entry at most 1,024 bytes of directory. */
export const MAX_DIRECTORY_BYTES: u32 = 1024 * 65535
export const MIN_ENTRY_BYTES: u32 = 24

export const EXT_COUNT_ZERO: u32 = 1 << 0
export const EXT_COUNT_TOO_LARGE: u32 = 1 << 1
export const EXT_RESERVED_NOT_ZERO: u32 = 1 << 2
export const EXT_DIRECTORY_TOO_LARGE: u32 = 1 << 3
export const EXT_DIRECTORY_TOO_SMALL: u32 = 1 << 4
export const EXT_OFFSET_ZERO: u32 = 1 << 5
export const EXT_OFFSET_UNALIGNED: u32 = 1 << 6
export const EXT_PAST_END_OF_FILE: u32 = 1 << 7

/**
 * Reads the payload at `src` into out: f64 count, f64 reserved, f64 directory size, f64 directory offset.
 * The two u64 are rounded to f64; a value that f64 cannot hold is past every file and flagged as such.
 * Returns the EXT_… violations.
 */
export function parseExtension(src: usize, clusterBits: u32, fileBytes: f64, out: usize): u32 {
  const count = be32(src)
  const reserved = be32(src + 4)
  const size = be64(src + 8)
  const offset = be64(src + 16)
  store<f64>(out, <f64>count)
  store<f64>(out + 8, <f64>reserved)
  store<f64>(out + 16, <f64>size)
  store<f64>(out + 24, <f64>offset)

  let violations: u32 = 0
  if (count == 0) violations |= EXT_COUNT_ZERO
  if (count > MAX_BITMAPS) violations |= EXT_COUNT_TOO_LARGE
  if (reserved != 0) violations |= EXT_RESERVED_NOT_ZERO
  if (size > MAX_DIRECTORY_BYTES) violations |= EXT_DIRECTORY_TOO_LARGE
  if (size < <u64>count * MIN_ENTRY_BYTES) violations |= EXT_DIRECTORY_TOO_SMALL
  if (offset == 0) violations |= EXT_OFFSET_ZERO
  if (offset & ((1 << <u64>clusterBits) - 1)) violations |= EXT_OFFSET_UNALIGNED
  if (offset > MAX_SAFE || size > MAX_SAFE || <f64>offset + <f64>size > fileBytes) {
    violations |= EXT_PAST_END_OF_FILE
  }
  return violations
}
