// From fine bits to coarse ones: 1 << shift fine bits belong to one coarse bit, which is set when any of them is.
//
// Where a coarse bit takes whole lanes of a vector (shift 3 … 6) lanes are compared with zero and narrowed to bytes,
// and bitmask takes one bit of each: 64 coarse bits a round. Narrower ones are folded and packed, wider ones are
// blocks that are looked through until a bit is found.

/**
 * dst bit (dstBit + (i >> shift)) |= src bit i, for `fineBits` bits; bits of src after them are ignored, those up to
 * the next multiple of 64 must be readable. Up to 9 bytes behind dst's last bit are written back as they were.
 */
export function coarsen(src: usize, fineBits: u32, shift: u32, dst: usize, dstBit: u32): void {
  if (shift >= 9) return coarsenBlocks(src, fineBits, shift, dst, dstBit)
  let done: u32
  switch (shift) {
    case 1: done = coarsen2(src, fineBits, dst, dstBit); break
    case 2: done = coarsen4(src, fineBits, dst, dstBit); break
    case 3: done = coarsen8(src, fineBits, dst, dstBit); break
    case 4: done = coarsen16(src, fineBits, dst, dstBit); break
    case 5: done = coarsen32(src, fineBits, dst, dstBit); break
    case 6: done = coarsen64(src, fineBits, dst, dstBit); break
    default: done = coarsenVectors(src, fineBits, shift, dst, dstBit)
  }
  src += done >> 3
  fineBits -= done
  dstBit += done >> shift
  if (shift >= 6) coarsenBlocks(src, fineBits, shift, dst, dstBit)
  else coarsenRest(src, fineBits, shift, dst, dstBit)
}

/** 64 bytes a round: neighbours fold onto the even bits, these are pulled together within 16 bits, then packed. */
function coarsen2(src: usize, fineBits: u32, dst: usize, dstBit: u32): u32 {
  const whole = fineBits & ~511
  for (let at: u32 = 0; at < whole; at += 512, src += 64, dstBit += 256) {
    const a = v128.load(src)
    const b = v128.load(src, 16)
    const c = v128.load(src, 32)
    const d = v128.load(src, 48)
    if (!v128.any_true(v128.or(v128.or(a, b), v128.or(c, d)))) continue
    orVector(dst, dstBit, i8x16.narrow_i16x8_u(halve(a), halve(b)))
    orVector(dst, dstBit + 128, i8x16.narrow_i16x8_u(halve(c), halve(d)))
  }
  return whole
}

@inline function halve(v: v128): v128 {
  let x = v128.and(v128.or(v, i16x8.shr_u(v, 1)), i16x8.splat(0x5555))
  x = v128.and(v128.or(x, i16x8.shr_u(x, 1)), i16x8.splat(0x3333))
  x = v128.and(v128.or(x, i16x8.shr_u(x, 2)), i16x8.splat(0x0f0f))
  return v128.and(v128.or(x, i16x8.shr_u(x, 4)), i16x8.splat(0x00ff))
}

function coarsen4(src: usize, fineBits: u32, dst: usize, dstBit: u32): u32 {
  const whole = fineBits & ~511
  for (let at: u32 = 0; at < whole; at += 512, src += 64, dstBit += 128) {
    const a = v128.load(src)
    const b = v128.load(src, 16)
    const c = v128.load(src, 32)
    const d = v128.load(src, 48)
    if (!v128.any_true(v128.or(v128.or(a, b), v128.or(c, d)))) continue
    const ab = i8x16.narrow_i16x8_u(quarter(a), quarter(b))
    const cd = i8x16.narrow_i16x8_u(quarter(c), quarter(d))
    orVector(dst, dstBit, i8x16.narrow_i16x8_u(nibbles(ab), nibbles(cd)))
  }
  return whole
}

/** Of each 16 bits the four nibbles' bits. */
@inline function quarter(v: v128): v128 {
  let x = v128.or(v, i16x8.shr_u(v, 1))
  x = v128.and(v128.or(x, i16x8.shr_u(x, 2)), i16x8.splat(0x1111))
  x = v128.or(x, i16x8.shr_u(x, 3))
  return v128.and(v128.or(v128.and(x, i16x8.splat(0x0003)), i16x8.shr_u(v128.and(x, i16x8.splat(0x0300)), 6)), i16x8.splat(0x000f))
}

/** Of two bytes with four bits each one with eight. */
@inline function nibbles(v: v128): v128 {
  return v128.and(v128.or(v, i16x8.shr_u(v, 4)), i16x8.splat(0x00ff))
}

function coarsen8(src: usize, fineBits: u32, dst: usize, dstBit: u32): u32 {
  const whole = fineBits & ~511
  for (let at: u32 = 0; at < whole; at += 512, src += 64, dstBit += 64) {
    const a = i8x16.bitmask(i8x16.eq(v128.load(src), i8x16.splat(0)))
    const b = i8x16.bitmask(i8x16.eq(v128.load(src, 16), i8x16.splat(0)))
    const c = i8x16.bitmask(i8x16.eq(v128.load(src, 32), i8x16.splat(0)))
    const d = i8x16.bitmask(i8x16.eq(v128.load(src, 48), i8x16.splat(0)))
    orBits(dst, dstBit, join(a, b, c, d))
  }
  return whole
}

function coarsen16(src: usize, fineBits: u32, dst: usize, dstBit: u32): u32 {
  const whole = fineBits & ~1023
  for (let at: u32 = 0; at < whole; at += 1024, src += 128, dstBit += 64) {
    orBits(dst, dstBit, join(words16(src), words16(src + 32), words16(src + 64), words16(src + 96)))
  }
  return whole
}

