/** Big-endian pokes into an image, for builders and for tests that patch what a builder made. */

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Writes one byte. */
export function putU8(bytes: Uint8Array, offset: number, value: number): void {
  view(bytes).setUint8(offset, value)
}

/** Writes a big-endian 16-bit number. */
export function putU16(bytes: Uint8Array, offset: number, value: number): void {
  view(bytes).setUint16(offset, value)
}

/** Writes a big-endian 32-bit number. */
export function putU32(bytes: Uint8Array, offset: number, value: number): void {
  view(bytes).setUint32(offset, value)
}

/** Writes a big-endian 64-bit number; a bigint reaches all 64 bits. */
export function putU64(bytes: Uint8Array, offset: number, value: number | bigint): void {
  view(bytes).setBigUint64(offset, BigInt.asUintN(64, BigInt(value)))
}

/** Reads a big-endian 32-bit number. */
export function getU32(bytes: Uint8Array, offset: number): number {
  return view(bytes).getUint32(offset)
}

/** Reads a big-endian 64-bit number. */
export function getU64(bytes: Uint8Array, offset: number): bigint {
  return view(bytes).getBigUint64(offset)
}

/** Text as UTF-8; bytes as they are. */
export function bytesOf(value: string | Uint8Array): Uint8Array {
  return typeof value === 'string' ? new TextEncoder().encode(value) : value
}

/** The next multiple of `unit` at or after `value`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit
}
