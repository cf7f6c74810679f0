import type { Finding } from '../findings.js'
import { type HostOffset, hostOffset } from '../offsets.js'
import { fieldsOf, text } from './bytes.js'
import type { FeatureName, FeatureType } from './features.js'

/** Magic numbers of the header extensions that the specification names. */
export const extensionMagic = {
  end: 0x00000000,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  luksHeader: 0x0537be77,
  dataFileName: 0x44415441,
} as const

/** One header extension, known or not: kept byte for byte, in the file's order. */
export interface HeaderExtension {
  readonly magic: number
  /** Where its data begin in the file, after magic and length. */
  readonly offset: HostOffset
  readonly data: Uint8Array
}

/**
 * Walks the header extensions (qcow2 specification, "Header extensions") from `start` to the END one, or to where
 * the backing file's name begins, or to the end of cluster 0. Never reads outside `cluster0`.
 *
 * @param cluster0 the file's first cluster, as much of it as exists
 * @param start header_length: where the first extension begins
 * @param end where they must have ended: the backing file's name, or the cluster's size
 */
export function parseExtensions(
  cluster0: Uint8Array,
  start: number,
  end: number,
): { extensions: HeaderExtension[]; findings: Finding[] } {
  const extensions: HeaderExtension[] = []
  const findings: Finding[] = []
  const limit = Math.min(end, cluster0.byteLength)
  const f = fieldsOf(cluster0)
  const tooLong = (what: string, at: number, claimed: number, left: number) =>
    findings.push({
      code: 'extension-too-long',
      severity: 'error',
      structure: 'header extension',
      field: 'length',
      offset: at,
      expected: `at most ${left}`,
      found: String(claimed),
      message: `${what} claims ${claimed} bytes where ${left} are left`,
    })
  // Extensions are padded to 8 bytes from where they start, as QEMU does; a header_length is a multiple of 8.
  let at = start
  while (at < end) {
    // QEMU refuses a rest that magic and length do not fit into; after the file's end it reads zeros: END.
    if (at + 8 > end) tooLong('a header extension', at, 8, end - at)
    if (at + 8 > limit) break
    const magic = f.u32(at)
    const length = f.u32(at + 4)
    const left = limit - at - 8
    // END's length is looked at too, in QEMU as here.
    if (length > left) tooLong(`header extension ${extensionName(magic)}`, at + 4, length, left)
    if (length > left || magic === extensionMagic.end) break
    extensions.push({ magic, offset: hostOffset(at + 8), data: cluster0.subarray(at + 8, at + 8 + length) })
    at += 8 + Math.ceil(length / 8) * 8
  }
  return { extensions, findings }
}

/** The specification's name, or the magic in hex. */
export function extensionName(magic: number): string {
  switch (magic) {
    case extensionMagic.end:
      return 'END'
    case extensionMagic.backingFormat:
      return 'backing file format'
    case extensionMagic.featureNames:
      return 'feature name table'
    case extensionMagic.bitmaps:
      return 'bitmaps'
    case extensionMagic.luksHeader:
      return 'full disk encryption header pointer'
    case extensionMagic.dataFileName:
      return 'external data file name'
    default:
      return `unknown (0x${magic.toString(16).padStart(8, '0')})`
  }
}

const featureTypes: readonly FeatureType[] = ['incompatible', 'compatible', 'autoclear']
const FEATURE_ROW_BYTES = 48

/** Feature name table: rows of type u8, bit u8, and 46 bytes of name, zero-padded. */
export function parseFeatureNames(data: Uint8Array): FeatureName[] {
  const names: FeatureName[] = []
  for (let at = 0; at + FEATURE_ROW_BYTES <= data.byteLength; at += FEATURE_ROW_BYTES) {
    const type = featureTypes[data[at]!]
    if (type === undefined) continue
    const row = data.subarray(at + 2, at + FEATURE_ROW_BYTES)
    const end = row.indexOf(0)
    names.push({ type, bit: data[at + 1]!, name: text(end < 0 ? row : row.subarray(0, end)) })
  }
  return names
}