/** 16 bits, for 16 words of 16 bits: 1 where one is zero. */
@inline function words16(src: usize): i32 {
  return i8x16.bitmask(i8x16.narrow_i16x8_s(i16x8.eq(v128.load(src), i8x16.splat(0)), i16x8.eq(v128.load(src, 16), i8x16.splat(0))))
}

function coarsen32(src: usize, fineBits: u32, dst: usize, dstBit: u32): u32 {
  const whole = fineBits & ~2047
  for (let at: u32 = 0; at < whole; at += 2048, src += 256, dstBit += 64) {
    orBits(dst, dstBit, join(words32(src), words32(src + 64), words32(src + 128), words32(src + 192)))
  }
  return whole
}

@inline function words32(src: usize): i32 {
  return i8x16.bitmask(i8x16.narrow_i16x8_s(
    i16x8.narrow_i32x4_s(i32x4.eq(v128.load(src), i8x16.splat(0)), i32x4.eq(v128.load(src, 16), i8x16.splat(0))),
    i16x8.narrow_i32x4_s(i32x4.eq(v128.load(src, 32), i8x16.splat(0)), i32x4.eq(v128.load(src, 48), i8x16.splat(0)))
  ))
}

function coarsen64(src: usize, fineBits: u32, dst: usize, dstBit: u32): u32 {
  const whole = fineBits & ~4095
  for (let at: u32 = 0; at < whole; at += 4096, src += 512, dstBit += 64) {
    orBits(dst, dstBit, join(words64(src), words64(src + 128), words64(src + 256), words64(src + 384)))
  }
  return whole
}

@inline function words64(src: usize): i32 {
  return i8x16.bitmask(i8x16.narrow_i16x8_s(
    i16x8.narrow_i32x4_s(pair64(src), pair64(src + 32)),
    i16x8.narrow_i32x4_s(pair64(src + 64), pair64(src + 96))
  ))
}

/** Four words of 64 bits: −1 where one is zero, as four lanes of 32 bits. */
@inline function pair64(src: usize): v128 {
  return v128.shuffle<i32>(i64x2.eq(v128.load(src), i8x16.splat(0)), i64x2.eq(v128.load(src, 16), i8x16.splat(0)), 0, 2, 4, 6)
}

/** Coarse bits of one vector (shift 7) or two (shift 8). */
function coarsenVectors(src: usize, fineBits: u32, shift: u32, dst: usize, dstBit: u32): u32 {
  const whole = fineBits & ~((64 << shift) - 1)
  for (let at: u32 = 0; at < whole; at += 64 << shift, dstBit += 64) {
    let bits: u64 = 0
    if (shift == 7) {
      for (let i: u64 = 0; i < 64; i++, src += 16) bits |= <u64>v128.any_true(v128.load(src)) << i
    } else {
      for (let i: u64 = 0; i < 64; i++, src += 32) {
        bits |= <u64>v128.any_true(v128.or(v128.load(src), v128.load(src, 16))) << i
      }
    }
    orBits(dst, dstBit, bits)
  }
  return whole
}

/** One coarse bit after the other, each until one of its fine ones is found. */
function coarsenBlocks(src: usize, fineBits: u32, shift: u32, dst: usize, dstBit: u32): void {
  for (let at: u32 = 0; at < fineBits; dstBit++) {
    const bits = min(fineBits - at, <u32>1 << shift)
    if (anySet(src + (at >> 3), bits)) {
      const ptr = dst + (dstBit >> 3)
      store<u8>(ptr, load<u8>(ptr) | (<u8>1 << <u8>(dstBit & 7)))
    }
    at += bits
  }
}

/** Is any of `bits` bits set? Reads whole words. */
export function anySet(src: usize, bits: u32): bool {
  let at: u32 = 0
  for (; at + 512 <= bits; at += 512, src += 64) {
    if (v128.any_true(v128.or(
      v128.or(v128.load(src), v128.load(src, 16)),
      v128.or(v128.load(src, 32), v128.load(src, 48))
    ))) return true
  }
  for (; at + 64 <= bits; at += 64, src += 8) if (load<u64>(src)) return true
  return at < bits && (load<u64>(src) << (64 - <u64>(bits - at))) != 0
}

/** The rest, less than a round: word by word. */
function coarsenRest(src: usize, fineBits: u32, shift: u32, dst: usize, dstBit: u32): void {
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

/** Four times 16 bits, inverted: what compared equal to zero is not set. */
@inline function join(a: i32, b: i32, c: i32, d: i32): u64 {
  return ~(<u64>(<u32>a | (<u32>b << 16)) | (<u64>(<u32>c | (<u32>d << 16)) << 32))
}

/** ORs 64 bits into memory at any bit position. */
@inline function orBits(dst: usize, dstBit: u32, bits: u64): void {
  const ptr = dst + (dstBit >> 3)
  const lead = <u64>(dstBit & 7)
  store<u64>(ptr, load<u64>(ptr) | (bits << lead))
  if (lead) store<u8>(ptr + 8, load<u8>(ptr + 8) | <u8>(bits >> (64 - lead)))
}

@inline function orVector(dst: usize, dstBit: u32, bits: v128): void {
  if (dstBit & 7) {
    orBits(dst, dstBit, i64x2.extract_lane(bits, 0))
    orBits(dst, dstBit + 64, i64x2.extract_lane(bits, 1))
  } else {
    const ptr = dst + (dstBit >> 3)
    v128.store(ptr, v128.or(v128.load(ptr), bits))
  }
}
