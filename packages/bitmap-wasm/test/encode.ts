// Encoders of the on-disk structures, straight from the specification's tables; any field can be a lie.

export interface EntryFields {
  tableOffset: bigint
  tableSize: number
  flags: number
  type: number
  granularityBits: number
  extraData: Uint8Array
  name: Uint8Array
  /** As claimed; default: what is there. */
  nameSize: number
  extraDataSize: number
}

/** A bitmap of 1 GiB at 64 KiB: 16,384 bits, 2,048 bytes, one cluster of 64 KiB. */
export const goodEntry: Omit<EntryFields, 'nameSize' | 'extraDataSize'> = {
  tableOffset: 0x50000n,
  tableSize: 1,
  flags: 0,
  type: 1,
  granularityBits: 16,
  extraData: new Uint8Array(0),
  name: new TextEncoder().encode('b0'),
}

export const goodGeometry = { clusterBits: 16, virtualSize: 2 ** 30, fileBytes: 16 * 65536 }

export function encodeEntry(fields: Partial<EntryFields> = {}): Uint8Array {
  const entry = { ...goodEntry, ...fields }
  const { extraData, name, nameSize = name.length, extraDataSize = extraData.length } = entry
  const bytes = new Uint8Array(Math.ceil((24 + extraData.length + name.length) / 8) * 8)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, entry.tableOffset)
  view.setUint32(8, entry.tableSize)
  view.setUint32(12, entry.flags)
  view.setUint8(16, entry.type)
  view.setUint8(17, entry.granularityBits)
  view.setUint16(18, nameSize)
  view.setUint32(20, extraDataSize)
  bytes.set(extraData, 24)
  bytes.set(name, 24 + extraData.length)
  return bytes
}

export function encodePayload(
  fields: { count?: number; reserved?: number; size?: bigint; offset?: bigint } = {},
): Uint8Array {
  const { count = 1, reserved = 0, size = 32n, offset = 0x50000n } = fields
  const bytes = new Uint8Array(24)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, count)
  view.setUint32(4, reserved)
  view.setBigUint64(8, size)
  view.setBigUint64(16, offset)
  return bytes
}

export function encodeTable(entries: readonly bigint[], into: Uint8Array): Uint8Array {
  const view = new DataView(into.buffer, into.byteOffset)
  for (const [i, entry] of entries.entries()) view.setBigUint64(i * 8, entry)
  return into
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
