// From coarse bits to fine ones: each is spread over 1 << shift of them.
//
// All is counted in *fine* positions: fine bit p belongs to coarse bit p >> shift, and a window may begin at any p.
// Whole fine bytes are made first, as if it began with a byte, by the kernel for the shift:
//
//   ×2, ×4        nibbles through tables (swizzle), interleaved
//   ×8 … ×64      a coarse byte in every lane, one of its bits for each (and), compared with that bit (eq)
//   ×128 …        one value for each coarse bit: stores, or memory.fill for long ones
//
// Then, where it does not begin with a byte, they move down by up to 7 bits.
import { anySet } from './coarsen'
import { mergeBlock } from './merge'

/** Fine bytes that refineMerge() makes at a time. */
const BLOCK_BYTES: u32 = 4096
const BLOCK: usize = memory.data(4096 + 16, 16)

/**
 * dst bit i = src bit (position + i) >> shift, for `fineBits` bits; the rest of the last byte is cleared.
 *
 * @param position of the first fine bit, less than 2^53
 */
export function refine(src: usize, position: f64, shift: u32, dst: usize, fineBits: u32): void {
  const first = <u64>position
  const bytes = (fineBits + 7) >> 3
  refineBytes(src, first >> 3, shift, dst, bytes)
  const lead = <u32>first & 7
  if (lead && bytes) {
    // The byte after the last one, that its highest bits come from.
    moveDown(dst, bytes, lead, fineByte(src, (first >> 3) + bytes, shift))
  }
  if (fineBits & 7) {
    const last = dst + bytes - 1
    store<u8>(last, <u8>(<u32>load<u8>(last) & ((1 << (fineBits & 7)) - 1)))
  }
}

/**
 * dst ∘= refined src, for exactly `fineBits` bits: block by block through a place that stays in the cache. Stretches
 * of clear coarse bits cost nothing but for the intersection, which clears what they cover.
 *
 * @param operation as in mergeCount
 */
export function refineMerge(
  operation: u32, src: usize, position: f64, shift: u32, dst: usize, fineBits: u32
): void {
  const intersects = operation == 1
  while (fineBits) {
    const bits = min(fineBits, BLOCK_BYTES << 3)
    const bytes = (bits + 7) >> 3
    const first = <u64>position >> shift
    const last = (<u64>position + bits - 1) >> shift
    const from = src + <usize>(first >> 3)
    const clear = !anySet(from, (<u32>(last >> 3) - <u32>(first >> 3) + 1) << 3)
    if (!clear) {
      refine(src, position, shift, BLOCK, bits)
      // What follows the last bit stays as it is.
      if (intersects && (bits & 7)) {
        const end = BLOCK + bytes - 1
        store<u8>(end, load<u8>(end) | <u8>(<u32>0xff << (bits & 7)))
      }
      mergeBlock(operation, dst, BLOCK, bytes)
    } else if (intersects) {
      memory.fill(dst, 0, bits >> 3)
      if (bits & 7) {
        const end = dst + bytes - 1
        store<u8>(end, load<u8>(end) & <u8>(<u32>0xff << (bits & 7)))
      }
    }
    dst += bytes
    position += <f64>bits
    fineBits -= bits
  }
}

/** Fine bytes [first, first + bytes), whole. */
function refineBytes(src: usize, first: u64, shift: u32, dst: usize, bytes: u32): void {
  if (shift >= 7) return refineBlocks(src, first, shift, dst, bytes)
  const end = dst + bytes
  // Up to a whole coarse byte, one by one.
  const perByte = (<u64>1 << shift) - 1
  for (; dst < end && (first & perByte); first++, dst++) store<u8>(dst, fineByte(src, first, shift))
  const coarse = src + <usize>(first >> shift)
  const start = dst
  switch (shift) {
    case 1: dst = refine2(coarse, dst, end); break
    case 2: dst = refine4(coarse, dst, end); break
    case 3: dst = refine8(coarse, dst, end); break
    case 4: dst = refine16(coarse, dst, end); break
    case 5: dst = refine32(coarse, dst, end); break
    default: dst = refine64(coarse, dst, end)
  }
  first += dst - start
  for (; dst < end; first++, dst++) store<u8>(dst, fineByte(src, first, shift))
}

