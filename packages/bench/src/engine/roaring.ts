// Roaring bitmaps to and from plain bits, by way of the portable format (RoaringFormatSpec): adding bits one by
// one takes minutes, and a check of the cardinality alone is not a check.
import { DeserializationFormat, RoaringBitmap32, SerializationFormat } from 'roaring-wasm'

const COOKIE_WITHOUT_RUNS = 12346
const COOKIE_WITH_RUNS = 12347
const CONTAINER_BITS = 65536
const CONTAINER_BYTES = CONTAINER_BITS / 8
/** Up to so many values a container is a sorted list, beyond it is bits. */
const MAX_LIST = 4096

/** The same bits; bit i is byte i >> 3, mask 1 << (i & 7). */
export function roaringFromBits(bytes: Uint8Array): RoaringBitmap32 {
  const containers: { key: number; cardinality: number; data: Uint8Array }[] = []
  for (let key = 0; key * CONTAINER_BYTES < bytes.length; key++) {
    const part = bytes.subarray(key * CONTAINER_BYTES, (key + 1) * CONTAINER_BYTES)
    const values = listOf(part)
    if (values.length === 0) continue
    if (values.length <= MAX_LIST) {
      containers.push({ key, cardinality: values.length, data: new Uint8Array(values.buffer) })
    } else {
      const data = new Uint8Array(CONTAINER_BYTES)
      data.set(part)
      containers.push({ key, cardinality: values.length, data })
    }
  }
  const header = 8 + containers.length * 8
  const size = containers.reduce((sum, { data }) => sum + data.length, header)
  const out = new Uint8Array(size)
  const view = new DataView(out.buffer)
  view.setUint32(0, COOKIE_WITHOUT_RUNS, true)
  view.setUint32(4, containers.length, true)
  let at = header
  for (const [i, { key, cardinality, data }] of containers.entries()) {
    view.setUint16(8 + i * 4, key, true)
    view.setUint16(10 + i * 4, cardinality - 1, true)
    view.setUint32(8 + containers.length * 4 + i * 4, at, true)
    out.set(data, at)
    at += data.length
  }
  return RoaringBitmap32.deserialize(out, DeserializationFormat.portable)
}

function listOf(part: Uint8Array): Uint16Array {
  const values = new Uint16Array(CONTAINER_BITS)
  let held = 0
  for (let i = 0; i < part.length; i++) {
    for (let byte = part[i]!; byte !== 0; byte &= byte - 1) {
      values[held++] = i * 8 + 31 - Math.clz32(byte & -byte)
    }
  }
  return values.slice(0, held)
}

/** ORs a bitmap's bits into `bytes`. */
export function roaringToBits(bitmap: RoaringBitmap32, bytes: Uint8Array): void {
  const data = bitmap.serialize(SerializationFormat.portable)
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const cookie = view.getUint32(0, true)
  if ((cookie & 0xffff) === COOKIE_WITH_RUNS) throw new Error('run containers were not asked for')
  const count = view.getUint32(4, true)
  let at = 8 + count * 8
  for (let i = 0; i < count; i++) {
    const base = view.getUint16(8 + i * 4, true) * CONTAINER_BYTES
    const cardinality = view.getUint16(10 + i * 4, true) + 1
    if (cardinality > MAX_LIST) {
      for (let j = 0; j < CONTAINER_BYTES && base + j < bytes.length; j++) bytes[base + j]! |= data[at + j]!
      at += CONTAINER_BYTES
      continue
    }
    for (let j = 0; j < cardinality; j++, at += 2) {
      const value = view.getUint16(at, true)
      bytes[base + (value >> 3)]! |= 1 << (value & 7)
    }
  }
}
