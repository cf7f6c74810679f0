import {
  type BitmapEngine,
  type BitmapsExtension,
  bitmapLimits,
  type DirectoryEntry,
  type EntryViolation,
  type ExtensionViolation,
  parseBitmapDirectory,
  parseBitmapsExtension,
} from '@tidemark/bitmap-wasm'
import { hex } from '../errors.js'
import type { Finding } from '../findings.js'
import type { HeaderExtension } from '../format/extensions.js'
import { autoclear } from '../format/features.js'
import type { Qcow2Header } from '../format/header.js'
import { type ImageStorage, readBytes } from '../storage/storage.js'

/** A persistent bitmap as the directory has it, with what follows from the image around it. */
export interface PersistentBitmap extends DirectoryEntry {
  /** Bytes for each bit; 2^granularityBits. */
  readonly granularity: number
  /** Bits: ceil(virtual size / granularity). */
  readonly granules: number
  /** ceil(granules / 8). */
  readonly bitmapBytes: number
  /** Why its bits cannot be read: the entry is malformed. Undefined where they can. */
  readonly unreadable: string | undefined
  /** Unreadable, yet QEMU opens the image all the same and takes what is not there for clean. */
  readonly readAsClean: boolean
}

/** The bitmaps extension and the directory it points at. */
export interface BitmapDirectory {
  readonly extension: BitmapsExtension
  /**
   * Autoclear bit 0 is clear: a writer that does not know bitmaps had the image open, so all of them are
   * inconsistent. QEMU hides them, and erases the extension when it next opens the image for writing.
   */
  readonly stale: boolean
  readonly bitmaps: readonly PersistentBitmap[]
}

/** A disk's size as QEMU takes it: whole sectors. */
export function diskBytes(header: Qcow2Header): number {
  return header.size - (header.size % 512)
}

/**
 * Reads the bitmap directory, leniently: what is wrong goes to `findings`. Allocates no more than the file holds,
 * whatever the extension claims, and at most QEMU's limit of 64 MiB.
 *
 * @throws {Qcow2Error} only when the storage fails
 */
export async function readBitmapDirectory(
  storage: ImageStorage,
  engine: BitmapEngine,
  header: Qcow2Header,
  extension: HeaderExtension,
  findings: Finding[],
): Promise<BitmapDirectory | undefined> {
  if (extension.data.byteLength !== 24) {
    findings.push(
      extensionFinding(
        extension,
        'length',
        '24 bytes',
        `${extension.data.byteLength} bytes`,
        'bitmaps-extension-length',
      ),
    )
    return undefined
  }
  const { clusterBits } = header
  const stale = (header.autoclearFeatures & autoclear.bitmaps) === 0n
  const found: Finding[] = []
  const fileBytes = storage.size
  const parsed = parseBitmapsExtension(engine, extension.data, { clusterBits, fileBytes })
  for (const violation of parsed.violations)
    found.push(describeExtension(extension, parsed, violation, fileBytes))

  if (stale) {
    found.push({
      code: 'bitmaps-stale',
      severity: 'warning',
      structure: 'header',
      field: 'autoclear_features',
      offset: 88,
      message:
        'the bitmaps are stale: a program that does not know bitmaps wrote to the image (autoclear bit 0 is clear); ' +
        'QEMU hides them now and erases them at the next read-write open',
    })
  }
  const start = parsed.directoryOffset
  const length = Math.min(
    parsed.directorySize,
    bitmapLimits().maxDirectoryBytes,
    Math.max(0, fileBytes - start),
  )
  const bytes = await readBytes(storage, length === 0 ? 0 : start, length)
  const count = Math.min(parsed.bitmapCount, bitmapLimits().maxBitmaps)
  const entries = parseBitmapDirectory(engine, bytes, count, {
    clusterBits,
    virtualSize: Math.min(header.size, Number.MAX_SAFE_INTEGER),
    fileBytes,
  })
  const disk = diskBytes(header)
  const firstOfName = firstEntries(entries)
  const repeated = new Set(entries.flatMap((_, i) => (firstOfName[i] === i ? [] : [firstOfName[i]!, i])))
  const { maxBitmapBytes } = bitmapLimits()
  const bitmaps = entries.map((entry, i) => describe(entry, disk, maxBitmapBytes * 8, !repeated.has(i)))
  // One by one: a garbage directory has more of them than a call takes arguments.
  for (const each of entryFindings(bitmaps, firstOfName, parsed, start)) found.push(each)
  // QEMU looks no further than the autoclear bit: what is wrong in stale bitmaps does not keep it from opening.
  for (const each of found) findings.push(stale ? { ...each, severity: 'warning' } : each)
  return { extension: parsed, stale, bitmaps }
}

