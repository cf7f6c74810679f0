// From bits to extents. An edge is a position where a bit differs from the one before it, so edges alternate:
// start, end, start, end. For a word w, the edges are w ^ (w << 1 | the bit before it).
//
// A block of 256 bytes without change is stepped over. Of another one the edges of all words are computed at once,
// two words to a vector, with a mask of the words that have any. These are few in most bitmaps: then four places are
// written without asking how many there are, which spares the processor a guess. A word with more of them goes byte by
// byte through a table: for each of the 256 bytes the places of its set bits, as f64 and already multiplied by the
// granularity. Eight are written each time, of which only those that there are count.
//
//   memory of this module   TABLE    256 × 8 f64     places of a byte's set bits, in bytes of the disk
//                           PLACES   65 f64          place of each bit of a word; the last one stands for none
//                           CHANGES  32 u64          edges of the block at hand
//
// Edges are written as f64 byte offsets into the guest's disk: u32 bit numbers overflow at 2^32 granules, and
// objects or BigInts for each extent would take longer than all the rest.

/** Bits that the last edges() went through; fewer than asked when the room for edges was full. */
export let lastBits: u32 = 0
/** The value of the last bit that it went through: `previous` of the next call. */
export let lastBit: u32 = 0

const TABLE: usize = memory.data(256 * 64, 64)
const PLACES: usize = memory.data(65 * 8, 16)
const CHANGES: usize = memory.data(256, 16)
/** What the tables are for; 0 before the first call. */
let tableGranularity: f64 = 0

/** 256 bytes, 32 words. */
const BLOCK_BITS: u32 = 2048
/** Up to so many edges of a word are taken out one by one. */
const FEW: usize = 6

/**
 * Writes the edges of `bits` bits at `src` as `base + position × granularity`.
 *
 * The last word may be partial: what follows its last bit is ignored. An extent that is open at the end is left
 * to the next call, or to the caller to close.
 *
 * @param src readable up to the next multiple of 8 bytes
 * @param bits at most 2^31, so that no sum of positions wraps
 * @param previous the bit before the first one
 * @param maxEdges room at `out`, at least 64; up to 8 behind them may be overwritten
 */
export function edges(
  src: usize, bits: u32, previous: u32, base: f64, granularity: f64, out: usize, maxEdges: u32
): u32 {
  if (granularity != tableGranularity) makeTables(granularity)
  const start = out
  const full = out + (<usize>maxEdges - 64) * 8
  const blocks = bits & ~(BLOCK_BITS - 1)
  let at: u32 = 0
  while (at < blocks) {
    const ptr = src + (at >> 3)
    if (!changed(ptr, previous)) {
      at += BLOCK_BITS
      continue
    }
    let words = changes(ptr, previous)
    while (words) {
      const k = ctz(words)
      if (out > full) {
        lastBits = at + k * 64
        lastBit = k ? <u32>load<u8>(ptr + k * 8 - 1) >> 7 : previous
        return <u32>(out - start) >> 3
      }
      out = emit(load<u64>(CHANGES + (k << 3)), base + <f64>(at + k * 64) * granularity, granularity, out)
      words &= words - 1
    }
    previous = <u32>load<u8>(ptr, 255) >> 7
    at += BLOCK_BITS
  }
  // Less than a block.
  while (at < bits) {
    const word = load<u64>(src + (at >> 3))
    let changes = word ^ ((word << 1) | <u64>previous)
    const left = bits - at
    let last: u32 = 63
    if (left < 64) {
      changes &= (<u64>1 << left) - 1
      last = left - 1
    }
    if (changes) {
      if (out > full) break
      out = emit(changes, base + <f64>at * granularity, granularity, out)
    }
    previous = <u32>(word >> last) & 1
    at += 64
  }
  lastBits = min(at, bits)
  lastBit = previous
  return <u32>(out - start) >> 3
}