/** One fine byte of any shift. */
function fineByte(src: usize, index: u64, shift: u32): u8 {
  if (shift >= 3) {
    const bit = index >> (shift - 3)
    return <u8>(0 - ((<u32>load<u8>(src + <usize>(bit >> 3)) >> (<u32>bit & 7)) & 1))
  }
  const byte = <u32>load<u8>(src + <usize>(index >> shift))
  if (shift == 1) {
    let x = (byte >> ((<u32>index & 1) << 2)) & 15
    x = (x | (x << 2)) & 0x33
    x = (x | (x << 1)) & 0x55
    return <u8>(x | (x << 1))
  }
  const pair = (byte >> ((<u32>index & 3) << 1)) & 3
  return <u8>((pair & 1) * 0x0f | (pair >> 1) * 0xf0)
}

function refine2(src: usize, dst: usize, end: usize): usize {
  const table = i8x16(
    // 0x00, 0x03, 0x0c, 0x0f, 0x30, 0x33, 0x3c, 0x3f, 0xc0, 0xc3, 0xcc, 0xcf, 0xf0, 0xf3, 0xfc, 0xff
    0, 3, 12, 15, 48, 51, 60, 63, -64, -61, -52, -49, -16, -13, -4, -1
  )
  const nibble = i8x16.splat(15)
  for (; dst + 32 <= end; src += 16, dst += 32) {
    const v = v128.load(src)
    const low = i8x16.swizzle(table, v128.and(v, nibble))
    const high = i8x16.swizzle(table, v128.and(i16x8.shr_u(v, 4), nibble))
    v128.store(dst, v128.shuffle<i8>(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23))
    v128.store(dst, v128.shuffle<i8>(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), 16)
  }
  return dst
}