/**
 * For each entry the first one of the same name. Names are bytes: windows-1252 has a character for each of them,
 * and so keeps apart what UTF-8 would not. QEMU takes what precedes a NUL for the whole.
 */
function firstEntries(entries: readonly DirectoryEntry[]): number[] {
  const bytewise = new TextDecoder('windows-1252')
  const seen = new Map<string, number>()
  return entries.map(({ nameBytes }, i) => {
    const nul = nameBytes.indexOf(0)
    const key = bytewise.decode(nul < 0 ? nameBytes : nameBytes.subarray(0, nul))
    const first = seen.get(key)
    if (first === undefined) seen.set(key, i)
    return first ?? i
  })
}

const READABLE: readonly string[] = Object.freeze([])

function describe(
  entry: DirectoryEntry,
  disk: number,
  mostGranules: number,
  unique: boolean,
): PersistentBitmap {
  const granularity = 2 ** entry.granularityBits
  const granules = Math.ceil(disk / granularity)
  // Extra data is legal; it matters only if the compatible flag does not say that it may be ignored.
  const ignorable = (entry.flags & 4) !== 0
  let reasons = READABLE
  if (entry.violations.length > 0) {
    reasons = entry.violations.filter(v => v !== 'extra-data' || !ignorable).map(v => messages[v])
  }
  // Only an in-use bitmap can have come so far: then its table may have any size.
  if (reasons.length === 0 && granules > mostGranules) {
    reasons = ['its granularity is too fine for a disk of this size']
  }
  if (!unique) reasons = [...reasons, 'another bitmap has the same name']
  if (disk > Number.MAX_SAFE_INTEGER) reasons = [...reasons, 'its disk is larger than 2^53 − 1 bytes']
  // Field by field: spreading takes ten times as long, and an image can have 65,535 of them.
  return {
    index: entry.index,
    entryOffset: entry.entryOffset,
    entryBytes: entry.entryBytes,
    tableOffset: entry.tableOffset,
    tableSize: entry.tableSize,
    flags: entry.flags,
    inUse: entry.inUse,
    auto: entry.auto,
    type: entry.type,
    granularityBits: entry.granularityBits,
    extraData: entry.extraData,
    nameBytes: entry.nameBytes,
    name: entry.name,
    violations: entry.violations,
    granularity,
    granules,
    bitmapBytes: Math.ceil(granules / 8),
    unreadable: reasons.length === 0 ? undefined : reasons.join('; '),
    readAsClean: reasons.length === 1 && entry.violations.includes('table-past-end-of-file'),
  }
}

const messages: Readonly<Record<EntryViolation, string>> = {
  truncated: 'its entry runs over the end of the directory',
  'table-offset-zero': 'its table has offset 0',
  'table-offset-unaligned': 'its table is not at a cluster boundary',
  'table-past-end-of-file': 'its table lies past the end of the file',
  'table-size-zero': 'its table has no entries',
  'table-too-large': 'its table is larger than any that QEMU takes',
  'table-size-mismatch': "its table's size does not fit the disk's size and the granularity",
  'flags-reserved': 'it has flags without a meaning',
  'type-unknown': 'its type is unknown',
  granularity: 'its granularity is not between 512 bytes and 2 GiB',
  'name-empty': 'it has no name',
  'name-too-long': 'its name is longer than 1023 bytes',
  'extra-data': 'it has extra data, which QEMU does not take',
}

