import type { JournalDigests, JournalImage } from '../journal/content.js'
import type { WritableStorage } from '../storage/writable.js'
import type { HeaderState } from './header-state.js'

/** How an image was found. */
export type FoundState =
  /** With its old bitmaps; nothing to be done but to free clusters. */
  | 'old'
  /** All that is new is written and counted, and nobody has written to it since. */
  | 'prepared'
  /** Between the writes that switch it. */
  | 'switching'
  | 'switched'
  /** With its new bitmaps; nothing to be done but to free clusters. */
  | 'new'
  /** Something else has written to it, or it is another image: it is left alone. */
  | 'changed'
  | 'missing'

/** An image of the journal, as it was found. */
export interface Found {
  readonly entry: JournalImage
  readonly digests: JournalDigests | undefined
  /** Undefined: it is not there. */
  readonly storage: WritableStorage | undefined
  readonly state: HeaderState
}

export function foundState({ storage, state }: Found): FoundState {
  if (storage === undefined) return 'missing'
  switch (state.kind) {
    case 'foreign':
      return 'changed'
    case 'marked':
      if (state.torn) return 'switching'
      if (state.step === 0) return 'prepared'
      return state.step === state.way.states.length - 1 ? 'switched' : 'switching'
    default:
      return state.kind
  }
}
