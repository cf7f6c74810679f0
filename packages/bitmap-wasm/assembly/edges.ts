// From bits to extents. An edge is a position where a bit differs from the one before it, so edges alternate:
// start, end, start, end. For a word w, the edges are w ^ (w << 1 | previous bit), taken out lowest first.
// Stretches without change are stepped over 64 bytes at a time.
//
// Edges are written as f64 byte offsets into the guest's disk: u32 bit numbers overflow at 2^32 granules, and
// objects or BigInts for each extent would take longer than all the rest.

/** Bits that the last edges() went through; fewer than asked when the room for edges was full. */
export let lastBits: u32 = 0
/** The value of the last bit that it went through: `previous` of the next call. */
export let lastBit: u32 = 0

/**
 * Writes the edges of `bits` bits at `src` as `base + position × granularity`.
 *
 * The last word may be partial: what follows its last bit is ignored. An extent that is open at the end is left
 * to the next call, or to the caller to close.
 *
 * @param src readable up to the next multiple of 8 bytes
 * @param bits at most 2^31, so that no sum of positions wraps
 * @param previous the bit before the first one
 * @param maxEdges room at `out`, at least 64
 */
export function edges(
  src: usize, bits: u32, previous: u32, base: f64, granularity: f64, out: usize, maxEdges: u32
): u32 {
  const start = out
  const full = out + (<usize>maxEdges - 64) * 8
  let at: u32 = 0
  while (at < bits) {
    const ptr = src + (at >> 3)
    if (at + 512 <= bits) {
      const same = v128.or(
        v128.or(flips(ptr, previous), flips(ptr + 16, previous)),
        v128.or(flips(ptr + 32, previous), flips(ptr + 48, previous))
      )
      if (!v128.any_true(same)) {
        at += 512
        continue
      }
    }
    if (out > full) break
    const word = load<u64>(ptr)
    const left = bits - at
    let changes = word ^ ((word << 1) | <u64>previous)
    let last: u32 = 63
    if (left < 64) {
      changes &= (<u64>1 << left) - 1
      last = left - 1
    }
    while (changes) {
      store<f64>(out, base + (<f64>at + <f64>ctz(changes)) * granularity)
      out += 8
      changes &= changes - 1
    }
    previous = <u32>(word >> last) & 1
    at += 64
  }
  lastBits = min(at, bits)
  lastBit = previous
  return <u32>(out - start) >> 3
}

/** Non-zero where the 16 bytes differ from 128 copies of the previous bit. */
@inline function flips(ptr: usize, previous: u32): v128 {
  return v128.xor(v128.load(ptr), i8x16.splat(<i8>(0 - previous)))
}
