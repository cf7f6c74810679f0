import { type BitmapEngine, createEngine } from '@tidemark/bitmap-wasm'
import { type BitmapDirectory, diskBytes, readBitmapDirectory } from '../bitmaps/directory.js'
import type { Finding } from '../findings.js'
import { cString } from '../format/bytes.js'
import { checkExtensions } from '../format/extension-check.js'
import {
  extensionMagic,
  type HeaderExtension,
  parseExtensions,
  parseFeatureNames,
} from '../format/extensions.js'
import { autoclear, bitNumbers, compatible, type FeatureName, incompatible } from '../format/features.js'
import { HEADER_PREFIX_BYTES, headerFinding, parseHeader, type Qcow2Header } from '../format/header.js'
import { checkHeader } from '../format/header-check.js'
import { type ImageStorage, readBytes } from '../storage/storage.js'

/** What an image says of itself: everything in its header, its extensions and its bitmap directory. */
export interface ImageInspection {
  readonly storage: ImageStorage
  readonly header: Qcow2Header
  /** All of them in the file's order, unknown ones included. */
  readonly extensions: readonly HeaderExtension[]
  readonly featureNames: readonly FeatureName[]
  readonly clusterSize: number
  /** The disk's size in bytes, whole sectors as QEMU takes it. */
  readonly virtualSize: number
  readonly backingFile: string | undefined
  readonly backingFormat: string | undefined
  /** The external data file's name; an empty string where the image uses one but does not name it. */
  readonly dataFile: string | undefined
  readonly dataFileRaw: boolean
  readonly lazyRefcounts: boolean
  readonly dirty: boolean
  readonly corrupt: boolean
  readonly extendedL2: boolean
  readonly encrypted: boolean
  /** Undefined without the bitmaps extension. */
  readonly bitmapDirectory: BitmapDirectory | undefined
  /** What is wrong, in the file's order of structures. Empty for a sound image. */
  readonly findings: readonly Finding[]
}

/**
 * Reads an image's metadata and says what is wrong with it. Works on images that QEMU refuses to open; reads
 * cluster 0 and the bitmap directory, never bitmaps' bodies nor guest data.
 *
 * @throws {Qcow2Error} `not-qcow2`, `unsupported-feature` (version), `corrupt-image` where not even the cluster
 *   size is known
 *
 * @example
 * const inspection = await inspectImage(memoryStorage(bytes))
 * for (const bitmap of inspection.bitmapDirectory?.bitmaps ?? []) console.log(bitmap.name, bitmap.granularity)
 */
export async function inspectImage(
  storage: ImageStorage,
  engine: BitmapEngine = createEngine(),
): Promise<ImageInspection> {
  const findings: Finding[] = []
  const prefix = await readBytes(storage, 0, Math.min(HEADER_PREFIX_BYTES, storage.size))
  const header = parseHeader(prefix, storage.name)
  const clusterSize = 2 ** header.clusterBits
  const cluster0 = await readBytes(storage, 0, Math.min(clusterSize, storage.size))

  const hasBacking = header.backingFileOffset !== 0
  const headerOk = header.headerLength <= clusterSize
  const { extensions, findings: extensionFindings } = headerOk
    ? parseExtensions(cluster0, header.headerLength, hasBacking ? header.backingFileOffset : clusterSize)
    : { extensions: [], findings: [] }
  // Each type once; of several, the last, as QEMU (and a finding).
  const find = (magic: number) => extensions.findLast(extension => extension.magic === magic)

  const names = find(extensionMagic.featureNames)
  const featureNames = names === undefined ? [] : parseFeatureNames(names.data)
  findings.push(...checkHeader(header, storage.size, featureNames), ...extensionFindings)
  if (headerOk) findings.push(...checkExtensions(header, extensions))

  const usesDataFile = (header.incompatibleFeatures & incompatible.externalDataFile) !== 0n
  const dataFileName = find(extensionMagic.dataFileName)
  const dataFileRaw = (header.autoclearFeatures & autoclear.rawExternalData) !== 0n
  if (dataFileRaw && !usesDataFile) {
    findings.push(
      headerFinding(
        'autoclear_features',
        88,
        'bit 1 clear without an external data file',
        bits(header.autoclearFeatures),
        'warning',
      ),
    )
  }

  if ((header.autoclearFeatures & autoclear.unfinishedEdit) !== 0n) {
    findings.push({
      code: 'unfinished-edit',
      severity: 'warning',
      structure: 'header',
      field: 'autoclear_features',
      offset: 88,
      message:
        'an edit of several images, of which this is one, is going on or was cut off: its bitmaps are the old ones or ' +
        'the new ones, those of the others perhaps not the same (tidemark recover JOURNAL)',
    })
  }

  const bitmapsExtension = find(extensionMagic.bitmaps)
  let bitmapDirectory: BitmapDirectory | undefined
  if (bitmapsExtension !== undefined) {
    bitmapDirectory = await readBitmapDirectory(storage, engine, header, bitmapsExtension, findings)
  } else if ((header.autoclearFeatures & autoclear.bitmaps) !== 0n) {
    findings.push(
      headerFinding(
        'autoclear_features',
        88,
        'bit 0 clear without a bitmaps extension',
        bits(header.autoclearFeatures),
        'warning',
      ),
    )
  }

  const format = find(extensionMagic.backingFormat)
  return {
    storage,
    header,
    extensions,
    featureNames,
    clusterSize,
    virtualSize: diskBytes(header),
    backingFile: hasBacking ? backingName(header, cluster0) : undefined,
    backingFormat: format === undefined ? undefined : cString(format.data),
    dataFile: usesDataFile ? cString(dataFileName?.data ?? new Uint8Array()) : undefined,
    dataFileRaw: usesDataFile && dataFileRaw,
    lazyRefcounts: (header.compatibleFeatures & compatible.lazyRefcounts) !== 0n,
    dirty: (header.incompatibleFeatures & incompatible.dirty) !== 0n,
    corrupt: (header.incompatibleFeatures & incompatible.corrupt) !== 0n,
    extendedL2: (header.incompatibleFeatures & incompatible.extendedL2) !== 0n,
    encrypted: header.cryptMethod !== 0,
    bitmapDirectory,
    findings,
  }
}

function backingName(header: Qcow2Header, cluster0: Uint8Array): string | undefined {
  const start = header.backingFileOffset
  const end = start + Math.min(header.backingFileSize, 1023)
  return end <= cluster0.byteLength ? cString(cluster0.subarray(start, end)) : undefined
}

function bits(features: bigint): string {
  return `bits ${bitNumbers(features).join(', ')}`
}
