import { Qcow2Error, UnsupportedFeatureError } from '../errors.js'
import { findingToError } from '../findings.js'
import { autoclear } from '../format/features.js'
import type { ImageInspection } from '../image/inspect.js'

/** @throws {Qcow2Error} for an image that nobody may edit before something else was done */
export function mustBeEditable(image: ImageInspection): void {
  const { header, storage, findings, bitmapDirectory, corrupt, dirty } = image
  const refuse = (reason: string, why: string) =>
    new Qcow2Error('cannot-edit', `${storage.name} cannot be edited: ${why}`, { image: storage.name, reason })
  if (header.version === 2)
    throw refuse('version-2', 'version 2 images have no bitmaps (qemu-img amend -o compat=1.1)')
  const unsupported = findings.find(({ code }) => code === 'unsupported-feature')
  if (unsupported !== undefined) throw findingToError(storage.name, unsupported)
  if (header.cryptMethod === 1) throw new UnsupportedFeatureError(storage.name, "the legacy encryption 'aes'")
  if (corrupt) throw refuse('corrupt-flag', 'it is marked corrupt (qemu-img check -r all)')
  if (dirty) throw refuse('dirty', 'its refcounts were not written (lazy refcounts): qemu-img check -r all')
  if ((header.autoclearFeatures & autoclear.unfinishedEdit) !== 0n) {
    throw refuse(
      'unfinished-edit',
      'an edit of several images, of which it is one, was cut off: tidemark recover JOURNAL ends that. Where the ' +
        'journal is lost, qemu-img check -r leaks keeps the image as it is now',
    )
  }
  if (bitmapDirectory?.stale) {
    throw refuse(
      'stale-bitmaps',
      // Which of the two cannot be told from what is there, so neither is taken for the other.
      'its bitmaps are stale: a program that does not know them wrote to it, or the first or last one was being edited ' +
        'when the machine stopped. QEMU drops them when it next opens it for writing (qemu-img check -r leaks)',
    )
  }
  const broken = findings.find(({ severity }) => severity === 'error')
  if (broken !== undefined) throw findingToError(storage.name, broken)
}
