// Set bits, by Harley and Seal: sixteen vectors go through a tree of carry-save adders (five logical instructions
// each), so that only one popcnt is left for them. Its byte sums are widened every 31 rounds, before a lane of 8 bits
// could overflow (31 × 8 = 248).
/** Vectors of one round, in bytes. */
const ROUND: usize = 256

/**
 * Each cache line is touched this far ahead: the adders fill the processor's window of instructions with less than a
 * page, too little to begin with the next one in time. A tenth at 16 MiB and more, nothing within the cache.
 */
const AHEAD: usize = 2048
/** What was touched; kept, so that no compiler leaves it out. */
let warmed: u32 = 0

const UNION: u32 = 0
const INTERSECTION: u32 = 1
const DIFFERENCE: u32 = 2
const XOR: u32 = 3
const NONE: u32 = 4

/** Set bits in `length` bytes. */
export function count(src: usize, length: u32): f64 {
  return countMerged(NONE, src, src, length)
}

/**
 * Set bits in `length` bytes at dst, after they were merged with those at src; `operation` is known when this is
 * compiled, so that one source makes five kernels. NONE merges nothing, and src is not looked at.
 */
@inline function countMerged(operation: u32, dst: usize, src: usize, length: u32): f64 {
  const end = dst + length
  let total: u64 = 0
  let warm: u32 = 0
  const final = end - 1
  let ones = i8x16.splat(0)
  let twos = i8x16.splat(0)
  let fours = i8x16.splat(0)
  let eights = i8x16.splat(0)
  const whole = dst + (length & ~255)
  while (dst < whole) {
    const stop = min(whole, dst + 31 * ROUND)
    let sums = i8x16.splat(0)
    for (; dst < stop; dst += ROUND, src += ROUND) {
      if (operation == NONE) {
        const ahead = dst + AHEAD
        warm |= load<u8>(min(ahead, final)) | load<u8>(min(ahead + 64, final))
          | load<u8>(min(ahead + 128, final)) | load<u8>(min(ahead + 192, final))
      }
      let a = vector(operation, dst, src, 0)
      let b = vector(operation, dst, src, 16)
      let u = v128.xor(ones, a)
      const twosA = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      a = vector(operation, dst, src, 32)
      b = vector(operation, dst, src, 48)
      u = v128.xor(ones, a)
      let twosB = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      u = v128.xor(twos, twosA)
      const foursA = v128.or(v128.and(twos, twosA), v128.and(u, twosB))
      twos = v128.xor(u, twosB)

      a = vector(operation, dst, src, 64)
      b = vector(operation, dst, src, 80)
      u = v128.xor(ones, a)
      const twosC = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      a = vector(operation, dst, src, 96)
      b = vector(operation, dst, src, 112)
      u = v128.xor(ones, a)
      twosB = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      u = v128.xor(twos, twosC)
      let foursB = v128.or(v128.and(twos, twosC), v128.and(u, twosB))
      twos = v128.xor(u, twosB)
      u = v128.xor(fours, foursA)
      const eightsA = v128.or(v128.and(fours, foursA), v128.and(u, foursB))
      fours = v128.xor(u, foursB)

      a = vector(operation, dst, src, 128)
      b = vector(operation, dst, src, 144)
      u = v128.xor(ones, a)
      const twosD = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      a = vector(operation, dst, src, 160)
      b = vector(operation, dst, src, 176)
      u = v128.xor(ones, a)
      twosB = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      u = v128.xor(twos, twosD)
      const foursC = v128.or(v128.and(twos, twosD), v128.and(u, twosB))
      twos = v128.xor(u, twosB)

      a = vector(operation, dst, src, 192)
      b = vector(operation, dst, src, 208)
      u = v128.xor(ones, a)
      const twosE = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      a = vector(operation, dst, src, 224)
      b = vector(operation, dst, src, 240)
      u = v128.xor(ones, a)
      twosB = v128.or(v128.and(ones, a), v128.and(u, b))
      ones = v128.xor(u, b)
      u = v128.xor(twos, twosE)
      foursB = v128.or(v128.and(twos, twosE), v128.and(u, twosB))
      twos = v128.xor(u, twosB)
      u = v128.xor(fours, foursC)
      const eightsB = v128.or(v128.and(fours, foursC), v128.and(u, foursB))
      fours = v128.xor(u, foursB)

      u = v128.xor(eights, eightsA)
      const sixteens = v128.or(v128.and(eights, eightsA), v128.and(u, eightsB))
      eights = v128.xor(u, eightsB)
      sums = i8x16.add(sums, i8x16.popcnt(sixteens))
    }
    total += 16 * bytesOf(sums)
  }
  total += 8 * bytesOf(i8x16.popcnt(eights)) + 4 * bytesOf(i8x16.popcnt(fours))
    + 2 * bytesOf(i8x16.popcnt(twos)) + bytesOf(i8x16.popcnt(ones))
  let sums = i8x16.splat(0)
  for (; dst + 16 <= end; dst += 16, src += 16) {
    sums = i8x16.add(sums, i8x16.popcnt(vector(operation, dst, src, 0)))
  }
  total += bytesOf(sums)
  for (; dst < end; dst++, src++) {
    if (operation != NONE) store<u8>(dst, <u8>mergeWords(operation, load<u8>(dst), load<u8>(src)))
    total += popcnt<u32>(load<u8>(dst))
  }
  if (operation == NONE) warmed = warm
  return <f64>total
}

