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
  lastEnd = after
  for (let i: u32 = 0; i < extents; i++, src += 16) {
    const from = load<f64>(src)
    const to = load<f64>(src, 8)
    // Written so that a NaN fails.
    if (!(from >= lastEnd && from < to && to <= limit) || floor(from) != from || floor(to) != to) return -1 - <i32>i
    // Exact: the quotient of two whole numbers below 2^53 is never rounded up to a whole number.
    let low: f64, high: f64
    if (value) {
      low = floor(from / granularity)
      high = ceil(to / granularity)
    } else {
      low = ceil(from / granularity)
      high = to == limit ? ceil(to / granularity) : floor(to / granularity)
    }
    if (low >= end) return i
    low = max(low, first)
    if (low < high) fillRange(dst, <u32>(low - first), <u32>(min(high, end) - low), value)
    if (high > end) return i
    lastEnd = to
  }
  return extents
}
