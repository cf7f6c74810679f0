import { Qcow2Error } from '../errors.js'
import { sha256 } from './digest.js'

/** In this order; the last two need not be there. */
export const recordKinds = ['begin', 'images', 'commit', 'done'] as const
export type RecordKind = (typeof recordKinds)[number]

/** A record begins with a sector, so that adding one leaves those before it alone. */
export const RECORD_ALIGNMENT = 512
const HEAD = /^tidemark journal 1 (begin|images|commit|done) (\d{1,10}) ([0-9a-f]{64})\n/
const MAX_HEAD_BYTES = 128

/** A line of text that says what follows, then that, then line feeds up to the end of a sector. */
export async function encodeRecord(kind: RecordKind, payload: string): Promise<Uint8Array> {
  const body = new TextEncoder().encode(payload)
  const head = new TextEncoder().encode(
    `tidemark journal 1 ${kind} ${body.byteLength} ${await sha256(body)}\n`,
  )
  const length = head.byteLength + body.byteLength
  const record = new Uint8Array(Math.ceil(length / RECORD_ALIGNMENT) * RECORD_ALIGNMENT).fill(0x0a)
  record.set(head)
  record.set(body, head.byteLength)
  return record
}

/** What a journal holds. */
export interface JournalRecords {
  readonly payloads: Partial<Record<RecordKind, string>>
  /** Where the next record goes: behind the last whole one. */
  readonly end: number
  /** Something else than zeros follows, which is no record: one whose writing was cut off, or damage. */
  readonly torn: boolean
}

/**
 * Takes a journal apart. Of its first records, each of which was made to last before the next was begun, the last may
 * be cut off.
 *
 * @throws {Qcow2Error} `journal-invalid` for what is no journal, or one of which a part in the middle is damaged
 */
export async function parseRecords(bytes: Uint8Array, name: string): Promise<JournalRecords> {
  const payloads: Partial<Record<RecordKind, string>> = {}
  let end = 0
  let before = -1
  for (;;) {
    const record = await recordAt(bytes, end)
    const order = record === undefined ? -1 : recordKinds.indexOf(record.kind)
    // One may be left out: who goes back from where nothing was decided is done without a decision.
    if (record === undefined || order <= before || (before < 1 && order !== before + 1)) break
    payloads[record.kind] = record.payload
    before = order
    end = record.end
  }
  // Zeros are the room for a record that was not written.
  const torn = bytes.subarray(end).some(byte => byte !== 0)
  const invalid = (why: string) => new Qcow2Error('journal-invalid', `${name} ${why}`, { journal: name })
  const blank = bytes.byteLength <= RECORD_ALIGNMENT && bytes.every(byte => byte === 0)
  if (before < 0 && !blank) {
    throw invalid('is not a journal of tidemark, or its beginning is damaged: nothing was touched')
  }
  if (hasHead(bytes, end + RECORD_ALIGNMENT)) {
    throw invalid('is damaged: a record is missing before the last one. Nothing was touched')
  }
  return { payloads, end, torn }
}

/** A record begins behind something that is none: that was whole once. What a record says has no line feeds. */
function hasHead(bytes: Uint8Array, from: number): boolean {
  for (let at = from; at < bytes.byteLength; at += RECORD_ALIGNMENT) {
    if (HEAD.test(lineAt(bytes, at))) return true
  }
  return false
}

async function recordAt(
  bytes: Uint8Array,
  at: number,
): Promise<{ kind: RecordKind; payload: string; end: number } | undefined> {
  const match = HEAD.exec(lineAt(bytes, at))
  if (match === null) return undefined
  const [head, kind, length, digest] = match
  const start = at + head.length
  const body = bytes.subarray(start, start + Number(length))
  if (body.byteLength !== Number(length) || (await sha256(body)) !== digest) return undefined
  const end = Math.ceil((start + body.byteLength) / RECORD_ALIGNMENT) * RECORD_ALIGNMENT
  return { kind: kind as RecordKind, payload: new TextDecoder().decode(body), end }
}

function lineAt(bytes: Uint8Array, at: number): string {
  return new TextDecoder('latin1').decode(bytes.subarray(at, at + MAX_HEAD_BYTES))
}