function refine4(src: usize, dst: usize, end: usize): usize {
  const even = i8x16(
    // 0x00, 0x0f, 0xf0, 0xff, 0x00, 0x0f, 0xf0, 0xff, 0x00, 0x0f, 0xf0, 0xff, 0x00, 0x0f, 0xf0, 0xff
    0, 15, -16, -1, 0, 15, -16, -1, 0, 15, -16, -1, 0, 15, -16, -1
  )
  const odd = i8x16(
    // 0x00, 0x00, 0x00, 0x00, 0x0f, 0x0f, 0x0f, 0x0f, 0xf0, 0xf0, 0xf0, 0xf0, 0xff, 0xff, 0xff, 0xff
    0, 0, 0, 0, 15, 15, 15, 15, -16, -16, -16, -16, -1, -1, -1, -1
  )
  const nibble = i8x16.splat(15)
  for (; dst + 64 <= end; src += 16, dst += 64) {
    const v = v128.load(src)
    const l = v128.and(v, nibble)
    const h = v128.and(i16x8.shr_u(v, 4), nibble)
    const l0 = i8x16.swizzle(even, l)
    const l1 = i8x16.swizzle(odd, l)
    const h0 = i8x16.swizzle(even, h)
    const h1 = i8x16.swizzle(odd, h)
    const la = v128.shuffle<i8>(l0, l1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    const lb = v128.shuffle<i8>(l0, l1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    const ha = v128.shuffle<i8>(h0, h1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    const hb = v128.shuffle<i8>(h0, h1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    v128.store(dst, v128.shuffle<i16>(la, ha, 0, 8, 1, 9, 2, 10, 3, 11))
    v128.store(dst, v128.shuffle<i16>(la, ha, 4, 12, 5, 13, 6, 14, 7, 15), 16)
    v128.store(dst, v128.shuffle<i16>(lb, hb, 0, 8, 1, 9, 2, 10, 3, 11), 32)
    v128.store(dst, v128.shuffle<i16>(lb, hb, 4, 12, 5, 13, 6, 14, 7, 15), 48)
  }
  return dst
}

function refine8(src: usize, dst: usize, end: usize): usize {
  const bits = i8x16(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128)
  for (; dst + 64 <= end; src += 8, dst += 64) {
    const v = v128.load64_splat(src)
    v128.store(dst, lit8(i8x16.swizzle(v, i8x16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)), bits))
    v128.store(dst, lit8(i8x16.swizzle(v, i8x16(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)), bits), 16)
    v128.store(dst, lit8(i8x16.swizzle(v, i8x16(4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5)), bits), 32)
    v128.store(dst, lit8(i8x16.swizzle(v, i8x16(6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7)), bits), 48)
  }
  return dst
}

@inline function lit8(v: v128, bits: v128): v128 {
  return i8x16.eq(v128.and(v, bits), bits)
}

function refine16(src: usize, dst: usize, end: usize): usize {
  const bits = i16x8(1, 2, 4, 8, 16, 32, 64, 128)
  for (; dst + 64 <= end; src += 4, dst += 64) {
    v128.store(dst, lit16(v128.load8_splat(src), bits))
    v128.store(dst, lit16(v128.load8_splat(src, 1), bits), 16)
    v128.store(dst, lit16(v128.load8_splat(src, 2), bits), 32)
    v128.store(dst, lit16(v128.load8_splat(src, 3), bits), 48)
  }
  return dst
}

@inline function lit16(v: v128, bits: v128): v128 {
  return i16x8.eq(v128.and(v, bits), bits)
}

function refine32(src: usize, dst: usize, end: usize): usize {
  const low = i32x4(1, 2, 4, 8)
  const high = i32x4(16, 32, 64, 128)
  for (; dst + 64 <= end; src += 2, dst += 64) {
    const a = v128.load8_splat(src)
    const b = v128.load8_splat(src, 1)
    v128.store(dst, i32x4.eq(v128.and(a, low), low))
    v128.store(dst, i32x4.eq(v128.and(a, high), high), 16)
    v128.store(dst, i32x4.eq(v128.and(b, low), low), 32)
    v128.store(dst, i32x4.eq(v128.and(b, high), high), 48)
  }
  return dst
}

function refine64(src: usize, dst: usize, end: usize): usize {
  const a = i64x2(1, 2)
  const b = i64x2(4, 8)
  const c = i64x2(16, 32)
  const d = i64x2(64, 128)
  for (; dst + 64 <= end; src++, dst += 64) {
    const v = v128.load8_splat(src)
    v128.store(dst, i64x2.eq(v128.and(v, a), a))
    v128.store(dst, i64x2.eq(v128.and(v, b), b), 16)
    v128.store(dst, i64x2.eq(v128.and(v, c), c), 32)
    v128.store(dst, i64x2.eq(v128.and(v, d), d), 48)
  }
  return dst
}

/** Each coarse bit becomes 16 bytes or more, all alike. */
function refineBlocks(src: usize, first: u64, shift: u32, dst: usize, bytes: u32): void {
  const step = <u32>1 << (shift - 3)
  const end = dst + bytes
  const short = shift <= 9
  let bit = first >> (shift - 3)
  let within = <u32>first & (step - 1)
  while (dst < end) {
    const ptr = src + <usize>(bit >> 3)
    const left = <u32>(end - dst)
    // 64 clear coarse bits at a time.
    if (!within && !(<u32>bit & 7) && <u64>step * 64 <= <u64>left && load<u64>(ptr) == 0) {
      memory.fill(dst, 0, step * 64)
      bit += 64
      dst += step * 64
      continue
    }
    // Eight coarse bits of a few vectors each.
    if (short && !within && !(<u32>bit & 7) && step * 8 <= left) {
      let byte = <u32>load<u8>(ptr)
      for (let i: u32 = 0; i < 8; i++, byte >>= 1) {
        const vector = i8x16.splat(<i8>(0 - (byte & 1)))
        v128.store(dst, vector)
        if (step > 16) {
          v128.store(dst, vector, 16)
          if (step > 32) {
            v128.store(dst, vector, 32)
            v128.store(dst, vector, 48)
          }
        }
        dst += step
      }
      bit += 8
      continue
    }
    const value = <u8>(0 - ((<u32>load<u8>(ptr) >> (<u32>bit & 7)) & 1))
    const room = min(step - within, left)
    if (room >= 512) memory.fill(dst, value, room)
    else {
      const stop = dst + room
      const vector = i8x16.splat(<i8>value)
      let at = dst
      for (; at + 16 <= stop; at += 16) v128.store(at, vector)
      for (; at < stop; at++) store<u8>(at, value)
    }
    within = 0
    dst += room
    bit++
  }
}

/** Moves `bytes` bytes down by `lead` bits, 1 … 7; `next` is the byte after them. */
function moveDown(dst: usize, bytes: u32, lead: u32, next: u8): void {
  const end = dst + bytes - 1
  for (; dst + 16 <= end; dst += 16) {
    v128.store(dst, v128.or(i8x16.shr_u(v128.load(dst), lead), i8x16.shl(v128.load(dst, 1), 8 - lead)))
  }
  for (; dst < end; dst++) store<u8>(dst, <u8>((<u32>load<u8>(dst) >> lead) | (<u32>load<u8>(dst, 1) << (8 - lead))))
  store<u8>(end, <u8>((<u32>load<u8>(end) >> lead) | (<u32>next << (8 - lead))))
}
