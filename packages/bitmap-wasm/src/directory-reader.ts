import { imageGeometry, wholeNumber } from './check.js'
import { type DirectoryEntry, type DirectoryGeometry, decodeRecord } from './directory.js'
import type { BitmapEngine, Lane } from './engine.js'
import { BitmapFormatError } from './errors.js'
import { wasmConstant } from './module.js'
import { type EntryViolation, nameEntryViolations } from './violations.js'

/** Holds any entry without extra data: its fixed part and a name of 65,535 bytes. */
const WINDOW_BYTES = 68 * 1024
const WINDOW_ENTRIES = 2048

/**
 * Entries of a bitmap directory as records in the engine's memory: each is decoded as far as it is asked for. Good
 * until the next chunk is asked for. `record` goes from 0 to `count` − 1.
 */
export interface DirectoryRecords {
  readonly count: number
  /** Index in the directory of record 0. */
  readonly firstIndex: number
  /** Bytes from the directory's start. */
  entryOffset(record: number): number
  /** Bytes from this entry to the next. */
  entryBytes(record: number): number
  tableOffset(record: number): number
  tableSize(record: number): number
  flags(record: number): number
  type(record: number): number
  granularityBits(record: number): number
  extraDataSize(record: number): number
  nameSize(record: number): number
  /** 0 for an entry that QEMU takes. */
  violationMask(record: number): number
  violations(record: number): readonly EntryViolation[]
  /**
   * A view; cut where the directory ends. Of an entry of more than 68 KiB, which has too much extra data, what the
   * window holds.
   */
  nameBytes(record: number): Uint8Array
  /** The name as UTF-8, see {@link DirectoryEntry.name}. */
  name(record: number): string
  /** All of it, with copies of name and extra data, to keep. */
  entry(record: number): DirectoryEntry
}

export interface DirectoryReaderOptions extends DirectoryGeometry {
  /** `nb_bitmaps`; no more than the 65,535 that an image can have are read. */
  readonly bitmapCount: number
  /** The directory's length: entries that run over it are truncated. Bytes pushed after it are ignored. */
  readonly directoryBytes: number
  /** Throw at the first violation instead of reporting it (default false). */
  readonly strict?: boolean
}

/**
 * Reads a bitmap directory from windows of bytes of any size, in order: 64 MiB of directory need no more memory than
 * one KiB. Takes 164 KiB of the arena for as long as the caller keeps it.
 *
 * Lenient unless `strict`: what is wrong is reported with each entry, and reading stops only after an entry that runs
 * over the directory's end, since none can be found behind it.
 *
 * @example
 * const reader = new DirectoryReader(engine, { ...geometry, bitmapCount, directoryBytes })
 * for (const records of reader.push(bytes)) for (let i = 0; i < records.count; i++) use(records.name(i))
 * for (const records of reader.finish()) for (let i = 0; i < records.count; i++) use(records.name(i))
 */
export class DirectoryReader {
  readonly #engine: BitmapEngine
  readonly #options: DirectoryReaderOptions
  readonly #most: number
  /** As QEMU takes it: whole sectors. */
  readonly #diskBytes: number
  readonly #window: Lane
  readonly #out: Lane
  readonly #view: Records
  /** Where the window begins in the directory, and how much of it is filled. */
  #base = 0
  #held = 0
  /** Bytes of an entry too large for the window that are still to come. */
  #skip = 0
  #index = 0
  #ended = false

  /** @throws RangeError for a geometry that no image has, counts that are no whole numbers, a full arena */
  constructor(engine: BitmapEngine, options: DirectoryReaderOptions) {
    imageGeometry(options)
    wholeNumber('virtualSize', options.virtualSize)
    wholeNumber('bitmapCount', options.bitmapCount)
    wholeNumber('directoryBytes', options.directoryBytes)
    this.#engine = engine
    this.#options = { ...options }
    this.#most = Math.min(options.bitmapCount, wasmConstant('MAX_BITMAPS'))
    this.#diskBytes = options.virtualSize - (options.virtualSize % 512)
    const lane = engine.lane(WINDOW_BYTES + WINDOW_ENTRIES * wasmConstant('ENTRY_RECORD_BYTES'))
    this.#window = engine.subLane(lane, 0, WINDOW_BYTES)
    this.#out = engine.subLane(lane, WINDOW_BYTES)
    this.#view = new Records(this.#window, this.#out)
    this.#ended = this.#most === 0
  }

  /** Entries read so far. */
  get entries(): number {
    return this.#index
  }

  /** Bytes that these entries take. */
  get bytesUsed(): number {
    return this.#base + this.#skip
  }

