import { imageGeometry, wholeNumber } from './check.js'
import type { BitmapEngine, Lane } from './engine.js'
import { wasmConstant } from './module.js'
import { nameTableViolations, type TableViolation } from './violations.js'

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
   */
  decode(firstEntry: number, entries: number): Generator<TableRun, void, undefined>
}

/**
 * Decodes a bitmap table (qcow2 specification, "Bitmap table") window by window, so that a table of 2^27 entries
 * needs no more memory than one of 2^10. The caller reads each window straight into the engine's memory.
 *
 * Takes its window and 32 KiB at most from the arena, for as long as the caller keeps them: see
 * {@link BitmapEngine.mark}.
 *
 * @param windowEntries entries for each window (default 4,096: 32 KiB)
 * @throws RangeError for a geometry that no image has, or a full arena
 */
export function createTableDecoder(
  engine: BitmapEngine,
  geometry: TableGeometry,
  windowEntries = 4096,
): TableDecoder {
  imageGeometry(geometry)
  wholeNumber('bitmapBytes', geometry.bitmapBytes)
  wholeNumber('windowEntries', windowEntries, 1)
  const recordBytes = wasmConstant('RUN_RECORD_BYTES')
  const maxRuns = Math.min(windowEntries, 1024)
  // One lane for both, so that an arena without room for both loses none.
  const windowBytes = windowEntries * 8
  const lane = engine.lane(windowBytes + maxRuns * recordBytes)
  const window = { ptr: lane.ptr, bytes: lane.bytes.subarray(0, windowBytes) }
  const records = new DataView(lane.bytes.buffer, lane.ptr + windowBytes, maxRuns * recordBytes)

  function decode(firstEntry: number, entries: number): Generator<TableRun, void, undefined> {
    wholeNumber('entries', entries, 0, windowEntries)
    wholeNumber('firstEntry', firstEntry, 0, 2 ** 32 - entries)
    return runs(firstEntry, entries)
  }

  function* runs(firstEntry: number, entries: number): Generator<TableRun, void, undefined> {
    let done = 0
    while (done < entries) {
      const count = engine.kernels.decodeTable(
        window.ptr + done * 8,
        entries - done,
        firstEntry + done,
        geometry.clusterBits,
        geometry.bitmapBytes,
        geometry.fileBytes,
        records.byteOffset,
        maxRuns,
      )
      done += engine.kernels.lastEntries.value as number
      // Copied out before the first is handed over: a caller may use the engine in between.
      const batch = Array.from({ length: count }, (_, i) => decodeRun(records, i * recordBytes))
      yield* batch
    }
  }

  return { window, windowEntries, decode }
}

const kinds = ['zeros', 'ones', 'data', 'invalid'] as const

// Offsets as in assembly/table.ts; the order of kinds as RUN_… there (pinned by a test).
function decodeRun(records: DataView, at: number): TableRun {
  const kind = kinds[records.getUint32(at + 8, true)]!
  const firstEntry = records.getUint32(at + 12, true)
  const count = records.getUint32(at + 16, true)
  switch (kind) {
    case 'data':
      return { kind, firstEntry, count, hostOffset: records.getFloat64(at, true) }
    case 'invalid':
      return {
        kind,
        firstEntry,
        count: 1,
        raw: records.getBigUint64(at + 24, true),
        violations: nameTableViolations(records.getUint32(at + 20, true)),
      }
    default:
      return { kind, firstEntry, count }
  }
}