/** A vector of dst, merged and stored unless the operation is NONE. */
@inline function vector(operation: u32, dst: usize, src: usize, at: usize): v128 {
  const v = v128.load(dst + at)
  if (operation == NONE) return v
  const w = v128.load(src + at)
  const merged = operation == UNION ? v128.or(v, w)
    : operation == INTERSECTION ? v128.and(v, w)
    : operation == DIFFERENCE ? v128.andnot(v, w)
    : v128.xor(v, w)
  v128.store(dst + at, merged)
  return merged
}

@inline function mergeWords(operation: u32, a: u32, b: u32): u32 {
  return operation == UNION ? a | b
    : operation == INTERSECTION ? a & b
    : operation == DIFFERENCE ? a & ~b
    : a ^ b
}

/** The sum of 16 unsigned bytes. */
@inline function bytesOf(sums: v128): u64 {
  const words = i32x4.extadd_pairwise_i16x8_u(i16x8.extadd_pairwise_i8x16_u(sums))
  return <u64>(i32x4.extract_lane(words, 0) + i32x4.extract_lane(words, 1)
    + i32x4.extract_lane(words, 2) + i32x4.extract_lane(words, 3))
}

/** Set bits of the `bits` bits from `firstBit` on. */
export function countRange(src: usize, firstBit: u32, bits: u32): f64 {
  if (!bits) return 0
  let ptr = src + (firstBit >> 3)
  const lead = firstBit & 7
  if (lead) {
    // The first byte by itself, so that the rest begins with one.
    const room = 8 - lead
    const some = min(bits, room)
    const head = (<u32>load<u8>(ptr) >> lead) & ((1 << some) - 1)
    return <f64>popcnt(head) + countRange(ptr + 1, 0, bits - some)
  }
  const whole = bits >> 3
  const rest = <u32>load<u8>(ptr + whole) & ((1 << (bits & 7)) - 1)
  return count(ptr, whole) + <f64>popcnt(rest)
}

/**
 * dst ∘= src, and the number of bits that are set then.
 *
 * @param operation 0 union, 1 intersection, 2 difference, 3 xor
 */
export function mergeCount(operation: u32, dst: usize, src: usize, length: u32): f64 {
  switch (operation) {
    case UNION: return countMerged(UNION, dst, src, length)
    case INTERSECTION: return countMerged(INTERSECTION, dst, src, length)
    case DIFFERENCE: return countMerged(DIFFERENCE, dst, src, length)
    default: return countMerged(XOR, dst, src, length)
  }
}
