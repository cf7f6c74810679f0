import { fieldsOf } from '../format/bytes.js'
import { autoclear } from '../format/features.js'
import {
  AUTOCLEAR_AT,
  type HeaderWrite,
  KNOWN_AUTOCLEAR,
  type NewDirectory,
  planSwitch,
  type SwitchedImage,
  setAutoclear,
} from './header-switch.js'

/**
 * Cluster 0 on its way from the old bitmaps to the new ones, where several images go together: the image is marked,
 * then switched, write by write, and when all of them are switched the mark goes.
 */
export interface SwitchStates {
  readonly mark: HeaderWrite
  readonly writes: readonly HeaderWrite[]
  readonly unmark: HeaderWrite
  /** Marked; then after each of `writes`. */
  readonly states: readonly Uint8Array[]
}

/**
 * @param start cluster 0 before; `image` is what it says
 * @throws {Qcow2Error} `no-space` where cluster 0 has no room for the extension
 */
export function switchStates(
  image: SwitchedImage,
  directory: NewDirectory | undefined,
  start: Uint8Array,
): SwitchStates {
  const { unfinishedEdit } = autoclear
  const autoclearFeatures = (image.header.autoclearFeatures & KNOWN_AUTOCLEAR) | unfinishedEdit
  const mark = setAutoclear(
    'the image is marked as one of an edit of several (autoclear bit 61)',
    autoclearFeatures,
  )
  const marked = { ...image, header: { ...image.header, autoclearFeatures } }
  const states = [withWrite(start, mark)]
  const writes = planSwitch(marked, directory, states[0]!)
  for (const write of writes) states.push(withWrite(states.at(-1)!, write))
  return { mark, writes, unmark: unmarking(states.at(-1)!), states }
}

/** What takes the mark from a cluster 0. */
export function unmarking(cluster0: Uint8Array): HeaderWrite {
  const flags = fieldsOf(cluster0).bits64(AUTOCLEAR_AT)
  return setAutoclear('the mark goes (autoclear bit 61)', flags & ~autoclear.unfinishedEdit)
}

export function unmarked(cluster0: Uint8Array): Uint8Array {
  return withWrite(cluster0, unmarking(cluster0))
}

/** Cluster 0 after a write to it. */
export function withWrite(cluster0: Uint8Array, { offset, bytes }: HeaderWrite): Uint8Array {
  const after = cluster0.slice()
  after.set(bytes, offset)
  return after
}
