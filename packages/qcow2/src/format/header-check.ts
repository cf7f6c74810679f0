import type { Finding } from '../findings.js'
import { type FeatureName, incompatible, unknownIncompatibleBits } from './features.js'
import { headerFinding, type Qcow2Header, V3_HEADER_BYTES } from './header.js'

// QEMU's limits (qcow2.h): QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE, QCOW_MAX_SNAPSHOTS.
const MAX_L1_BYTES = 32 * 1024 * 1024
const MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024
const MAX_SNAPSHOTS = 65536
const MAX_BACKING_NAME_BYTES = 1023

/**
 * What QEMU looks at before it opens an image (qcow2_do_open), and the bounds of the file.
 *
 * @param fileBytes length of the image file
 * @param names the image's own feature name table, to name unknown bits
 */
export function checkHeader(
  header: Qcow2Header,
  fileBytes: number,
  names: readonly FeatureName[],
): Finding[] {
  return [...checkFeatures(header, names), ...checkLengths(header), ...checkTables(header, fileBytes)]
}

function checkFeatures(header: Qcow2Header, names: readonly FeatureName[]): Finding[] {
  const findings: Finding[] = []
  const unsupported = (feature: string, offset: number) =>
    findings.push({
      code: 'unsupported-feature',
      severity: 'error',
      structure: 'header',
      offset,
      found: feature,
      message: `${feature} is not supported`,
    })
  for (const bit of unknownIncompatibleBits(header.incompatibleFeatures)) {
    const name = names.find(row => row.type === 'incompatible' && row.bit === bit)?.name
    unsupported(`incompatible feature bit ${bit}${name === undefined ? '' : ` (${name})`}`, 72)
  }
  if (header.cryptMethod > 2) unsupported(`encryption method ${header.cryptMethod}`, 32)
  if (header.compressionType > 1) unsupported(`compression type ${header.compressionType}`, 104)
  const hasCompressionBit = (header.incompatibleFeatures & incompatible.compressionType) !== 0n
  if (hasCompressionBit !== (header.compressionType !== 0)) {
    const expected = hasCompressionBit
      ? 'not 0, since incompatible bit 3 is set'
      : '0, since incompatible bit 3 is clear'
    findings.push(headerFinding('compression_type', 104, expected, header.compressionType))
  }
  if ((header.incompatibleFeatures & incompatible.extendedL2) !== 0n && header.clusterBits < 14) {
    findings.push(
      headerFinding('cluster_bits', 20, 'at least 14 with extended L2 entries', header.clusterBits),
    )
  }
  if ((header.incompatibleFeatures & incompatible.corrupt) !== 0n) {
    findings.push({
      code: 'corrupt-flag',
      severity: 'warning',
      structure: 'header',
      field: 'incompatible_features',
      offset: 72,
      message:
        'the image is marked corrupt: QEMU opens it read-only until qemu-img check -r all has repaired it',
    })
  }
  return findings
}

function checkLengths(header: Qcow2Header): Finding[] {
  const findings: Finding[] = []
  const clusterSize = 2 ** header.clusterBits
  if (header.size > Number.MAX_SAFE_INTEGER) {
    findings.push({
      code: 'unsupported-feature',
      severity: 'error',
      structure: 'header',
      field: 'size',
      offset: 24,
      found: 'a disk of more than 2^53 − 1 bytes',
      message: 'a disk of more than 2^53 − 1 bytes is not supported',
    })
  }
  if (header.version === 3 && (header.headerLength < V3_HEADER_BYTES || header.headerLength > clusterSize)) {
    findings.push(
      headerFinding('header_length', 100, `${V3_HEADER_BYTES} … ${clusterSize}`, header.headerLength),
    )
  }
  if (header.refcountOrder > 6) {
    findings.push(headerFinding('refcount_order', 96, '0 … 6', header.refcountOrder))
  }
  if (header.backingFileOffset !== 0) {
    if (header.backingFileSize > MAX_BACKING_NAME_BYTES) {
      findings.push(
        headerFinding('backing_file_size', 16, `at most ${MAX_BACKING_NAME_BYTES}`, header.backingFileSize),
      )
    } else if (header.backingFileOffset + header.backingFileSize > clusterSize) {
      findings.push(
        headerFinding('backing_file_offset', 8, 'a name within cluster 0', header.backingFileOffset),
      )
    }
  }
  return findings
}

function checkTables(header: Qcow2Header, fileBytes: number): Finding[] {
  const findings: Finding[] = []
  const clusterSize = 2 ** header.clusterBits
  const extended = (header.incompatibleFeatures & incompatible.extendedL2) !== 0n
  const guestBytesPerL1Entry = clusterSize * (clusterSize / (extended ? 16 : 8))
  const neededL1 = Math.ceil(header.size / guestBytesPerL1Entry)
  if (header.l1Size * 8 > MAX_L1_BYTES) {
    findings.push(headerFinding('l1_size', 36, `at most ${MAX_L1_BYTES / 8}`, header.l1Size))
  } else if (header.l1Size < neededL1) {
    findings.push(
      headerFinding('l1_size', 36, `at least ${neededL1} for a disk of ${header.size} bytes`, header.l1Size),
    )
  } else {
    findings.push(
      ...checkTable('l1_table_offset', 40, header.l1TableOffset, header.l1Size * 8, clusterSize, fileBytes),
    )
  }
  if (
    header.refcountTableClusters === 0 ||
    header.refcountTableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES
  ) {
    const most = MAX_REFCOUNT_TABLE_BYTES / clusterSize
    findings.push(headerFinding('refcount_table_clusters', 56, `1 … ${most}`, header.refcountTableClusters))
  } else {
    const bytes = header.refcountTableClusters * clusterSize
    // The table's last cluster may be the file's last and short.
    findings.push(
      ...checkTable(
        'refcount_table_offset',
        48,
        header.refcountTableOffset,
        bytes - clusterSize + 8,
        clusterSize,
        fileBytes,
      ),
    )
  }
  if (header.nbSnapshots > MAX_SNAPSHOTS) {
    findings.push(headerFinding('nb_snapshots', 60, `at most ${MAX_SNAPSHOTS}`, header.nbSnapshots))
  } else {
    // Each entry has 40 bytes and more.
    const bytes = header.nbSnapshots * 40
    findings.push(
      ...checkTable('snapshots_offset', 64, header.snapshotsOffset, bytes, clusterSize, fileBytes),
    )
  }
  return findings
}

/** A table without entries may be anywhere, but not at an offset that QEMU finds invalid. */
function checkTable(
  field: string,
  at: number,
  offset: number,
  bytes: number,
  clusterSize: number,
  fileBytes: number,
): Finding[] {
  if (offset % clusterSize !== 0) {
    return [headerFinding(field, at, `a multiple of ${clusterSize}`, offset)]
  }
  if (offset + bytes > (bytes === 0 ? Number.MAX_SAFE_INTEGER : fileBytes)) {
    return [headerFinding(field, at, `${bytes} bytes within the file of ${fileBytes}`, offset)]
  }
  return []
}
