// Big-endian loads, and the limits of numbers that JavaScript can hold exactly.

@inline export function be16(ptr: usize): u32 {
  return <u32>bswap<u16>(load<u16>(ptr))
}

@inline export function be32(ptr: usize): u32 {
  return bswap<u32>(load<u32>(ptr))
}

@inline export function be64(ptr: usize): u64 {
  return bswap<u64>(load<u64>(ptr))
}

/** 2^53 − 1: above it an f64 no longer tells neighbours apart. */
export const MAX_SAFE: u64 = 0x1fffffffffffff

/** First byte of memory that the module itself does not use: the caller's arena begins here. */
export const HEAP_BASE: usize = __heap_base
