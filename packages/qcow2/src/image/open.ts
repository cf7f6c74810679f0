import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import { findingToError } from '../findings.js'
import type { ImageStorage } from '../storage/storage.js'
import { type ImageInspection, inspectImage } from './inspect.js'

/**
 * Opens an image strictly: as {@link inspectImage}, but what QEMU would refuse is an error.
 *
 * @throws {Qcow2Error} for the first finding of severity `error`
 */
export async function openImage(storage: ImageStorage, engine?: BitmapEngine): Promise<ImageInspection> {
  const inspection = await inspectImage(storage, engine)
  const fatal = inspection.findings.find(finding => finding.severity === 'error')
  if (fatal !== undefined) throw findingToError(storage.name, fatal)
  return inspection
}
