/** Big-endian reads at byte offsets of one buffer. */
export interface Fields {
  u8(at: number): number
  u16(at: number): number
  u32(at: number): number
  /** Rounded to f64 above 2^53: such a value is larger than any file, and range checks find it. */
  u64(at: number): number
  /** Exact: for bit fields. */
  bits64(at: number): bigint
}

export function fieldsOf(bytes: Uint8Array): Fields {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return {
    u8: at => view.getUint8(at),
    u16: at => view.getUint16(at),
    u32: at => view.getUint32(at),
    u64: at => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4),
    bits64: at => view.getBigUint64(at),
  }
}

// A byte order mark is part of a name.
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })

/** As QEMU takes a name from a header: what precedes the first NUL. */
export function cString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return text(end < 0 ? bytes : bytes.subarray(0, end))
}

/** Names in images are bytes; U+FFFD stands for what is not UTF-8. */
export function text(bytes: Uint8Array): string {
  return utf8.decode(bytes)
}

/** Bits 9–55 of an entry of an L1, L2 or bitmap table: the host offset of a cluster, 0 for none. */
export function entryOffset(view: DataView, at: number): number {
  return (view.getUint32(at) & 0x00ffffff) * 2 ** 32 + ((view.getUint32(at + 4) & 0xfffffe00) >>> 0)
}

/** A number of 64 bits, big-endian; exact up to 2^53. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32))
  view.setUint32(at + 4, value % 2 ** 32)
}

/**
 * The first entry from `from` on that is not 0, `entries` where there is none: quicker than to decode them, and most
 * tables are mostly empty.
 *
 * @param words the table, in whatever byte order; `width` of them for each entry, of which the first two count
 */
export function nextEntry(words: Int32Array, from: number, entries: number, width = 2): number {
  let i = from
  while (i < entries && (words[i * width]! | words[i * width + 1]!) === 0) i++
  return i
}

/** Eight at a time; see {@link sameBytes}. @param bytes at a multiple of 4 within their buffer */
export function isZero({ buffer, byteOffset, byteLength }: Uint8Array): boolean {
  const entries = Math.floor(byteLength / 8)
  if (nextEntry(new Int32Array(buffer, byteOffset, entries * 2), 0, entries) < entries) return false
  return new Uint8Array(buffer, byteOffset + entries * 8, byteLength % 8).every(byte => byte === 0)
}

/** Word by word: a callback for each byte takes ten times as long, and more until V8 has compiled it. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.byteLength !== b.byteLength) return false
  const words = a.byteOffset % 4 === 0 && b.byteOffset % 4 === 0 ? Math.floor(a.byteLength / 4) : 0
  const [aWords, bWords] = [wordsOf(a, words), wordsOf(b, words)]
  for (let i = 0; i < words; i++) if (aWords[i] !== bWords[i]) return false
  for (let i = words * 4; i < a.byteLength; i++) if (a[i] !== b[i]) return false
  return true
}

function wordsOf({ buffer, byteOffset }: Uint8Array, words: number): Int32Array {
  return new Int32Array(buffer, words === 0 ? 0 : byteOffset, words)
}