  /**
   * The next bytes of the directory, as many as there are. Works only as far as its chunks are taken.
   * @throws {BitmapFormatError} `directory-entry`, if strict, before the chunk with the first entry that has violations
   */
  *push(bytes: Uint8Array): Generator<DirectoryRecords, void, undefined> {
    let from = 0
    while (from < bytes.byteLength && !this.#ended) {
      const left = Math.min(bytes.byteLength - from, this.#options.directoryBytes - this.#base - this.#held)
      if (left === 0) return
      if (this.#skip > 0) {
        const some = Math.min(left, this.#skip)
        this.#skip -= some
        this.#base += some
        from += some
        continue
      }
      const some = Math.min(left, WINDOW_BYTES - this.#held)
      this.#window.bytes.set(bytes.subarray(from, from + some), this.#held)
      this.#held += some
      from += some
      yield* this.#parse(this.#options.directoryBytes)
    }
  }

  /**
   * What is left where the directory was cut: an entry of which the fixed part is there. After it the reader is done.
   * @throws {BitmapFormatError} if strict, as push(), and for a directory that ends too early (`directory-short`) or
   *   goes on after its last entry (`directory-size`)
   */
  *finish(): Generator<DirectoryRecords, void, undefined> {
    if (!this.#ended) yield* this.#parse(this.#base + this.#held)
    this.#ended = true
    if (!this.#options.strict) return
    if (this.#index < this.#options.bitmapCount) {
      throw new BitmapFormatError('directory-short', this.#index, this.bytesUsed)
    }
    if (this.bytesUsed < this.#options.directoryBytes) {
      throw new BitmapFormatError('directory-size', this.#index, this.bytesUsed)
    }
  }

  /** @param directoryBytes where the directory ends, as far as is known */
  *#parse(directoryBytes: number): Generator<DirectoryRecords, void, undefined> {
    const { clusterBits, fileBytes, strict = false } = this.#options
    const whole = this.#base + this.#held >= directoryBytes
    let start = 0
    while (!this.#ended && start < this.#held) {
      const { kernels } = this.#engine
      let count = kernels.parseDirectory(
        this.#window.ptr + start,
        this.#held - start,
        this.#base + start,
        directoryBytes,
        Math.min(WINDOW_ENTRIES, this.#most - this.#index),
        clusterBits,
        this.#diskBytes,
        fileBytes,
        this.#out.ptr,
      )
      if (count === 0) break
      let used = kernels.lastConsumed.value as number
      const last = this.#view.entryBytes(count - 1)
      const over = start + used > this.#held
      // The last one is not all here: it waits for the rest, unless it never fits or there is no rest.
      const waits = over && !whole && last <= WINDOW_BYTES
      if (waits) {
        used -= last
        if (--count === 0) break
      }
      if (strict) this.#throwViolation(count)
      this.#ended = over && whole
      this.#view.set(count, this.#index, this.#base, this.#held)
      // Counted before the chunk is handed over: a caller may stop there.
      this.#index += count
      this.#ended ||= this.#index >= this.#most
      start += used
      yield this.#view
      if (waits) break
    }
    const kept = Math.max(0, this.#held - start)
    this.#window.bytes.copyWithin(0, this.#held - kept, this.#held)
    this.#skip = start > this.#held ? start - this.#held : 0
    this.#base += Math.min(start, this.#held)
    this.#held = kept
  }

  #throwViolation(count: number): void {
    for (let i = 0; i < count; i++) {
      if (this.#view.violationMask(i) === 0) continue
      const violations = this.#view.violations(i)
      throw new BitmapFormatError('directory-entry', this.#index + i, this.#view.entryOffset(i), violations)
    }
  }
}

/** Fields of the kernel's records, 48 bytes each; offsets as in assembly/directory.ts. */
class Records implements DirectoryRecords {
  count = 0
  firstIndex = 0
  #base = 0
  readonly #bytes: Uint8Array
  #held: Uint8Array = new Uint8Array(0)
  readonly #f64: Float64Array
  readonly #u32: Uint32Array
  readonly #u8: Uint8Array
  readonly #view: DataView
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  constructor(window: Lane, out: Lane) {
    const { buffer, byteLength } = out.bytes
    this.#bytes = window.bytes
    this.#f64 = new Float64Array(buffer, out.ptr, byteLength / 8)
    this.#u32 = new Uint32Array(buffer, out.ptr, byteLength / 4)
    this.#u8 = out.bytes
    this.#view = new DataView(buffer, out.ptr, byteLength)
  }

  set(count: number, firstIndex: number, base: number, held: number): void {
    this.count = count
    this.firstIndex = firstIndex
    this.#base = base
    this.#held = this.#bytes.subarray(0, held)
  }

  tableOffset(record: number): number {
    return this.#f64[record * 6]!
  }

  entryOffset(record: number): number {
    return this.#f64[record * 6 + 1]!
  }

  entryBytes(record: number): number {
    return this.#f64[record * 6 + 2]!
  }

  tableSize(record: number): number {
    return this.#u32[record * 12 + 6]!
  }

  flags(record: number): number {
    return this.#u32[record * 12 + 7]!
  }

  extraDataSize(record: number): number {
    return this.#u32[record * 12 + 8]!
  }

  violationMask(record: number): number {
    return this.#u32[record * 12 + 9]!
  }

  nameSize(record: number): number {
    return this.#u32[record * 12 + 10]!
  }

  type(record: number): number {
    return this.#u8[record * 48 + 44]!
  }

  granularityBits(record: number): number {
    return this.#u8[record * 48 + 45]!
  }

  violations(record: number): readonly EntryViolation[] {
    return nameEntryViolations(this.violationMask(record))
  }

  nameBytes(record: number): Uint8Array {
    const start = this.entryOffset(record) - this.#base + 24 + this.extraDataSize(record)
    return this.#held.subarray(start, start + this.nameSize(record))
  }

  name(record: number): string {
    return this.#decoder.decode(this.nameBytes(record))
  }

  entry(record: number): DirectoryEntry {
    if (!(record >= 0 && record < this.count)) throw new RangeError(`no record ${record} of ${this.count}`)
    const entry = decodeRecord(
      this.#view,
      record * 48,
      this.firstIndex + record,
      this.#held,
      this.#base,
      this.#decoder,
    )
    return { ...entry, nameBytes: entry.nameBytes.slice(), extraData: entry.extraData.slice() }
  }
}