/** Does any of the block's bits differ from the one before it? */
@inline function changed(ptr: usize, previous: u32): bool {
  const same = i8x16.splat(<i8>(0 - previous))
  return v128.any_true(v128.or(
    v128.or(four(ptr, same), four(ptr + 64, same)),
    v128.or(four(ptr + 128, same), four(ptr + 192, same))
  ))
}

@inline function four(ptr: usize, same: v128): v128 {
  return v128.or(
    v128.or(v128.xor(v128.load(ptr), same), v128.xor(v128.load(ptr, 16), same)),
    v128.or(v128.xor(v128.load(ptr, 32), same), v128.xor(v128.load(ptr, 48), same))
  )
}

/** Puts the block's edges into CHANGES. @returns which of its 32 words have any */
@inline function changes(ptr: usize, previous: u32): u32 {
  const first = v128.load(ptr)
  // The first word has no word before it here.
  const before = i64x2.replace_lane(v128.load(ptr - 8), 0, <i64>(<u64>previous << 63))
  const e0 = put(0, first, before)
  const e1 = put(1, v128.load(ptr, 16), v128.load(ptr, 8))
  const a = quad(e0, e1)
  const b = two(ptr, 2)
  const c = two(ptr, 4)
  const d = two(ptr, 6)
  const low = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d))
  const e = two(ptr, 8)
  const f = two(ptr, 10)
  const g = two(ptr, 12)
  const h = two(ptr, 14)
  const high = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(e, f), i16x8.narrow_i32x4_s(g, h))
  return ~(<u32>i8x16.bitmask(low) | (<u32>i8x16.bitmask(high) << 16))
}

@inline function two(ptr: usize, i: u32): v128 {
  const a = ptr + i * 16
  return quad(
    put(i, v128.load(a), v128.load(a - 8)),
    put(i + 1, v128.load(a, 16), v128.load(a, 8))
  )
}

@inline function put(i: u32, word: v128, before: v128): v128 {
  const changes = v128.xor(word, v128.or(i64x2.shl(word, 1), i64x2.shr_u(before, 63)))
  v128.store(CHANGES + i * 16, changes)
  return changes
}

/** −1 for each of four words that is zero. */
@inline function quad(a: v128, b: v128): v128 {
  const zero = i8x16.splat(0)
  return v128.shuffle<i32>(i64x2.eq(a, zero), i64x2.eq(b, zero), 0, 2, 4, 6)
}

/** Writes the places of a word's set bits. @returns where the next one belongs */
@inline function emit(changes: u64, base: f64, granularity: f64, out: usize): usize {
  const n = <usize>popcnt(changes)
  if (n <= FEW) {
    for (let i: usize = 0; i < FEW; i++) {
      store<f64>(out + (i << 3), base + load<f64>(PLACES + (<usize>ctz(changes) << 3)))
      changes &= changes - 1
    }
    return out + n * 8
  }
  return emitMany(changes, base, granularity * 8, out)
}

function emitMany(changes: u64, base: f64, step: f64, out: usize): usize {
  for (let i: u32 = 0; i < 8; i++) {
    const byte = <usize>changes & 0xff
    const row = TABLE + (byte << 6)
    const from = f64x2.splat(base)
    v128.store(out, f64x2.add(v128.load(row), from))
    v128.store(out, f64x2.add(v128.load(row, 16), from), 16)
    v128.store(out, f64x2.add(v128.load(row, 32), from), 32)
    v128.store(out, f64x2.add(v128.load(row, 48), from), 48)
    out += <usize>popcnt(byte) << 3
    base += step
    changes >>= 8
  }
  return out
}

function makeTables(granularity: f64): void {
  tableGranularity = granularity
  for (let i: u32 = 0; i < 64; i++) store<f64>(PLACES + (i << 3), <f64>i * granularity)
  for (let byte: u32 = 1; byte < 256; byte++) {
    let row = TABLE + (byte << 6)
    for (let rest = byte; rest; rest &= rest - 1, row += 8) store<f64>(row, <f64>ctz(rest) * granularity)
  }
}
