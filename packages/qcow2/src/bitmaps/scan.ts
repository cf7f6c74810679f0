import {
  type BitmapEngine,
  createTableDecoder,
  type TableRun,
  type TableViolation,
} from '@tidemark/bitmap-wasm'
import type { Finding } from '../findings.js'
import type { ImageInspection } from '../image/inspect.js'
import { readBytes } from '../storage/storage.js'
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
  const findings: Finding[] = []
  for (const bitmap of image.bitmapDirectory?.bitmaps ?? []) {
    if (bitmap.unreadable !== undefined) continue
    for (const each of await scanTable(image, bitmap, engine)) findings.push(each)
  }
  return findings
}

async function scanTable(
  image: ImageInspection,
  bitmap: PersistentBitmap,
  engine: BitmapEngine,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const severity = image.bitmapDirectory?.stale || bitmap.inUse ? 'warning' : 'error'
  const entries = Math.min(bitmap.tableSize, Math.ceil(bitmap.bitmapBytes / image.clusterSize))
  let bad = 0
  for (let first = 0; first < entries; first += WINDOW_ENTRIES) {
    const count = Math.min(WINDOW_ENTRIES, entries - first)
    for (const run of await readRuns(image, bitmap, engine, first, count)) {
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

async function readRuns(
  image: ImageInspection,
  bitmap: PersistentBitmap,
  engine: BitmapEngine,
  first: number,
  count: number,
): Promise<readonly TableRun[]> {
  const { storage, header } = image
  const bytes = await readBytes(storage, bitmap.tableOffset + first * 8, count * 8)
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
