import { Qcow2Error } from '../errors.js'
import { readBytes } from '../storage/storage.js'
import type { WritableStorage } from '../storage/writable.js'
import {
  type Direction,
  digestsToJson,
  directionToJson,
  imagesToJson,
  type JournalDigests,
  type JournalImage,
  parseDigests,
  parseDirection,
  parseImages,
} from './content.js'
import { encodeRecord, parseRecords, type RecordKind } from './records.js'

/** Where an edit of several images notes what it is about to do. One of `@tidemark/qcow2/node` is a file. */
export interface EditJournal {
  /** Empty when an edit begins. It grows. */
  readonly storage: WritableStorage
  /** Takes it away, and lasts when it returns. */
  remove(): Promise<void>
}

/** No journal is longer; its images' headers and the places of clusters need kilobytes. */
const MAX_JOURNAL_BYTES = 256 * 1024 * 1024

/** A journal that is written: each record lasts before what it speaks of is done. */
export class JournalWriter {
  readonly #storage: WritableStorage
  #end: number

  /** @param end where the next record goes */
  constructor(storage: WritableStorage, end = 0) {
    this.#storage = storage
    this.#end = end
  }

  /** Before anything is written to an image. */
  async begin(images: readonly JournalImage[]): Promise<void> {
    const json = imagesToJson(images)
    if (json.length > MAX_JOURNAL_BYTES / 2) {
      throw new Qcow2Error('no-space', 'the edit is too large for a journal: edit fewer images at once', {
        journal: this.#storage.name,
      })
    }
    // On its own, so that what is no journal can be told from one that was only begun.
    await this.#append('begin', '')
    await this.#append('images', json)
  }

  /** All are prepared: from here on the edit is completed. */
  async commit(digests: readonly JournalDigests[]): Promise<void> {
    await this.#append('commit', digestsToJson(digests))
  }

  /** All have their new bitmaps, or their old ones. */
  async done(direction: Direction): Promise<void> {
    await this.#append('done', directionToJson(direction))
  }

  async #append(kind: RecordKind, payload: string): Promise<void> {
    const record = await encodeRecord(kind, payload)
    // What stands there is a record that was cut off.
    if (this.#storage.size > this.#end) await this.#storage.resize(this.#end)
    await this.#storage.resize(this.#end + record.byteLength)
    await this.#storage.writeFrom(record, this.#end)
    await this.#storage.flush()
    this.#end += record.byteLength
  }
}

/** What a journal says, when an edit was cut off. */
export interface JournalContent {
  /** Undefined: it was only begun, and nothing was written to any image. */
  readonly images: readonly JournalImage[] | undefined
  /** Undefined: it was not decided yet that the edit is completed. */
  readonly digests: readonly JournalDigests[] | undefined
  readonly done: Direction | undefined
  /** Something stands behind the last record: one that was cut off, or damage. */
  readonly torn: boolean
  /** Where the next record goes. */
  readonly end: number
}

/** @throws {Qcow2Error} `journal-invalid` */
export async function readJournal(storage: WritableStorage): Promise<JournalContent> {
  const { name: journal, size } = storage
  if (size > MAX_JOURNAL_BYTES) {
    throw new Qcow2Error('journal-invalid', `${journal} is longer than any journal of tidemark`, { journal })
  }
  const { payloads, end, torn } = await parseRecords(await readBytes(storage, 0, size), journal)
  const images = payloads.images === undefined ? undefined : parseImages(payloads.images, journal)
  return {
    images,
    digests:
      payloads.commit === undefined ? undefined : parseDigests(payloads.commit, images!.length, journal),
    done: payloads.done === undefined ? undefined : parseDirection(payloads.done, journal),
    torn,
    end,
  }
}
