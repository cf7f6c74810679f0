// Set bits in `length` bytes. popcnt of 16 bytes at a time; the byte sums are widened every 31 rounds, before
// a lane of 8 bits could overflow (31 × 8 = 248).

export function count(src: usize, length: u32): f64 {
  const end = src + length
  const wide = src + (length & ~15)
  let total: u64 = 0
  while (src < wide) {
    const stop = min(wide, src + 31 * 16)
    let sums = i8x16.splat(0)
    for (; src < stop; src += 16) sums = i8x16.add(sums, i8x16.popcnt(v128.load(src)))
    const words = i32x4.extadd_pairwise_i16x8_u(i16x8.extadd_pairwise_i8x16_u(sums))
    total += i32x4.extract_lane(words, 0) + i32x4.extract_lane(words, 1)
      + i32x4.extract_lane(words, 2) + i32x4.extract_lane(words, 3)
  }
  for (; src < end; src++) total += popcnt<u32>(load<u8>(src))
  return <f64>total
}
