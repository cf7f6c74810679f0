import { imageGeometry } from './check.js'
import type { BitmapEngine } from './engine.js'
import { wasmConstant } from './module.js'
import { type ExtensionViolation, nameExtensionViolations } from './violations.js'

/** The bitmaps header extension (qcow2 specification, "Bitmaps extension"), decoded as far as it can be. */
export interface BitmapsExtension {
  /** `nb_bitmaps` as written; may be anything. */
  readonly bitmapCount: number
  readonly reserved: number
  /** Bytes; u64 on disk, rounded to f64 above 2^53 (`past-end-of-file` is then among the violations). */
  readonly directorySize: number
  /** Host offset of the bitmap directory; rounded likewise. */
  readonly directoryOffset: number
  /** Empty for a payload that QEMU takes and the file can hold. */
  readonly violations: readonly ExtensionViolation[]
}

/**
 * Decodes the payload of the bitmaps extension. Lenient: what is wrong is listed in `violations`.
 *
 * @param payload 24 bytes, the extension's data
 * @param geometry cluster size as log2, and the image file's length in bytes
 * @throws RangeError for a payload that is not exactly 24 bytes long, a geometry that no image has, or an arena
 *   without room for 64 bytes
 */
export function parseBitmapsExtension(
  engine: BitmapEngine,
  payload: Uint8Array,
  geometry: { clusterBits: number; fileBytes: number },
): BitmapsExtension {
  const size = wasmConstant('EXTENSION_BYTES')
  if (payload.byteLength !== size) {
    throw new RangeError(`a bitmaps extension of ${payload.byteLength} bytes, not ${size}`)
  }
  imageGeometry(geometry)
  return engine.scratch(() => {
    const src = engine.lane(size)
    const out = engine.lane(32)
    src.bytes.set(payload)
    const mask = engine.kernels.parseExtension(src.ptr, geometry.clusterBits, geometry.fileBytes, out.ptr)
    const fields = new Float64Array(out.bytes.buffer, out.ptr, 4)
    return {
      bitmapCount: fields[0]!,
      reserved: fields[1]!,
      directorySize: fields[2]!,
      directoryOffset: fields[3]!,
      violations: nameExtensionViolations(mask),
    }
  })
}

/** Limits that QEMU sets, read from the module. */
export function bitmapLimits(): {
  maxBitmaps: number
  maxDirectoryBytes: number
  maxNameBytes: number
  maxBitmapBytes: number
  minGranularityBits: number
  maxGranularityBits: number
} {
  return {
    maxBitmaps: wasmConstant('MAX_BITMAPS'),
    maxDirectoryBytes: wasmConstant('MAX_DIRECTORY_BYTES'),
    maxNameBytes: wasmConstant('MAX_NAME_BYTES'),
    maxBitmapBytes: wasmConstant('MAX_BITMAP_BYTES'),
    minGranularityBits: wasmConstant('MIN_GRANULARITY_BITS'),
    maxGranularityBits: wasmConstant('MAX_GRANULARITY_BITS'),
  }
}
