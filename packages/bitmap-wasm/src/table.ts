import { imageGeometry, wholeNumber } from './check.js'
import type { BitmapEngine, Lane } from './engine.js'
import { BitmapFormatError } from './errors.js'
import { wasmConstant } from './module.js'
import { nameTableViolations, type TableViolation } from './violations.js'

const WINDOW_ENTRIES = 4096
const MAX_RUNS = 1024

/** What a run of table entries is; the order of the numbers in {@link TableRuns.kinds}. */
export const tableRunKinds = ['zeros', 'ones', 'data', 'invalid'] as const

/** Neighbouring entries of a bitmap table that say the same, in bitmap clusters. */
export type TableRun =
  /** All clear, stored nowhere. */
  | { readonly kind: 'zeros'; readonly firstEntry: number; readonly count: number }
  /** All set, stored nowhere. QEMU reads such entries, but does not write them. */
  | { readonly kind: 'ones'; readonly firstEntry: number; readonly count: number }
  /** Stored side by side from `hostOffset` on. */
  | {
      readonly kind: 'data'
      readonly firstEntry: number
      readonly count: number
      readonly hostOffset: number
    }
  /** One entry that cannot be read; never joined with its neighbours. */
  | {
      readonly kind: 'invalid'
      readonly firstEntry: number
      readonly count: 1
      /** The entry as on disk. */
      readonly raw: bigint
      readonly violations: readonly TableViolation[]
    }

/** Runs as columns, views of the engine's memory: no object for each. Good until the next chunk is asked for. */
export interface TableRuns {
  /** Runs in this chunk, the length of each column. */
  readonly count: number
  /** Index into {@link tableRunKinds}. */
  readonly kinds: Uint32Array
  /** The entry that a run begins with, its index in the whole table. */
  readonly firstEntries: Uint32Array
  /** Entries of a run. */
  readonly counts: Uint32Array
  /** Data: the host offset of its first cluster, in bytes. Else without a meaning. */
  readonly hostOffsets: Float64Array
  /** Invalid: what is wrong, as {@link TableRuns.violations} names it. Else 0. */
  readonly violationMasks: Uint32Array
  /**
   * The first run goes on with the last one of the chunk before: of the same kind, side by side with it if it is data.
   * So runs are joined over windows: add its count to that of the other.
   */
  readonly continues: boolean
  /** The violations of a run, by name. */
  violations(run: number): readonly TableViolation[]
  /** The entry that a run begins with, as on disk. */
  raw(run: number): bigint
}

export interface TableGeometry {
  readonly clusterBits: number
  /** Length of the bitmap in bytes: ceil(granules / 8). */
  readonly bitmapBytes: number
  readonly fileBytes: number
}

/** A decoder of one table, for tables of any length: windows in, runs out. */
export interface TableDecoder {
  /** Where the caller puts the next window's entries, big-endian as on disk. */
  readonly window: Lane
  /** Entries that fit the window. */
  readonly windowEntries: number
  /**
   * Decodes the first `entries` of the window; `firstEntry` is the index of the window's first in the table.
   * Runs end with the window: the next one begins a run of its own. The window is read while runs are taken, so
   * fill it again only after the last.
   *
   * @throws RangeError at once, for more entries than the window has or a table of more than 2^32
   * @throws {BitmapFormatError} `table-entry`, if strict, before the chunk with the first invalid entry
   */
  decode(firstEntry: number, entries: number): Generator<TableRun, void, undefined>
  /**
   * The same as chunks of at most 1,024 runs, without an object for each: for tables of up to 2^27 entries.
   *
   * @throws as decode()
   */
  runs(firstEntry: number, entries: number): Generator<TableRuns, void, undefined>
}

/**
 * Decodes a bitmap table (qcow2 specification, "Bitmap table") window by window, so that a table of 2^27 entries
 * needs no more memory than one of 2^10. The caller reads each window straight into the engine's memory.
 *
 * Takes its window and 32 KiB at most from the arena, for as long as the caller keeps them: see
 * {@link BitmapEngine.mark}.
 *
 * @param windowEntries entries for each window (default 4,096: 32 KiB)
 * @param options.strict throw at the first invalid entry instead of reporting it (default false)
 * @throws RangeError for a geometry that no image has, or a full arena
 */
