import { imageGeometry, wholeNumber } from './check.js'
import type { BitmapEngine } from './engine.js'
import { BitmapFormatError } from './errors.js'
import { wasmConstant } from './module.js'
import { type EntryViolation, nameEntryViolations } from './violations.js'

const WINDOW_BYTES = 64 * 1024
const WINDOW_ENTRIES = 2048

/** One entry of the bitmap directory, decoded as far as it can be. */
export interface DirectoryEntry {
  /** Position in the directory, from 0. */
  readonly index: number
  /** Bytes from the directory's start. */
  readonly entryOffset: number
  /** Bytes from this entry to the next. */
  readonly entryBytes: number
  /** Host offset of the bitmap table; u64 on disk, rounded to f64 above 2^53 (then past the end of file). */
  readonly tableOffset: number
  /** Entries of the bitmap table. */
  readonly tableSize: number
  /** As on disk; bits without a meaning included. */
  readonly flags: number
  /** Bit 0: a writer had it open and did not finish. */
  readonly inUse: boolean
  /** Bit 1: QEMU records into it. */
  readonly auto: boolean
  /** 1 is a dirty tracking bitmap, the only type there is. */
  readonly type: number
  readonly granularityBits: number
  /** Empty in every image that QEMU writes. A view of the parsed bytes, cut where the directory ends. */
  readonly extraData: Uint8Array
  /** Not zero-terminated. A view of the parsed bytes, cut where the directory ends. */
  readonly nameBytes: Uint8Array
  /** The name as UTF-8, with U+FFFD for what is not: compare `nameBytes` where it matters. */
  readonly name: string
  readonly violations: readonly EntryViolation[]
}

export interface DirectoryGeometry {
  readonly clusterBits: number
  /** The disk's virtual size in bytes. */
  readonly virtualSize: number
  /** Length of the image file in bytes. */
  readonly fileBytes: number
}

/**
 * Parses a bitmap directory (qcow2 specification, "Bitmap directory"), leniently: each entry says what is wrong
 * with it, and parsing stops only after an entry that runs over the directory's end, since none can be located
 * behind it. Never more than `bitmapCount` entries, nor more than the bytes can hold, nor more than the 65,535 that
 * an image can have. Takes 160 KiB of the arena and gives it back.
 *
 * @param bytes the directory, as long as the extension says or as long as it could be read
 * @param bitmapCount `nb_bitmaps`, as written
 * @param options.strict throw at the first violation instead of reporting it (default false)
 * @throws RangeError for a geometry that no image has, a count that is no whole number, a full arena
 * @throws {BitmapFormatError} only if strict: `directory-entry` for the first entry with violations (extra data too,
 *   which is legal by the specification, but QEMU refuses the image), `directory-short` for fewer entries than
 *   `bitmapCount`, `directory-size` for bytes behind the last one
 */
export function parseBitmapDirectory(
  engine: BitmapEngine,
  bytes: Uint8Array,
  bitmapCount: number,
  geometry: DirectoryGeometry,
  options: { readonly strict?: boolean } = {},
): DirectoryEntry[] {
  const { strict = false } = options
  imageGeometry(geometry)
  wholeNumber('virtualSize', geometry.virtualSize)
  wholeNumber('bitmapCount', bitmapCount)
  const most = Math.min(bitmapCount, wasmConstant('MAX_BITMAPS'))
  return engine.scratch(() => {
    const recordBytes = wasmConstant('ENTRY_RECORD_BYTES')
    const window = engine.lane(WINDOW_BYTES)
    const out = engine.lane(WINDOW_ENTRIES * recordBytes)
    const records = new DataView(out.bytes.buffer, out.ptr, out.bytes.byteLength)
    // A byte order mark is part of a name: without it two names would read the same.
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
    // QEMU and this parser count the disk in whole sectors of 512 bytes.
    const sizeBytes = geometry.virtualSize - (geometry.virtualSize % 512)
    const entries: DirectoryEntry[] = []
    let position = 0
    let truncated = false
    while (!truncated && entries.length < most && position < bytes.byteLength) {
      const length = Math.min(WINDOW_BYTES, bytes.byteLength - position)
      window.bytes.set(bytes.subarray(position, position + length))
      const count = engine.kernels.parseDirectory(
        window.ptr,
        length,
        position,
        bytes.byteLength,
        Math.min(WINDOW_ENTRIES, most - entries.length),
        geometry.clusterBits,
        sizeBytes,
        geometry.fileBytes,
        out.ptr,
      )
      // Fewer than 24 bytes are left: no entry begins there.
      if (count === 0) break
      for (let i = 0; i < count; i++) {
        const entry = decodeRecord(records, i * recordBytes, entries.length, bytes, 0, decoder)
        if (strict && entry.violations.length > 0) {
          throw new BitmapFormatError('directory-entry', entry.index, entry.entryOffset, entry.violations)
        }
        truncated = entry.violations.includes('truncated')
        entries.push(entry)
      }
      position += engine.kernels.lastConsumed.value as number
    }
    if (strict && entries.length < bitmapCount) {
      throw new BitmapFormatError('directory-short', entries.length, position)
    }
    if (strict && position < bytes.byteLength) {
      throw new BitmapFormatError('directory-size', entries.length, position)
    }
    return entries
  })
}

/**
 * One record as an object; offsets as in assembly/directory.ts.
 *
 * @param bytes of the directory, from `base` on, of which name and extra data become views
 */
export function decodeRecord(
  records: DataView,
  at: number,
  index: number,
  bytes: Uint8Array,
  base: number,
  decoder: TextDecoder,
): DirectoryEntry {
  const entryOffset = records.getFloat64(at + 8, true)
  const flags = records.getUint32(at + 28, true)
  const extraStart = entryOffset - base + 24
  const nameStart = extraStart + records.getUint32(at + 32, true)
  const nameBytes = bytes.subarray(nameStart, nameStart + records.getUint32(at + 40, true))
  return {
    index,
    entryOffset,
    entryBytes: records.getFloat64(at + 16, true),
    tableOffset: records.getFloat64(at, true),
    tableSize: records.getUint32(at + 24, true),
    flags,
    inUse: (flags & wasmConstant('FLAG_IN_USE')) !== 0,
    auto: (flags & wasmConstant('FLAG_AUTO')) !== 0,
    type: records.getUint8(at + 44),
    granularityBits: records.getUint8(at + 45),
    extraData: bytes.subarray(extraStart, nameStart),
    nameBytes,
    name: decoder.decode(nameBytes),
    violations: nameEntryViolations(records.getUint32(at + 36, true)),
  }
}
