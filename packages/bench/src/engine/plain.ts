// What one writes without a library: loops over 32-bit words.

export function union(dst: Uint32Array, src: Uint32Array): void {
  for (let i = 0; i < dst.length; i++) dst[i] = dst[i]! | src[i]!
}

export function intersection(dst: Uint32Array, src: Uint32Array): void {
  for (let i = 0; i < dst.length; i++) dst[i] = dst[i]! & src[i]!
}

function popcount(word: number): number {
  let v = word - ((word >>> 1) & 0x55555555)
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333)
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

export function count(src: Uint32Array): number {
  let total = 0
  for (let i = 0; i < src.length; i++) total += popcount(src[i]!)
  return total
}

export function unionCount(dst: Uint32Array, src: Uint32Array): number {
  let total = 0
  for (let i = 0; i < dst.length; i++) {
    const word = dst[i]! | src[i]!
    dst[i] = word
    total += popcount(word)
  }
  return total
}

export function equals(a: Uint32Array, b: Uint32Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

export function subset(a: Uint32Array, b: Uint32Array): boolean {
  for (let i = 0; i < a.length; i++) if ((a[i]! & ~b[i]!) !== 0) return false
  return true
}

export function coarsen16(dst: Uint8Array, src: Uint16Array): void {
  for (let i = 0; i < dst.length; i++) {
    let byte = 0
    for (let j = 0; j < 8; j++) if (src[i * 8 + j] !== 0) byte |= 1 << j
    dst[i] = dst[i]! | byte
  }
}

export function refine16(dst: Uint16Array, src: Uint8Array): void {
  for (let i = 0; i < src.length; i++) {
    const byte = src[i]!
    for (let j = 0; j < 8; j++) dst[i * 8 + j] = -((byte >> j) & 1)
  }
}

/** Hands over byte offsets where a bit differs from the one before it, a room at a time. */
export function extents(
  src: Uint32Array,
  granularity: number,
  room: Float64Array,
  take: (edges: Float64Array, held: number) => void,
): void {
  let previous = 0
  let held = 0
  for (let i = 0; i < src.length; i++) {
    const word = src[i]!
    let edges = word ^ ((word << 1) | previous)
    previous = word >>> 31
    if (edges === 0) continue
    if (room.length - held < 32) {
      take(room, held)
      held = 0
    }
    while (edges !== 0) {
      room[held++] = (i * 32 + 31 - Math.clz32(edges & -edges)) * granularity
      edges &= edges - 1
    }
  }
  if (previous === 1) room[held++] = src.length * 32 * granularity
  take(room, held)
}
