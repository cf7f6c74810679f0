import {
  type BitmapEngine,
  createTableDecoder,
  type TableDecoder,
  type TableViolation,
  tableRunKinds,
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
  const ahead = new ReadAhead(
    image.storage,
    byPlace.map(bitmap => ({
      start: bitmap.tableOffset,
      end: bitmap.tableOffset + 8 * tableEntries(image, bitmap),
    })),
  )
  const mark = engine.mark()
  try {
    const decoders = new Decoders(image, engine)
    for (const bitmap of byPlace) {
      const findings = await scanTable(image, bitmap, decoders.of(bitmap), ahead)
      if (findings.length > 0) found[bitmap.index] = findings
    }
  } finally {
    engine.release(mark)
  }
  return found.flat()
}

/** An in-use bitmap may have a table of any size: only what its disk needs is looked at. */
function tableEntries({ clusterSize }: ImageInspection, bitmap: PersistentBitmap): number {
  return Math.min(bitmap.tableSize, Math.ceil(bitmap.bitmapBytes / clusterSize))
}

/** One decoder for all bitmaps of a granularity: there are 23 at most, and bitmaps 65,535. */
class Decoders {
  readonly #image: ImageInspection
  readonly #engine: BitmapEngine
  readonly #made = new Map<number, TableDecoder>()

  constructor(image: ImageInspection, engine: BitmapEngine) {
    this.#image = image
    this.#engine = engine
  }

  of({ bitmapBytes }: PersistentBitmap): TableDecoder {
    const known = this.#made.get(bitmapBytes)
    if (known !== undefined) return known
    const { storage, header } = this.#image
    const geometry = { clusterBits: header.clusterBits, bitmapBytes, fileBytes: storage.size }
    const entries = Math.ceil(bitmapBytes / this.#image.clusterSize)
    const decoder = createTableDecoder(this.#engine, geometry, Math.max(1, Math.min(WINDOW_ENTRIES, entries)))
    this.#made.set(bitmapBytes, decoder)
    return decoder
  }
}

/** A stretch of the file: from `start` up to, not including, `end`. */
interface Stretch {
  readonly start: number
  readonly end: number
}

/** Reads for those who read a little at a time, in ascending order, and know beforehand what. */
class ReadAhead {
  static readonly BYTES = 256 * 1024
  /** What lies between two pieces is read with them if it is less: a read costs as much as some KiB. */
  static readonly GAP = 4096
  readonly #storage: ImageStorage
  readonly #wanted: readonly Stretch[]
  readonly #bytes = new Uint8Array(ReadAhead.BYTES)
  #next = 0
  #start = 0
  #end = 0

  constructor(storage: ImageStorage, wanted: readonly Stretch[]) {
    this.#storage = storage
    this.#wanted = wanted
  }

  /** A view for a short read, good until the next; bytes of their own for a long one. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    if (length > ReadAhead.BYTES / 2) return readBytes(this.#storage, offset, length)
    if (offset < this.#start || offset + length > this.#end) {
      this.#start = offset
      this.#end = this.#reach(offset, offset + length)
      await this.#storage.readInto(this.#bytes.subarray(0, this.#end - offset), offset)
    }
    return this.#bytes.subarray(offset - this.#start, offset - this.#start + length)
  }

  /** How far a read from `offset` on goes, so that it brings along what lies near. */
  #reach(offset: number, end: number): number {
    const most = offset + ReadAhead.BYTES
    while (this.#next < this.#wanted.length && this.#wanted[this.#next]!.end <= end) this.#next++
    let reach = end
    for (let i = this.#next; i < this.#wanted.length; i++) {
      const { start, end: to } = this.#wanted[i]!
      if (start > reach + ReadAhead.GAP || reach === most) break
      reach = Math.min(most, Math.max(reach, to))
    }
    return reach
  }
}

const INVALID = tableRunKinds.indexOf('invalid')

async function scanTable(
  image: ImageInspection,
  bitmap: PersistentBitmap,
  decoder: TableDecoder,
  ahead: ReadAhead,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const severity = image.bitmapDirectory?.stale || bitmap.inUse ? 'warning' : 'error'
  const entries = tableEntries(image, bitmap)
  let bad = 0
  for (let first = 0; first < entries; first += decoder.windowEntries) {
    const count = Math.min(decoder.windowEntries, entries - first)
    decoder.window.bytes.set(await ahead.read(bitmap.tableOffset + first * 8, count * 8))
    for (const runs of decoder.runs(first, count)) {
      for (let run = runs.kinds.indexOf(INVALID); run >= 0; run = runs.kinds.indexOf(INVALID, run + 1)) {
        if (++bad > MOST_FINDINGS) continue
        const entry = runs.firstEntries[run]!
        const raw = `0x${runs.raw(run).toString(16)}`
        const violations = runs.violations(run)
        findings.push({
          code: `bitmap-table-${violations[0]}`,
          severity,
          structure: 'bitmap table entry',
          field: `entry ${entry}`,
          offset: bitmap.tableOffset + entry * 8,
          bitmap: bitmap.name,
          expected: 'an entry without violations',
          found: raw,
          message: `bitmap '${bitmap.name}': table entry ${entry} is ${raw}: ${violations.map(v => meanings[v]).join(', ')}`,
        })
      }
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
