import {
  type BitmapEngine,
  createTableDecoder,
  type TableRun,
  type TableViolation,
} from '@tidemark/bitmap-wasm'
import type { Finding } from '../findings.js'
import type { ImageInspection } from '../image/inspect.js'
import { type ImageStorage, readBytes } from '../storage/storage.js'
import type { PersistentBitmap } from './directory.js'

const WINDOW_ENTRIES = 4096
/** A table of garbage would say the same a million times. */
const MOST_FINDINGS = 8

const meanings: Readonly<Record<TableViolation, string>> = {
  'reserved-bits': 'reserved bits are set',
  'ones-with-offset': 'it says all ones and names a cluster',
  unaligned: 'its cluster is not at a cluster boundary',
  'past-end-of-file': 'its cluster lies past the end of the file',
}

/**
 * Looks through the bitmap tables, not the bodies, for entries that cannot be. QEMU refuses the whole image for one
 * of them (but for clusters past the end of the file, which it takes for clean); it does not load the tables of
 * stale and in-use bitmaps, so there they are warnings.
 *
 * @returns at most 9 findings for each bitmap, in the directory's order; code `bitmap-table-` and the violation
 * @throws {Qcow2Error} when the storage fails
 */
export async function scanBitmapTables(image: ImageInspection, engine: BitmapEngine): Promise<Finding[]> {
  const bitmaps = (image.bitmapDirectory?.bitmaps ?? []).filter(({ unreadable }) => unreadable === undefined)
  const found: (readonly Finding[])[] = []
  // Small tables mostly lie near each other: one read for many of them.
  const byPlace = [...bitmaps].sort((a, b) => a.tableOffset - b.tableOffset)
  const ahead = new ReadAhead(image.storage)
  for (const bitmap of byPlace) {
    const findings = await scanTable(image, bitmap, engine, ahead)
    if (findings.length > 0) found[bitmap.index] = findings
  }
  return found.flat()
}

/** Reads a piece at a time for those who read a little at a time, in ascending order. */
class ReadAhead {
  static readonly BYTES = 256 * 1024
  readonly #storage: ImageStorage
  readonly #bytes = new Uint8Array(ReadAhead.BYTES)
  #start = 0
  #end = 0

  constructor(storage: ImageStorage) {
    this.#storage = storage
  }

  /** A view for a short read, good until the next; bytes of their own for a long one. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    if (length > ReadAhead.BYTES / 2) return readBytes(this.#storage, offset, length)
    if (offset < this.#start || offset + length > this.#end) {
      this.#start = offset
      this.#end = Math.min(offset + ReadAhead.BYTES, this.#storage.size)
      await this.#storage.readInto(this.#bytes.subarray(0, this.#end - offset), offset)
    }
    return this.#bytes.subarray(offset - this.#start, offset - this.#start + length)
  }
}

async function scanTable(
  image: ImageInspection,
  bitmap: PersistentBitmap,
  engine: BitmapEngine,
  ahead: ReadAhead,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const severity = image.bitmapDirectory?.stale || bitmap.inUse ? 'warning' : 'error'
  const entries = Math.min(bitmap.tableSize, Math.ceil(bitmap.bitmapBytes / image.clusterSize))
  let bad = 0
  for (let first = 0; first < entries; first += WINDOW_ENTRIES) {
    const count = Math.min(WINDOW_ENTRIES, entries - first)
    for (const run of runsOf(
      image,
      bitmap,
      engine,
      await ahead.read(bitmap.tableOffset + first * 8, count * 8),
      first,
    )) {
      if (run.kind !== 'invalid' || ++bad > MOST_FINDINGS) continue
      const [violation] = run.violations
      findings.push({
        code: `bitmap-table-${violation}`,
        severity,
        structure: 'bitmap table entry',
        field: `entry ${run.firstEntry}`,
        offset: bitmap.tableOffset + run.firstEntry * 8,
        bitmap: bitmap.name,
        expected: 'an entry without violations',
        found: `0x${run.raw.toString(16)}`,
        message: `bitmap '${bitmap.name}': table entry ${run.firstEntry} is 0x${run.raw.toString(16)}: ${run.violations.map(v => meanings[v]).join(', ')}`,
      })
    }
  }
  if (bad > MOST_FINDINGS) {
    findings.push({
      code: 'bitmap-table-entries',
      severity,
      structure: 'bitmap table',
      offset: bitmap.tableOffset,
      bitmap: bitmap.name,
      message: `bitmap '${bitmap.name}': ${bad - MOST_FINDINGS} more of its ${entries} table entries cannot be`,
    })
  }
  return findings
}

function runsOf(
  image: ImageInspection,
  bitmap: PersistentBitmap,
  engine: BitmapEngine,
  bytes: Uint8Array,
  first: number,
): readonly TableRun[] {
  const { storage, header } = image
  const count = bytes.byteLength / 8
  return engine.scratch(() => {
    const geometry = {
      clusterBits: header.clusterBits,
      bitmapBytes: bitmap.bitmapBytes,
      fileBytes: storage.size,
    }
    const decoder = createTableDecoder(engine, geometry, count)
    decoder.window.bytes.set(bytes)
    return [...decoder.decode(first, count)]
  })
}
