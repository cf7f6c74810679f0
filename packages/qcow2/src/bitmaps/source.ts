import { type BitmapEngine, createTableDecoder, type TableRun } from '@tidemark/bitmap-wasm'
import { CorruptImageError, Qcow2Error } from '../errors.js'
import type { ImageInspection } from '../image/inspect.js'
import { readBytes } from '../storage/storage.js'
import type { PersistentBitmap } from './directory.js'

/** Table entries read at a time: 32 KiB, which describe 256 MiB of bitmap at 64 KiB clusters. */
const TABLE_WINDOW_ENTRIES = 4096

/** What a stretch of a bitmap is known to be before any of it is read. */
export type StretchState = 'zeros' | 'ones' | 'mixed'

/** One bitmap's bits, read from front to back without ever holding more than a window of them. */
export interface BitmapSource {
  /** For messages. */
  readonly label: string
  /** Bytes for each bit. */
  readonly granularity: number
  /** The disk's size in bytes. */
  readonly diskBytes: number
  /** Bits. */
  readonly granules: number
  /** Whether a stretch is stored at all; costs at most a read of the bitmap table. */
  peek(byteOffset: number, byteLength: number): Promise<StretchState>
  /**
   * Fills `target` with the bitmap's bytes from `byteOffset` on. Bytes past the bitmap's end are 0; bits after
   * the last granule, in its last byte, are as on disk: the caller masks them. Ascending offsets cost least.
   */
  readInto(target: Uint8Array, byteOffset: number): Promise<void>
}

export interface BitmapSourceOptions {
  /**
   * Read a bitmap that is in use, stale, or partly damaged. What cannot be read counts as dirty, never as clean;
   * yet what an inconsistent bitmap says is clean may be dirty.
   */
  force?: boolean
}

/**
 * Finds a bitmap by name in one image; never in its backing file.
 *
 * @throws {Qcow2Error} `bitmap-missing`, with the names that there are; `corrupt-image` where two bitmaps have it
 */
export function findBitmap(image: ImageInspection, name: string): PersistentBitmap {
  const bytes = new TextEncoder().encode(name)
  const bitmaps = image.bitmapDirectory?.bitmaps ?? []
  const [found, other] = bitmaps.filter(bitmap => equalBytes(bitmap.nameBytes, bytes))
  if (found !== undefined && other !== undefined) {
    // Which of them is meant cannot be told; the wrong one's clean bits would be lost data.
    throw new CorruptImageError(image.storage.name, {
      structure: 'bitmap directory',
      offset: (image.bitmapDirectory?.extension.directoryOffset ?? 0) + other.entryOffset,
      expected: `one bitmap '${name}'`,
      found: `entries ${found.index} and ${other.index} of that name`,
    })
  }
  if (found !== undefined) return found
  const available = bitmaps.map(bitmap => bitmap.name)
  const shown = available.slice(0, 20).map(each => `'${each}'`)
  if (available.length > shown.length) shown.push(`and ${available.length - shown.length} more`)
  throw new Qcow2Error(
    'bitmap-missing',
    `${image.storage.name} has no bitmap '${name}'${shown.length === 0 ? ' (it has none)' : `; it has ${shown.join(', ')}`}`,
    { image: image.storage.name, bitmap: name, available },
  )
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i])
}

/**
 * Opens a bitmap's body for reading.
 *
 * @throws {Qcow2Error} without `force`: `bitmap-inconsistent` for one in use, `bitmaps-stale`; always:
 *   `corrupt-image` for an entry whose size or granularity makes no sense
 */
export function openBitmap(
  image: ImageInspection,
  bitmap: PersistentBitmap,
  engine: BitmapEngine,
  options: BitmapSourceOptions = {},
): BitmapSource {
  const { force = false } = options
  const name = image.storage.name
  const where = { image: name, bitmap: bitmap.name }
  if (image.bitmapDirectory?.stale && !force) {
    throw new Qcow2Error(
      'bitmaps-stale',
      `bitmap '${bitmap.name}' of ${name} is stale: a program that does not know bitmaps wrote to the image`,
      where,
    )
  }
  if (bitmap.inUse && !force) {
    throw new Qcow2Error(
      'bitmap-inconsistent',
      `bitmap '${bitmap.name}' of ${name} is inconsistent: a writer had it open and did not finish (in-use)`,
      where,
    )
  }
  if (bitmap.unreadable !== undefined) {
    throw new CorruptImageError(name, {
      structure: `bitmap directory entry of '${bitmap.name}'`,
      offset: (image.bitmapDirectory?.extension.directoryOffset ?? 0) + bitmap.entryOffset,
      expected: 'an entry that can be read',
      found: bitmap.unreadable,
    })
  }
  return new TableSource(image, bitmap, engine, force)
}

class TableSource implements BitmapSource {
  readonly label: string
  readonly granularity: number
  readonly diskBytes: number
  readonly granules: number
  readonly #image: ImageInspection
  readonly #bitmap: PersistentBitmap
  readonly #engine: BitmapEngine
  readonly #force: boolean
  readonly #entries: number
  #runs: TableRun[] = []
  #nextEntry = 0

