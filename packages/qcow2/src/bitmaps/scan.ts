import {
  type BitmapEngine,
  type TableDecoder,
  type TableViolation,
  tableRunKinds,
} from '@tidemark/bitmap-wasm'
import type { Finding } from '../findings.js'
import type { ImageInspection } from '../image/inspect.js'
import type { PersistentBitmap } from './directory.js'
import { TableDecoders, TableReads } from './table-reads.js'

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
  const ahead = new TableReads(
    image.storage,
    byPlace.map(bitmap => ({
      start: bitmap.tableOffset,
      end: bitmap.tableOffset + 8 * tableEntries(image, bitmap),
    })),
  )
  const mark = engine.mark()
  try {
    const decoders = new TableDecoders(image, engine)
    for (const bitmap of byPlace) {
      const findings = await scanTable(image, bitmap, decoders.of(bitmap.bitmapBytes), ahead)
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

const INVALID = tableRunKinds.indexOf('invalid')

async function scanTable(
  image: ImageInspection,
  bitmap: PersistentBitmap,
  decoder: TableDecoder,
  ahead: TableReads,
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
