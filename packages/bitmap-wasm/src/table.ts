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
  /** Decodes the first `entries` of the window; `firstEntry` is the index of the window's first in the table. */
  decode(firstEntry: number, entries: number): Generator<TableRun, void, undefined>
}

/**
 * Decodes a bitmap table (qcow2 specification, "Bitmap table") window by window, so that a table of 2^27 entries
 * needs no more memory than one of 2^10. The caller reads each window straight into the engine's memory.
 *
 * @param windowEntries entries for each window (default 4,096: 32 KiB)
 */
export function createTableDecoder(
  engine: BitmapEngine,
  geometry: TableGeometry,
  windowEntries = 4096,
): TableDecoder {
  const recordBytes = wasmConstant('RUN_RECORD_BYTES')
  const maxRuns = Math.min(windowEntries, 1024)
  const window = engine.lane(windowEntries * 8)
  const out = engine.lane(maxRuns * recordBytes)
  const records = new DataView(out.bytes.buffer, out.ptr, out.bytes.byteLength)

  function* decode(firstEntry: number, entries: number): Generator<TableRun, void, undefined> {
    if (entries > windowEntries) throw new RangeError(`${entries} entries in a window of ${windowEntries}`)
    let done = 0
    while (done < entries) {
      const runs = engine.kernels.decodeTable(
        window.ptr + done * 8,
        entries - done,
        firstEntry + done,
        geometry.clusterBits,
        geometry.bitmapBytes,
        geometry.fileBytes,
        out.ptr,
        maxRuns,
      )
      done += engine.kernels.lastEntries.value as number
      // Copied out before the first is handed over: a caller may use the engine in between.
      const batch = Array.from({ length: runs }, (_, i) => decodeRun(records, i * recordBytes))
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
