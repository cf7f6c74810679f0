import type { HttpPlace } from './http-place.js'
import { PassingFailure, parseRetryAfter } from './http-retry.js'

/** What an answer tells of the image as a whole. */
export interface HttpVersion {
  readonly size: number
  readonly etag: string | null
  readonly lastModified: string | null
}

export interface RangeRequest {
  readonly place: HttpPlace
  readonly fetch: typeof fetch
  readonly offset: number
  /** At least 1. */
  readonly length: number
  /** What the image was before; another one is an error. */
  readonly known?: HttpVersion
  readonly signal: AbortSignal
}

export interface RangeAnswer {
  readonly version: HttpVersion
  /** Undefined: the image is empty. */
  readonly body: ReadableStreamDefaultReader<Uint8Array> | undefined
}

/** Statuses of a server, or of a gateway before it, that is busy. */
const BUSY = new Set([429, 502, 503, 504])

/**
 * Asks for a range and looks at what the answer says of itself before a byte of it is read (RFC 9110, 14).
 *
 * @throws {PassingFailure} what may pass; {Qcow2Error} what will not
 */
export async function requestRange(request: RangeRequest): Promise<RangeAnswer> {
  const { place, offset, length, known, signal } = request
  const headers = new Headers(place.headers)
  headers.set('Range', `bytes=${offset}-${offset + length - 1}`)
  // With a Range fetch itself asks for no encoding: offsets would count compressed bytes.
  headers.delete('Accept-Encoding')
  headers.delete('If-Range')
  const condition = known === undefined ? null : conditionOf(known)
  if (condition !== null) headers.set('If-Range', condition)
  let response: Response
  try {
    // A browser's cache lets requests for one URL wait for each other.
    response = await request.fetch(place.href, { headers, signal, redirect: 'follow', cache: 'no-store' })
  } catch (cause) {
    throw new PassingFailure(place.failure('read-failed', place.reason(cause), { offset }, cause))
  }
  try {
    const version = checkAnswer(request, response, condition !== null)
    const body = response.status === 206 ? response.body?.getReader() : undefined
    if (body === undefined && version.size > 0) throw place.failure('read-failed', 'the answer has no body')
    if (body === undefined) drop(response)
    return { version, body }
  } catch (error) {
    drop(response)
    throw error
  }
}

/** What is not read holds its connection until it is let go. */
function drop(response: Response): void {
  if (response.body !== null && !response.body.locked) response.body.cancel().catch(() => {})
}

function checkAnswer(request: RangeRequest, response: Response, conditional: boolean): HttpVersion {
  const { place, offset, length, known } = request
  const { status, headers } = response
  const failed = (what: string) => place.failure('read-failed', what, { offset, status })
  const contentRange = headers.get('Content-Range')
  const etag = headers.get('ETag')
  const lastModified = headers.get('Last-Modified')
  if (status === 404 || status === 410)
    throw place.failure('image-missing', `not there (HTTP ${status})`, { status })
  if (status === 401 || status === 403) throw failed(`permission denied (HTTP ${status})`)
  if (BUSY.has(status)) {
    throw new PassingFailure(failed(`busy (HTTP ${status})`), parseRetryAfter(headers.get('Retry-After')))
  }
  if (status === 416 && known === undefined && contentRange === 'bytes */0')
    return { size: 0, etag, lastModified }
  if (status === 416 && known !== undefined) throw failed('the image became shorter while it was read')
  if (status === 200) {
    if (known === undefined) {
      throw failed(
        'the server gives the whole image where a range was asked for: it must support Range requests',
      )
    }
    throw failed('the image changed while it was read, or the server no longer gives ranges of it')
  }
  if (status !== 206) throw failed(`HTTP ${status}`)
  const coding = headers.get('Content-Encoding')
  if (coding !== null && coding.toLowerCase() !== 'identity') {
    throw failed(`the server sends it encoded (Content-Encoding: ${quoted(coding)})`)
  }
  const version = { size: sizeIn(request, contentRange), etag, lastModified }
  if (known !== undefined && !isSame(known, version, conditional)) {
    throw failed('the image changed while it was read')
  }
  if (contentRange?.toLowerCase() !== `bytes ${offset}-${offset + length - 1}/${version.size}`) {
    throw failed(`${length} bytes at ${offset} were asked for, the answer has ${quoted(contentRange)}`)
  }
  return version
}

function sizeIn({ place, offset }: RangeRequest, contentRange: string | null): number {
  const failed = (what: string) => place.failure('read-failed', what, { offset })
  if (contentRange === null) {
    throw failed(
      'the answer has no Content-Range (a server of another origin must name it, ETag too, in Access-Control-Expose-Headers)',
    )
  }
  const size = Number(/\/(\d+)$/.exec(contentRange)?.[1])
  if (!Number.isSafeInteger(size)) throw failed(`its size is not in Content-Range: ${quoted(contentRange)}`)
  return size
}

/** If-Range wants what changes with every byte: no weak ETag. */
function conditionOf({ etag, lastModified }: HttpVersion): string | null {
  if (etag !== null && !etag.startsWith('W/')) return etag
  return lastModified !== null && !Number.isNaN(Date.parse(lastModified)) ? lastModified : null
}

/** An answer to If-Range need not repeat what that named: the range itself says that it is the same image. */
function isSame(known: HttpVersion, found: HttpVersion, conditional: boolean): boolean {
  if (found.size !== known.size) return false
  const key = known.etag === null ? 'lastModified' : 'etag'
  return found[key] === known[key] || (found[key] === null && conditional)
}

/** A header's text comes from the other side. */
function quoted(header: string | null): string {
  return JSON.stringify(header?.slice(0, 80) ?? null)
}
