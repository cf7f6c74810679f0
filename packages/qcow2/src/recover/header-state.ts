import { SECTOR } from '../edit/header-switch.js'
import { type SwitchStates, switchStates, unmarked } from '../edit/switch-states.js'
import { Qcow2Error } from '../errors.js'
import { sameBytes } from '../format/bytes.js'
import { parseExtensions } from '../format/extensions.js'
import { parseHeader } from '../format/header.js'
import { checkHeader } from '../format/header-check.js'
import type { JournalImage } from '../journal/content.js'
import { readStart } from '../storage/overlaid.js'
import type { ImageStorage } from '../storage/storage.js'

/** Of the header: where the refcount table is, and how long. */
const REFCOUNT_TABLE = { at: 48, end: 60 } as const

/** How far an image has come, by its own header; nothing of it is the journal's word alone. */
export type HeaderState =
  /** As before, and not marked: it was not prepared to the end, or has gone back, or somebody opened it since. */
  | { readonly kind: 'old' }
  /** Marked: nobody has written to it. So many of the switch's writes are there; `torn`: the next one in part. */
  | { readonly kind: 'marked'; readonly step: number; readonly torn: boolean; readonly way: SwitchStates }
  /** Switched, and not marked any more. */
  | { readonly kind: 'new' }
  /** Anything else: written to by somebody since, or another image altogether. */
  | { readonly kind: 'foreign' }

/**
 * Compares an image's first cluster with what the edit would have made of the one in the journal, step by step. The
 * steps are worked out anew from that, as the edit did: of the journal only the place of the new directory is taken.
 */
export async function headerState(storage: ImageStorage, entry: JournalImage): Promise<HeaderState> {
  const now = await readStart(storage, entry.clusterSize)
  const start = new Uint8Array(entry.clusterSize)
  start.set(entry.start)
  // The refcount table may have moved before anything else: where it is now it stays.
  const { at, end } = REFCOUNT_TABLE
  start.set(now.subarray(at, end), at)
  const way = wayFrom(storage, entry, start)
  if (way === undefined) return { kind: 'foreign' }
  const { states } = way
  // Autoclear bits that nobody here knows go with the mark.
  if (sameBytes(now, start) || sameBytes(now, unmarked(states[0]!))) return { kind: 'old' }
  if (sameBytes(now, unmarked(states.at(-1)!))) return { kind: 'new' }
  const step = states.findLastIndex(state => sameBytes(now, state))
  if (step >= 0) return { kind: 'marked', step, torn: false, way }
  const torn = states.findIndex((state, i) => i + 1 < states.length && isBetween(now, state, states[i + 1]!))
  return torn < 0 ? { kind: 'foreign' } : { kind: 'marked', step: torn, torn: true, way }
}

/** Undefined for a header that no edit would have begun with. */
function wayFrom(storage: ImageStorage, entry: JournalImage, start: Uint8Array): SwitchStates | undefined {
  const { clusterSize, directory } = entry
  try {
    const header = parseHeader(start, storage.name)
    if (2 ** header.clusterBits !== clusterSize || header.version < 3) return undefined
    const wrong = checkHeader(header, storage.size, []).some(({ severity }) => severity === 'error')
    const names = header.backingFileOffset === 0 ? clusterSize : header.backingFileOffset
    const { extensions, findings } = parseExtensions(start, header.headerLength, names)
    if (wrong || findings.length > 0) return undefined
    return switchStates({ storage, header, clusterSize, extensions }, directory, start)
  } catch (error) {
    if (error instanceof Qcow2Error) return undefined
    throw error
  }
}

/** Each sector is the one of either. */
function isBetween(now: Uint8Array, before: Uint8Array, after: Uint8Array): boolean {
  for (let at = 0; at < now.byteLength; at += SECTOR) {
    const sector = (bytes: Uint8Array) => bytes.subarray(at, at + SECTOR)
    if (!sameBytes(sector(now), sector(before)) && !sameBytes(sector(now), sector(after))) return false
  }
  return true
}