export function createTableDecoder(
  engine: BitmapEngine,
  geometry: TableGeometry,
  windowEntries = WINDOW_ENTRIES,
  options: { readonly strict?: boolean } = {},
): TableDecoder {
  imageGeometry(geometry)
  wholeNumber('bitmapBytes', geometry.bitmapBytes)
  wholeNumber('windowEntries', windowEntries, 1)
  const { clusterBits, bitmapBytes, fileBytes } = geometry
  const { strict = false } = options
  const maxRuns = Math.min(windowEntries, MAX_RUNS)
  // One lane for both, so that an arena without room for both loses none.
  const windowBytes = windowEntries * 8
  const lane = engine.lane(windowBytes + maxRuns * wasmConstant('RUN_RECORD_BYTES'))
  const window = { ptr: lane.ptr, bytes: lane.bytes.subarray(0, windowBytes) }
  // Columns as in assembly/table.ts.
  const { buffer } = lane.bytes
  const out = lane.ptr + windowBytes
  const hostOffsets = new Float64Array(buffer, out, maxRuns)
  const raws = new BigUint64Array(buffer, out + maxRuns * 8, maxRuns)
  const [firstEntries, counts, kinds, masks] = [16, 20, 24, 28].map(
    at => new Uint32Array(buffer, out + maxRuns * at, maxRuns),
  ) as [Uint32Array, Uint32Array, Uint32Array, Uint32Array]
  // What would go on with the last run of the last chunk.
  let next = { entry: -1, kind: -1, hostOffset: -1 }

  function check(firstEntry: number, entries: number): void {
    wholeNumber('entries', entries, 0, windowEntries)
    wholeNumber('firstEntry', firstEntry, 0, 2 ** 32 - entries)
  }

  function* chunks(firstEntry: number, entries: number): Generator<TableRuns, void, undefined> {
    let done = 0
    while (done < entries) {
      const { kernels } = engine
      const count = kernels.decodeTable(
        window.ptr + done * 8,
        entries - done,
        firstEntry + done,
        clusterBits,
        bitmapBytes,
        fileBytes,
        out,
        maxRuns,
      )
      done += kernels.lastEntries.value as number
      if (strict) throwInvalid(count)
      const kind = kinds[0]!
      const continues =
        kind !== INVALID &&
        kind === next.kind &&
        firstEntries[0] === next.entry &&
        (kind !== DATA || hostOffsets[0] === next.hostOffset)
      const last = count - 1
      next = {
        entry: firstEntries[last]! + counts[last]!,
        kind: kinds[last]!,
        hostOffset: hostOffsets[last]! + counts[last]! * 2 ** clusterBits,
      }
      yield {
        count,
        kinds: kinds.subarray(0, count),
        firstEntries: firstEntries.subarray(0, count),
        counts: counts.subarray(0, count),
        hostOffsets: hostOffsets.subarray(0, count),
        violationMasks: masks.subarray(0, count),
        continues,
        violations: run => nameTableViolations(masks[run]!),
        raw: run => raws[run]!,
      }
    }
  }

  function throwInvalid(count: number): void {
    const run = kinds.subarray(0, count).indexOf(INVALID)
    if (run < 0) return
    const entry = firstEntries[run]!
    throw new BitmapFormatError('table-entry', entry, entry * 8, nameTableViolations(masks[run]!))
  }

  function* objects(firstEntry: number, entries: number): Generator<TableRun, void, undefined> {
    for (const runs of chunks(firstEntry, entries)) {
      // Copied out before the first is handed over: a caller may use the decoder in between.
      yield* Array.from({ length: runs.count }, (_, run) => runObject(runs, run))
    }
  }

  return {
    window,
    windowEntries,
    decode: (firstEntry, entries) => {
      check(firstEntry, entries)
      return objects(firstEntry, entries)
    },
    runs: (firstEntry, entries) => {
      check(firstEntry, entries)
      return chunks(firstEntry, entries)
    },
  }
}

// As RUN_… in assembly/table.ts (pinned by a test).
const DATA = tableRunKinds.indexOf('data')
const INVALID = tableRunKinds.indexOf('invalid')

function runObject(runs: TableRuns, run: number): TableRun {
  const kind = tableRunKinds[runs.kinds[run]!]!
  const firstEntry = runs.firstEntries[run]!
  const count = runs.counts[run]!
  switch (kind) {
    case 'data':
      return { kind, firstEntry, count, hostOffset: runs.hostOffsets[run]! }
    case 'invalid':
      return { kind, firstEntry, count: 1, raw: runs.raw(run), violations: runs.violations(run) }
    default:
      return { kind, firstEntry, count }
  }
}
