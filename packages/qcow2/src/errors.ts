/** Every error that this package throws for a bad image or a failed read has one of these codes. */
export type Qcow2ErrorCode =
  | 'not-qcow2'
  | 'corrupt-image'
  | 'unsupported-feature'
  | 'short-read'
  | 'read-failed'
  | 'image-missing'
  | 'image-in-use'
  | 'reference-denied'
  | 'bitmap-missing'
  | 'bitmap-exists'
  | 'bitmap-invalid'
  | 'cannot-edit'
  | 'bitmap-inconsistent'
  | 'bitmaps-stale'
  | 'disk-size-differs'
  | 'passphrase-missing'
  | 'passphrase-wrong'
  | 'snapshot-missing'
  | 'decompress-failed'
  | 'codec-unavailable'
  | 'no-space'
  | 'write-failed'
  | 'image-locked'
  | 'lock-unavailable'
  | 'image-repeated'
  | 'journal-exists'
  | 'journal-missing'
  | 'journal-invalid'
  | 'recovery-impossible'

/** Base class; `code` tells kinds apart, `details` holds the evidence as plain data. Caller mistakes are RangeError or TypeError. */
export class Qcow2Error extends Error {
  // Literal names: a bundler that makes names short would show its own.
  override readonly name: string = 'Qcow2Error'
  readonly code: Qcow2ErrorCode
  readonly details: Readonly<Record<string, unknown>>

  constructor(
    code: Qcow2ErrorCode,
    message: string,
    details: Readonly<Record<string, unknown>> = {},
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.code = code
    this.details = details
  }
}

/** A structure of the image is not as the specification has it. */
export class CorruptImageError extends Qcow2Error {
  override readonly name = 'CorruptImageError'

  /**
   * @param where the structure, the field within it, and its host offset in bytes
   */
  constructor(
    image: string,
    where: { structure: string; field?: string; offset: number; expected: string; found: string },
  ) {
    const field = where.field === undefined ? '' : `, ${where.field}`
    super(
      'corrupt-image',
      `${image}: ${where.structure}${field} at ${hex(where.offset)}: expected ${where.expected}, found ${where.found}`,
      { image, ...where },
    )
  }
}

/** The image is sound as far as it goes, but uses what this version does not know. */
export class UnsupportedFeatureError extends Qcow2Error {
  override readonly name = 'UnsupportedFeatureError'

  constructor(image: string, feature: string) {
    super('unsupported-feature', `${image}: ${feature} is not supported`, { image, feature })
  }
}

/** The storage ended before the structure did. */
export class ShortReadError extends Qcow2Error {
  override readonly name = 'ShortReadError'

  constructor(image: string, offset: number, length: number, got: number) {
    super(
      'short-read',
      `${image}: ${length} bytes wanted at ${hex(offset)}, only ${got} are there (was the file cut meanwhile?)`,
      { image, offset, length, got },
    )
  }
}

/** Offsets in diagnostics are hexadecimal. */
export function hex(offset: number): string {
  return `0x${offset.toString(16)}`
}
