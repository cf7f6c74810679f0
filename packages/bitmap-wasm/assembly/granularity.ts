// Between granularities, which differ by a power of two: 1 << shift fine bits belong to one coarse bit.

/**
 * dst bit i = src bit (srcBit + i) >> shift … : every coarse bit is spread over its fine ones.
 * Writes whole bytes: `fineBits` is rounded up to a multiple of 8, the caller masks the tail.
 *
 * @param coarseBit index at `src` of the coarse bit that the first fine bit belongs to; for a shift below 3
 *   a multiple of 8
 */
export function refine(src: usize, coarseBit: u32, shift: u32, dst: usize, fineBits: u32): void {
  if (shift < 3) refineNarrow(src + (coarseBit >> 3), shift, dst, (fineBits + 7) >> 3)
  else refineWide(src, coarseBit, shift, dst, (fineBits + 7) >> 3)
}

/** Each coarse bit becomes 2 or 4 fine ones: one byte in, two or four out. */
function refineNarrow(src: usize, shift: u32, dst: usize, dstBytes: u32): void {
  const end = dst + dstBytes
  while (dst < end) {
    let fine = spread(load<u8>(src++))
    if (shift == 2) fine = spread(fine & 0xff) | (spread(fine >> 8) << 16)
    const step = <u32>1 << shift
    for (let i: u32 = 0; i < step && dst < end; i++, dst++) {
      store<u8>(dst, <u8>fine)
      fine >>= 8
    }
  }
}

/** Doubles each of 8 bits: abcdefgh → aabbccddeeffgghh. */
@inline function spread(byte: u32): u32 {
  let x = byte
  x = (x | (x << 4)) & 0x0f0f
  x = (x | (x << 2)) & 0x3333
  x = (x | (x << 1)) & 0x5555
  return x | (x << 1)
}

/** Each coarse bit becomes whole bytes. */
function refineWide(src: usize, coarseBit: u32, shift: u32, dst: usize, dstBytes: u32): void {
  const step = <u32>1 << (shift - 3)
  memory.fill(dst, 0, dstBytes)
  let at: u32 = 0
  while (at < dstBytes) {
    // 64 clear coarse bits at a time: the room is zero already.
    if (!(coarseBit & 7) && <u64>step * 64 <= <u64>(dstBytes - at) && load<u64>(src + (coarseBit >> 3)) == 0) {
      coarseBit += 64
      at += step * 64
      continue
    }
    const room = min(step, dstBytes - at)
    if ((load<u8>(src + (coarseBit >> 3)) >> <u8>(coarseBit & 7)) & 1) memory.fill(dst + at, 0xff, room)
    coarseBit++
    at += room
  }
}

/**
 * dst bit (dstBit + (i >> shift)) |= src bit i: a coarse bit is set when any of its fine ones is.
 * The bits of src after `fineBits` up to the next multiple of 64 must be readable; they are ignored.
 */
export function coarsen(src: usize, fineBits: u32, shift: u32, dst: usize, dstBit: u32): void {
  if (shift >= 6) return coarsenWords(src, fineBits, shift, dst, dstBit)
  const perWord = <u32>64 >> shift
  for (let at: u32 = 0; at < fineBits; at += 64, dstBit += perWord) {
    let word = load<u64>(src + (at >> 3))
    const left = fineBits - at
    if (left < 64) word &= (<u64>1 << left) - 1
    if (!word) continue
    // Fold each group of 1 << shift bits onto its lowest, then pull these together.
    let folded = word
    for (let s: u32 = 0; s < shift; s++) folded |= folded >> (<u64>1 << s)
    let packed: u64 = 0
    for (let i: u32 = 0; i < perWord; i++) packed |= ((folded >> (<u64>i << shift)) & 1) << i
    orBits(dst, dstBit, packed)
  }
}

function coarsenWords(src: usize, fineBits: u32, shift: u32, dst: usize, dstBit: u32): void {
  for (let at: u32 = 0; at < fineBits; at += 64) {
    let word = load<u64>(src + (at >> 3))
    const left = fineBits - at
    if (left < 64) word &= (<u64>1 << left) - 1
    if (!word) continue
    const bit = dstBit + (at >> shift)
    const ptr = dst + (bit >> 3)
    store<u8>(ptr, load<u8>(ptr) | (<u8>1 << <u8>(bit & 7)))
    // The rest of this coarse bit's fine ones cannot change it.
    if (shift < 32) at = (((at >> shift) + 1) << shift) - 64
    else return
  }
}

/** ORs up to 32 bits into memory at any bit position: with 7 before them they fit a word. Lanes are padded. */
@inline function orBits(dst: usize, dstBit: u32, bits: u64): void {
  const ptr = dst + (dstBit >> 3)
  store<u64>(ptr, load<u64>(ptr) | (bits << <u64>(dstBit & 7)))
}
