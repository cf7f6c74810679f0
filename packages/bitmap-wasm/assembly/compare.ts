// Looking without changing: are two bitmaps equal, is one within the other, where is the next bit.

/** 1 if the first `length` bytes are the same. */
export function equals(a: usize, b: usize, length: u32): u32 {
  const end = a + length
  const wide = a + (length & ~63)
  for (; a < wide; a += 64, b += 64) {
    const differs = v128.or(
      v128.or(v128.xor(v128.load(a), v128.load(b)), v128.xor(v128.load(a, 16), v128.load(b, 16))),
      v128.or(v128.xor(v128.load(a, 32), v128.load(b, 32)), v128.xor(v128.load(a, 48), v128.load(b, 48)))
    )
    if (v128.any_true(differs)) return 0
  }
  for (; a < end; a++, b++) if (load<u8>(a) != load<u8>(b)) return 0
  return 1
}

/** The first of `bits` bits that is set in a and not in b, or −1. Reads whole words. */
export function firstViolation(a: usize, b: usize, bits: u32): i32 {
  const wide = bits & ~511
  let at: u32 = 0
  for (; at < wide; at += 512) {
    const p = a + (at >> 3)
    const q = b + (at >> 3)
    const lacks = v128.or(
      v128.or(v128.andnot(v128.load(p), v128.load(q)), v128.andnot(v128.load(p, 16), v128.load(q, 16))),
      v128.or(v128.andnot(v128.load(p, 32), v128.load(q, 32)), v128.andnot(v128.load(p, 48), v128.load(q, 48)))
    )
    if (v128.any_true(lacks)) break
  }
  for (; at < bits; at += 64) {
    const word = load<u64>(a + (at >> 3)) & ~load<u64>(b + (at >> 3))
    if (word) {
      const found = at + <u32>ctz(word)
      return found < bits ? found : -1
    }
  }
  return -1
}

/** The first bit from `from` on, below `bits`, that has the value; or −1. Reads whole words. */
export function nextBit(src: usize, from: u32, bits: u32, value: u32): i32 {
  if (from >= bits) return -1
  const flip: u64 = value ? 0 : ~(<u64>0)
  let at = from & ~7
  let word = (load<u64>(src + (at >> 3)) ^ flip) & (~(<u64>0) << (from & 7))
  if (!word) {
    at += 64
    const other = i64x2.splat(flip)
    for (; at + 512 <= bits; at += 512) {
      const ptr = src + (at >> 3)
      const found = v128.or(
        v128.or(v128.xor(v128.load(ptr), other), v128.xor(v128.load(ptr, 16), other)),
        v128.or(v128.xor(v128.load(ptr, 32), other), v128.xor(v128.load(ptr, 48), other))
      )
      if (v128.any_true(found)) break
    }
    while (true) {
      if (at >= bits) return -1
      word = load<u64>(src + (at >> 3)) ^ flip
      if (word) break
      at += 64
    }
  }
  const found = at + <u32>ctz(word)
  return found < bits ? found : -1
}