function entryFindings(
  bitmaps: readonly PersistentBitmap[],
  firstOfName: readonly number[],
  parsed: BitmapsExtension,
  start: number,
): Finding[] {
  const findings: Finding[] = []
  for (const bitmap of bitmaps) {
    const first = firstOfName[bitmap.index]!
    const nul = bitmap.nameBytes.includes(0)
    if (bitmap.violations.length === 0 && (bitmap.flags & ~2) === 0 && !nul && first === bitmap.index)
      continue
    const where = {
      structure: 'bitmap directory entry',
      offset: start + bitmap.entryOffset,
      bitmap: bitmap.name,
    }
    for (const violation of bitmap.violations) {
      findings.push({
        code: `bitmap-${violation}`,
        severity: violation === 'extra-data' && bitmap.unreadable === undefined ? 'warning' : 'error',
        ...where,
        expected: 'an entry that QEMU takes',
        found: violation,
        message: `bitmap '${bitmap.name}': ${messages[violation]}`,
      })
    }
    if (bitmap.inUse) {
      findings.push({
        code: 'bitmap-in-use',
        severity: 'warning',
        ...where,
        field: 'flags',
        message: `bitmap '${bitmap.name}' is inconsistent: a writer had it open and did not finish (in-use)`,
      })
    }
    if ((bitmap.flags & 4) !== 0) {
      findings.push({
        code: 'bitmap-extra-data-compatible',
        severity: 'warning',
        ...where,
        field: 'flags',
        message: `bitmap '${bitmap.name}' has the flag extra_data_compatible: legal, but QEMU refuses the image for it`,
      })
    }
    if (nul) {
      findings.push({
        code: 'bitmap-name-nul',
        severity: 'warning',
        ...where,
        field: 'name',
        message: `bitmap '${bitmap.name}' has a NUL in its name, and QEMU takes what precedes it for the whole`,
      })
    }
    if (first !== bitmap.index) {
      findings.push({
        code: 'bitmap-name-duplicate',
        severity: 'error',
        ...where,
        expected: 'a name of its own',
        found: `the name of entry ${first}`,
        message: `bitmap '${bitmap.name}' stands twice in the directory (entries ${first} and ${bitmap.index})`,
      })
    }
  }
  if (bitmaps.length < parsed.bitmapCount) {
    findings.push({
      code: 'bitmap-directory-truncated',
      severity: 'error',
      structure: 'bitmap directory',
      offset: start,
      expected: `${parsed.bitmapCount} entries`,
      found: `${bitmaps.length}`,
      message: `the directory has room for ${bitmaps.length} of its ${parsed.bitmapCount} bitmaps`,
    })
  }
  const used = bitmaps.reduce((sum, bitmap) => sum + bitmap.entryBytes, 0)
  if (bitmaps.length === parsed.bitmapCount && used < parsed.directorySize) {
    findings.push({
      code: 'bitmap-directory-size',
      severity: 'error',
      structure: 'bitmaps extension',
      field: 'bitmap_directory_size',
      offset: start,
      expected: String(used),
      found: String(parsed.directorySize),
      message: `the directory is ${parsed.directorySize} bytes long, its entries fill ${used}`,
    })
  }
  return findings
}

function describeExtension(
  extension: HeaderExtension,
  parsed: BitmapsExtension,
  violation: ExtensionViolation,
  fileBytes: number,
): Finding {
  const limits = bitmapLimits()
  const { bitmapCount, reserved, directorySize, directoryOffset } = parsed
  const [field, expected, found] = {
    'count-zero': ['nb_bitmaps', 'at least 1', '0'],
    'count-too-large': ['nb_bitmaps', `at most ${limits.maxBitmaps}`, `${bitmapCount}`],
    'reserved-not-zero': ['reserved', '0', `${reserved}`],
    'directory-too-large': [
      'bitmap_directory_size',
      `at most ${limits.maxDirectoryBytes}`,
      `${directorySize}`,
    ],
    'directory-too-small': ['bitmap_directory_size', `at least ${bitmapCount * 24}`, `${directorySize}`],
    'offset-zero': ['bitmap_directory_offset', 'not 0', '0'],
    'offset-unaligned': ['bitmap_directory_offset', 'a cluster boundary', hex(directoryOffset)],
    'past-end-of-file': [
      'bitmap_directory_offset',
      `${directorySize} bytes within the file of ${fileBytes}`,
      hex(directoryOffset),
    ],
  }[violation] as [string, string, string]
  return extensionFinding(extension, field, expected, found, `bitmaps-extension-${violation}`)
}

function extensionFinding(
  extension: HeaderExtension,
  field: string,
  expected: string,
  found: string,
  code: string,
): Finding {
  return {
    code,
    severity: 'error',
    structure: 'bitmaps extension',
    field,
    offset: extension.offset,
    expected,
    found,
    message: `bitmaps extension: ${field} is ${found}, expected ${expected}`,
  }
}
