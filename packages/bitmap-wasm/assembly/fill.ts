// Ranges of one value, and extents (byte offsets) back to bits.

/** Bits [firstBit, firstBit + bits) become `value`; no other bit changes. */
export function fillRange(dst: usize, firstBit: u32, bits: u32, value: u32): void {
  let ptr = dst + (firstBit >> 3)
  const lead = firstBit & 7
  if (lead + bits <= 64) {
    // One word at any address; what it holds beyond the range is written back as it was. Lanes are padded.
    if (bits) setWord(ptr, (~(<u64>0) >> (64 - bits)) << lead, value)
    return
  }
  if (lead) {
    setByte(ptr++, <u32>0xff << lead, value)
    bits -= 8 - lead
  }
  const whole = bits >> 3
  const byte = value ? 0xff : 0
  // memory.fill is a call out of the module: not worth it for a few vectors.
  if (whole >= 256) memory.fill(ptr, <u8>byte, whole)
  else {
    const ends = ptr + whole
    const vector = i8x16.splat(<i8>byte)
    let at = ptr
    for (; at + 16 <= ends; at += 16) v128.store(at, vector)
    for (; at < ends; at++) store<u8>(at, <u8>byte)
  }
  if (bits & 7) setByte(ptr + whole, (1 << (bits & 7)) - 1, value)
}

@inline function setWord(ptr: usize, mask: u64, value: u32): void {
  const word = load<u64>(ptr)
  store<u64>(ptr, value ? word | mask : word & ~mask)
}

@inline function setByte(ptr: usize, mask: u32, value: u32): void {
  const byte = <u32>load<u8>(ptr)
  store<u8>(ptr, <u8>(value ? byte | mask : byte & ~mask))
}

/** End of the last extent that paint() was done with; 0 before the first. */
export let lastEnd: f64 = 0

/**
 * Paints extents, pairs of f64 byte offsets at `src`, into the window of granules [first, first + bits) at `dst`.
 *
 * With value 1 each granule that an extent touches is set; with value 0 each that it covers is cleared, the disk's
 * last one, which is clipped, by an extent that ends with the disk.
 *
 * @param after no extent may begin before it: extents ascend and do not overlap
 * @param limit the disk's size: no extent may end after it
 * @returns extents that end with the window or before it, so are done with; −1 − index of one that cannot be
 */
export function paint(
  src: usize, extents: u32, after: f64, first: f64, bits: u32, granularity: f64, limit: f64, dst: usize, value: u32
): i32 {
  const end = first + <f64>bits
  // The inverse of a power of two is exact, and a multiplication takes a third of a division's time.
  const isPower = (reinterpret<u64>(granularity) & 0xfffffffffffff) == 0
  const inverse = 1 / granularity
  let last = after
  let i: u32 = 0
  for (; i < extents; i++, src += 16) {
    const from = load<f64>(src)
    const to = load<f64>(src, 8)
    // Written so that a NaN fails.
    if (!(from >= last && from < to && to <= limit) || floor(from) != from || floor(to) != to) return -1 - <i32>i
    // Exact: the quotient of two whole numbers below 2^53 is never rounded up to a whole number.
    const begins = isPower ? from * inverse : from / granularity
    const ends = isPower ? to * inverse : to / granularity
    let low: f64, high: f64
    if (value) {
      low = floor(begins)
      high = ceil(ends)
    } else {
      low = ceil(begins)
      high = to == limit ? ceil(ends) : floor(ends)
    }
    if (low >= end) break
    low = max(low, first)
    if (low < high) {
      const bit = <u32>(low - first)
      const some = <u32>(min(high, end) - low)
      // Short ones by whole words, each at its place: what was just written comes back without a stall.
      if ((bit & 63) + some <= 64) setWord(dst + (bit >> 6 << 3), (~(<u64>0) >> (64 - some)) << (bit & 63), value)
      else fillRange(dst, bit, some, value)
    }
    if (high > end) break
    last = to
  }
  lastEnd = last
  return i
}
