// dst ∘= src over `length` bytes. In place, four vectors a round, loads before stores: that keeps pace with
// gcc -O3 -march=native; a three-operand form takes twice the time (V8 spills).
// Lanes are 16-byte aligned and padded, yet any length is exact: the tail goes byte by byte.

export function union(dst: usize, src: usize, length: u32): void {
  const end = dst + length
  const wide = dst + (length & ~63)
  for (; dst < wide; dst += 64, src += 64) {
    const a = v128.or(v128.load(dst), v128.load(src))
    const b = v128.or(v128.load(dst, 16), v128.load(src, 16))
    const c = v128.or(v128.load(dst, 32), v128.load(src, 32))
    const d = v128.or(v128.load(dst, 48), v128.load(src, 48))
    v128.store(dst, a)
    v128.store(dst, b, 16)
    v128.store(dst, c, 32)
    v128.store(dst, d, 48)
  }
  for (; dst < end; dst++, src++) store<u8>(dst, load<u8>(dst) | load<u8>(src))
}

export function intersection(dst: usize, src: usize, length: u32): void {
  const end = dst + length
  const wide = dst + (length & ~63)
  for (; dst < wide; dst += 64, src += 64) {
    const a = v128.and(v128.load(dst), v128.load(src))
    const b = v128.and(v128.load(dst, 16), v128.load(src, 16))
    const c = v128.and(v128.load(dst, 32), v128.load(src, 32))
    const d = v128.and(v128.load(dst, 48), v128.load(src, 48))
    v128.store(dst, a)
    v128.store(dst, b, 16)
    v128.store(dst, c, 32)
    v128.store(dst, d, 48)
  }
  for (; dst < end; dst++, src++) store<u8>(dst, load<u8>(dst) & load<u8>(src))
}

export function difference(dst: usize, src: usize, length: u32): void {
  const end = dst + length
  const wide = dst + (length & ~63)
  for (; dst < wide; dst += 64, src += 64) {
    const a = v128.andnot(v128.load(dst), v128.load(src))
    const b = v128.andnot(v128.load(dst, 16), v128.load(src, 16))
    const c = v128.andnot(v128.load(dst, 32), v128.load(src, 32))
    const d = v128.andnot(v128.load(dst, 48), v128.load(src, 48))
    v128.store(dst, a)
    v128.store(dst, b, 16)
    v128.store(dst, c, 32)
    v128.store(dst, d, 48)
  }
  for (; dst < end; dst++, src++) store<u8>(dst, load<u8>(dst) & ~load<u8>(src))
}

export function xor(dst: usize, src: usize, length: u32): void {
  const end = dst + length
  const wide = dst + (length & ~63)
  for (; dst < wide; dst += 64, src += 64) {
    const a = v128.xor(v128.load(dst), v128.load(src))
    const b = v128.xor(v128.load(dst, 16), v128.load(src, 16))
    const c = v128.xor(v128.load(dst, 32), v128.load(src, 32))
    const d = v128.xor(v128.load(dst, 48), v128.load(src, 48))
    v128.store(dst, a)
    v128.store(dst, b, 16)
    v128.store(dst, c, 32)
    v128.store(dst, d, 48)
  }
  for (; dst < end; dst++, src++) store<u8>(dst, load<u8>(dst) ^ load<u8>(src))
}

/** Inverts `bits` bits; what follows in the last byte is cleared. */
export function complement(dst: usize, bits: u32): void {
  const length = bits >> 3
  const end = dst + length
  const wide = dst + (length & ~63)
  for (; dst < wide; dst += 64) {
    const a = v128.not(v128.load(dst))
    const b = v128.not(v128.load(dst, 16))
    const c = v128.not(v128.load(dst, 32))
    const d = v128.not(v128.load(dst, 48))
    v128.store(dst, a)
    v128.store(dst, b, 16)
    v128.store(dst, c, 32)
    v128.store(dst, d, 48)
  }
  for (; dst < end; dst++) store<u8>(dst, ~load<u8>(dst))
  if (bits & 7) store<u8>(dst, <u8>(~<u32>load<u8>(dst) & ((1 << (bits & 7)) - 1)))
}

/** Clears the bits from `bits` up to the end of `length` bytes: what lies after a bitmap's last bit means nothing. */
export function maskTail(dst: usize, bits: u32, length: u32): void {
  let whole = bits >> 3
  if (whole >= length) return
  const rest = bits & 7
  if (rest) {
    store<u8>(dst + whole, load<u8>(dst + whole) & <u8>((<u32>1 << rest) - 1))
    whole++
  }
  memory.fill(dst + whole, 0, length - whole)
}

/** @param operation 0 union, 1 intersection, 2 difference, 3 xor */
export function mergeBlock(operation: u32, dst: usize, src: usize, length: u32): void {
  switch (operation) {
    case 0: return union(dst, src, length)
    case 1: return intersection(dst, src, length)
    case 2: return difference(dst, src, length)
    default: return xor(dst, src, length)
  }
}
