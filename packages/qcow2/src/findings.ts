import { CorruptImageError, type Qcow2Error, UnsupportedFeatureError } from './errors.js'

/**
 * What an inspection found wrong. `error`: QEMU refuses the image or the data cannot be trusted; `warning`: it
 * works but loses something; `info`: worth knowing.
 */
export interface Finding {
  /** Stable, kebab-case. */
  readonly code: string
  readonly severity: 'error' | 'warning' | 'info'
  /** The specification's name: `header`, `header extension`, `bitmaps extension`, `bitmap directory entry`, … */
  readonly structure: string
  readonly field?: string
  /** Host offset in bytes. */
  readonly offset: number
  readonly bitmap?: string
  readonly expected?: string
  readonly found?: string
  readonly message: string
}

/** The error that a strict reader throws for a finding. */
export function findingToError(image: string, finding: Finding): Qcow2Error {
  if (finding.code === 'unsupported-feature')
    return new UnsupportedFeatureError(image, finding.found ?? finding.message)
  return new CorruptImageError(image, {
    structure: finding.structure,
    ...(finding.field === undefined ? {} : { field: finding.field }),
    offset: finding.offset,
    expected: finding.expected ?? 'a valid value',
    found: finding.found ?? finding.message,
  })
}
