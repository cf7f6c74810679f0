import { Qcow2Error } from '../errors.js'
import { putU64 } from '../format/bytes.js'
import type { ImageInspection } from '../image/inspect.js'
import type { FutureBitmap } from './actions.js'

/** BME_MAX_NAME_SIZE and the fixed part: QEMU's limit for a directory is 1,024 × 65,535. */
const MAX_DIRECTORY_BYTES = 1024 * 65535
/** Of an entry: what precedes the extra data. */
const FIXED_BYTES = 24

/** Where a bitmap's table will be. */
export interface PlacedTable {
  readonly offset: number
  readonly entries: number
}

/** @throws {Qcow2Error} `bitmap-invalid` for a directory that QEMU would not open */
export function directoryBytes(image: ImageInspection, bitmaps: readonly FutureBitmap[]): number {
  const bytes = bitmaps.reduce((sum, bitmap) => sum + entryBytes(bitmap), 0)
  if (bytes <= MAX_DIRECTORY_BYTES) return bytes
  throw new Qcow2Error(
    'bitmap-invalid',
    `the directory would be larger than QEMU's ${MAX_DIRECTORY_BYTES} bytes`,
    {
      image: image.storage.name,
      bytes,
    },
  )
}

/**
 * A directory as it is stored.
 *
 * @param tables of each bitmap; undefined: it stays where it is
 * @param length whole clusters, at least {@link directoryBytes}
 */
export function encodeDirectory(
  bitmaps: readonly FutureBitmap[],
  tables: readonly (PlacedTable | undefined)[],
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  let at = 0
  for (const [i, bitmap] of bitmaps.entries()) {
    const { origin, flags, granularityBits, nameBytes } = bitmap
    const table = tables[i] ?? { offset: origin!.tableOffset, entries: origin!.tableSize }
    const extra = origin?.extraData ?? new Uint8Array()
    putU64(view, at, table.offset)
    view.setUint32(at + 8, table.entries)
    view.setUint32(at + 12, flags)
    view.setUint8(at + 16, origin?.type ?? 1)
    view.setUint8(at + 17, granularityBits)
    view.setUint16(at + 18, nameBytes.byteLength)
    view.setUint32(at + 20, extra.byteLength)
    bytes.set(extra, at + FIXED_BYTES)
    bytes.set(nameBytes, at + FIXED_BYTES + extra.byteLength)
    at += entryBytes(bitmap)
  }
  return bytes
}

/** Padded. */
function entryBytes({ nameBytes, origin }: FutureBitmap): number {
  return Math.ceil((FIXED_BYTES + (origin?.extraData.byteLength ?? 0) + nameBytes.byteLength) / 8) * 8
}
