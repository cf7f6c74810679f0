import { CorruptImageError, Qcow2Error, UnsupportedFeatureError } from '../errors.js'
import type { Finding } from '../findings.js'
import { type HostOffset, hostOffset } from '../offsets.js'
import { fieldsOf } from './bytes.js'

/** `QFI\xfb` */
export const MAGIC = 0x514649fb
export const V2_HEADER_BYTES = 72
export const V3_HEADER_BYTES = 104
/** As much as any header that QEMU writes; enough to learn the cluster size. */
export const HEADER_PREFIX_BYTES = 112

/** The fixed header (qcow2 specification, "Header"). Names are the specification's. */
export interface Qcow2Header {
  readonly version: 2 | 3
  readonly backingFileOffset: HostOffset
  readonly backingFileSize: number
  readonly clusterBits: number
  /** Virtual size in bytes, as written. QEMU and this package use it cut down to a multiple of 512. */
  readonly size: number
  readonly cryptMethod: number
  readonly l1Size: number
  readonly l1TableOffset: HostOffset
  readonly refcountTableOffset: HostOffset
  readonly refcountTableClusters: number
  readonly nbSnapshots: number
  readonly snapshotsOffset: HostOffset
  /** 0 in version 2, like the two after it. */
  readonly incompatibleFeatures: bigint
  readonly compatibleFeatures: bigint
  readonly autoclearFeatures: bigint
  /** refcount_bits = 1 << refcountOrder; 4 in version 2. */
  readonly refcountOrder: number
  /** 72 in version 2. */
  readonly headerLength: number
  /** 0 zlib, 1 zstd. */
  readonly compressionType: number
}

/**
 * Parses the fixed header. Strict in what everything else is measured by (magic, version, cluster size), lenient
 * in the rest, which `checkHeader` judges.
 *
 * @param bytes the file's first bytes, at least 72; 112 where there are so many
 * @param image a name for messages
 * @throws {Qcow2Error} `not-qcow2` without the magic; `unsupported-feature` for another version;
 *   `corrupt-image` for a file that ends in the header, or a cluster size out of range
 */
export function parseHeader(bytes: Uint8Array, image: string): Qcow2Header {
  const f = fieldsOf(bytes)
  if (bytes.byteLength < 4 || f.u32(0) !== MAGIC) {
    throw new Qcow2Error('not-qcow2', `${image} is not a qcow2 image`, { image })
  }
  if (bytes.byteLength < V2_HEADER_BYTES) throw tooShort(image, bytes.byteLength, V2_HEADER_BYTES)
  const version = f.u32(4)
  if (version !== 2 && version !== 3) throw new UnsupportedFeatureError(image, `qcow2 version ${version}`)
  if (version === 3 && bytes.byteLength < V3_HEADER_BYTES) {
    throw tooShort(image, bytes.byteLength, V3_HEADER_BYTES)
  }
  const clusterBits = f.u32(20)
  if (clusterBits < 9 || clusterBits > 21) {
    throw new CorruptImageError(image, {
      structure: 'header',
      field: 'cluster_bits',
      offset: 20,
      expected: '9 … 21',
      found: String(clusterBits),
    })
  }
  const headerLength = version === 3 ? f.u32(100) : V2_HEADER_BYTES
  return {
    version,
    backingFileOffset: hostOffset(f.u64(8)),
    backingFileSize: f.u32(16),
    clusterBits,
    size: f.u64(24),
    cryptMethod: f.u32(32),
    l1Size: f.u32(36),
    l1TableOffset: hostOffset(f.u64(40)),
    refcountTableOffset: hostOffset(f.u64(48)),
    refcountTableClusters: f.u32(56),
    nbSnapshots: f.u32(60),
    snapshotsOffset: hostOffset(f.u64(64)),
    incompatibleFeatures: version === 3 ? f.bits64(72) : 0n,
    compatibleFeatures: version === 3 ? f.bits64(80) : 0n,
    autoclearFeatures: version === 3 ? f.bits64(88) : 0n,
    refcountOrder: version === 3 ? f.u32(96) : 4,
    headerLength,
    // Absent (zlib) where header_length ends before it.
    compressionType: headerLength > 104 && bytes.byteLength > 104 ? f.u8(104) : 0,
  }
}

function tooShort(image: string, found: number, expected: number): CorruptImageError {
  return new CorruptImageError(image, {
    structure: 'header',
    offset: 0,
    expected: `${expected} bytes`,
    found: `the end of the file after ${found}`,
  })
}

/** A finding about a header field. */
export function headerFinding(
  field: string,
  offset: number,
  expected: string,
  found: string | number,
  severity: Finding['severity'] = 'error',
): Finding {
  return {
    code: `header-${field.replaceAll('_', '-')}`,
    severity,
    structure: 'header',
    field,
    offset,
    expected,
    found: String(found),
    message: `header field ${field} is ${found}, expected ${expected}`,
  }
}