  constructor(image: ImageInspection, bitmap: PersistentBitmap, engine: BitmapEngine, force: boolean) {
    this.label = `bitmap '${bitmap.name}' of ${image.storage.name}`
    this.granularity = bitmap.granularity
    this.diskBytes = image.virtualSize
    this.granules = bitmap.granules
    this.#image = image
    this.#bitmap = bitmap
    this.#engine = engine
    this.#force = force
    // An in-use bitmap may have a table of any size: only what its disk needs is looked at.
    this.#entries = Math.min(bitmap.tableSize, Math.ceil(bitmap.bitmapBytes / image.clusterSize))
  }

  async peek(byteOffset: number, byteLength: number): Promise<StretchState> {
    let state: StretchState | undefined
    for await (const { run } of this.#pieces(byteOffset, byteLength)) {
      // What cannot be read is dirty, as in readInto.
      const kind: StretchState = run?.kind === 'data' ? 'mixed' : run?.kind === 'zeros' ? 'zeros' : 'ones'
      if (kind === 'mixed' || (state !== undefined && state !== kind)) return 'mixed'
      state = kind
    }
    return state ?? 'zeros'
  }

  async readInto(target: Uint8Array, byteOffset: number): Promise<void> {
    const length = Math.max(0, Math.min(target.byteLength, this.#bitmap.bitmapBytes - byteOffset))
    target.fill(0, length)
    for await (const piece of this.#pieces(byteOffset, length)) {
      const part = target.subarray(piece.start - byteOffset, piece.end - byteOffset)
      const { run } = piece
      if (run?.kind === 'data') {
        const within = piece.start - run.firstEntry * this.#image.clusterSize
        await this.#image.storage.readInto(part, run.hostOffset + within)
      } else {
        // What cannot be read (an invalid entry, a table that ends too early) is dirty, never clean.
        part.fill(run?.kind === 'zeros' ? 0 : 0xff)
      }
    }
  }

  /** The runs that a stretch of the bitmap lies in, each cut to it; `run` is undefined past the table's end. */
  async *#pieces(
    byteOffset: number,
    byteLength: number,
  ): AsyncGenerator<{ run: TableRun | undefined; start: number; end: number }> {
    const { clusterSize } = this.#image
    const stop = Math.min(byteOffset + byteLength, this.#bitmap.bitmapBytes)
    this.#forget(Math.floor(byteOffset / clusterSize))
    let at = byteOffset
    for (let index = 0; at < stop; index++) {
      if (index === this.#runs.length && !(await this.#readMore(Math.floor(at / clusterSize)))) {
        yield { run: undefined, start: at, end: stop }
        return
      }
      const run = this.#runs[index]!
      const end = Math.min(stop, (run.firstEntry + run.count) * clusterSize)
      if (end <= at) continue
      yield { run, start: at, end }
      at = end
    }
  }

  /** Runs that end before a table entry are not needed again; one that goes back reads the table again. */
  #forget(entry: number): void {
    const known = this.#runs[0]?.firstEntry ?? this.#nextEntry
    if (entry < known) {
      this.#runs = []
      this.#nextEntry = 0
    }
    let done = 0
    while (done < this.#runs.length && this.#runs[done]!.firstEntry + this.#runs[done]!.count <= entry) done++
    if (done > 0) this.#runs.splice(0, done)
  }

  /** Reads the table window that holds an entry; windows that nobody asks for are not read. */
  async #readMore(entry: number): Promise<boolean> {
    if (this.#runs.length === 0) {
      this.#nextEntry = Math.max(this.#nextEntry, entry - (entry % TABLE_WINDOW_ENTRIES))
    }
    if (this.#nextEntry >= this.#entries) return false
    this.#runs.push(...(await this.#readRuns(this.#nextEntry)))
    this.#nextEntry = Math.min(this.#nextEntry + TABLE_WINDOW_ENTRIES, this.#entries)
    return true
  }

  async #readRuns(firstEntry: number): Promise<TableRun[]> {
    const { storage, header } = this.#image
    const { tableOffset, bitmapBytes } = this.#bitmap
    const count = Math.min(TABLE_WINDOW_ENTRIES, this.#entries - firstEntry)
    const bytes = await readBytes(storage, tableOffset + firstEntry * 8, count * 8)
    const runs = this.#engine.scratch(() => {
      const geometry = { clusterBits: header.clusterBits, bitmapBytes, fileBytes: storage.size }
      const decoder = createTableDecoder(this.#engine, geometry, TABLE_WINDOW_ENTRIES)
      decoder.window.bytes.set(bytes)
      return [...decoder.decode(firstEntry, count)]
    })
    const invalid = this.#force ? undefined : runs.find(run => run.kind === 'invalid')
    if (invalid?.kind === 'invalid') {
      throw new CorruptImageError(storage.name, {
        structure: `bitmap table of '${this.#bitmap.name}'`,
        field: `entry ${invalid.firstEntry}`,
        offset: tableOffset + invalid.firstEntry * 8,
        expected: 'an entry without violations',
        found: `0x${invalid.raw.toString(16)} (${invalid.violations.join(', ')})`,
      })
    }
    return runs
  }
}
