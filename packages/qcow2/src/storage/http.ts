import { ShortReadError } from '../errors.js'
import { HttpPlace } from './http-place.js'
import { type HttpVersion, type RangeRequest, requestRange } from './http-range.js'
import { PassingFailure, retrying } from './http-retry.js'
import { Slots } from './slots.js'
import { checkRange, type ImageStorage, type ReadOptions } from './storage.js'

export interface OpenHttpOptions {
  /** Default: the platform's. */
  readonly fetch?: typeof fetch
  /** Sent with every request, an Authorization for example. */
  readonly headers?: HeadersInit
  /** Ends the opening with the signal's reason. Reads have signals of their own. */
  readonly signal?: AbortSignal
}

/** As many as a browser makes to one server. */
const REQUESTS_AT_ONCE = 6

/**
 * Opens an image on a web server that supports Range requests; one that sends the whole is refused. Only what is read
 * is transferred.
 *
 * Every answer must be of the image as it was when it was opened, by its size and its ETag or Last-Modified: one that
 * changes gives `read-failed`, never a mix of two. Without either header a change that keeps the size goes unseen.
 * Failed connections and busy servers are tried again for some five seconds. There is no other time limit: give a
 * signal. A user and password in the URL are sent as Basic authorization; neither they nor the query are in `name` or
 * in errors, but the query is in `identity`.
 *
 * @throws {Qcow2Error} `image-missing` (404, 410), `read-failed`
 * @throws TypeError unless it is a http: or https: URL
 *
 * @example
 * const storage = await openHttp('https://example.org/disk.qcow2', { signal: AbortSignal.timeout(10_000) })
 */
export async function openHttp(url: string | URL, options: OpenHttpOptions = {}): Promise<ImageStorage> {
  const place = new HttpPlace(url, options.headers)
  const fetched = options.fetch ?? fetch
  const ending = new Ending(options.signal)
  try {
    // One byte: its Content-Range tells the size, and that ranges are supported, which an answer to HEAD only claims.
    const first = new Uint8Array(1)
    const request = {
      place,
      // A browser's fetch wants no `this`.
      fetch: (input: RequestInfo | URL, init?: RequestInit) => fetched(input, init),
      signal: ending.signal,
    }
    const version = await retrying(ending.signal, () => fill({ ...request, offset: 0 }, first, { done: 0 }))
    return new HttpStorage(request, version)
  } finally {
    ending.done()
  }
}

/** A signal that follows the caller's while a read goes on: AbortSignal.any() is too young. */
class Ending {
  readonly #controller = new AbortController()
  readonly #given: AbortSignal | undefined
  readonly #follow = () => this.abort(this.#given?.reason)

  constructor(given: AbortSignal | undefined) {
    given?.throwIfAborted()
    this.#given = given
    given?.addEventListener('abort', this.#follow)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason)
  }

  done(): void {
    this.#given?.removeEventListener('abort', this.#follow)
  }
}

class HttpStorage implements ImageStorage {
  readonly name: string
  readonly size: number
  readonly identity: string
  /** At 20 MB/s it takes as long as a round trip of 12 ms. */
  readonly nearBytes = 256 * 1024
  readonly #request: Pick<RangeRequest, 'place' | 'fetch'>
  readonly #version: HttpVersion
  readonly #slots = new Slots(REQUESTS_AT_ONCE)
  readonly #reads = new Set<Ending>()
  #closed = false

  constructor({ place, fetch }: Pick<RangeRequest, 'place' | 'fetch'>, version: HttpVersion) {
    this.#request = { place, fetch }
    this.#version = version
    this.name = place.name
    this.size = version.size
    this.identity = `${place.href}#${version.etag ?? version.lastModified ?? ''}`
  }

  async readInto(target: Uint8Array, offset: number, { signal }: ReadOptions = {}): Promise<void> {
    if (this.#closed) throw this.#closedError()
    checkRange(this, offset, target.byteLength)
    const ending = new Ending(signal)
    if (target.byteLength === 0) return ending.done()
    this.#reads.add(ending)
    try {
      await this.#slots.take(ending.signal)
      try {
        const request = { ...this.#request, offset, known: this.#version, signal: ending.signal }
        const progress = { done: 0 }
        await retrying(ending.signal, () => fill(request, target, progress))
      } finally {
        this.#slots.give()
      }
    } finally {
      this.#reads.delete(ending)
      ending.done()
    }
  }

  /** Ends the reads that are on their way: the other side may never. */
  async close(): Promise<void> {
    this.#closed = true
    for (const ending of this.#reads) ending.abort(this.#closedError())
  }

  #closedError(): Error {
    return new Error(`${this.name} is closed`)
  }
}

/**
 * One attempt to fill the target. After one that failed midway the next asks for the rest: it is the same image's, or
 * an error.
 */
async function fill(
  request: Omit<RangeRequest, 'length'>,
  target: Uint8Array,
  progress: { done: number },
): Promise<HttpVersion> {
  const { place } = request
  const offset = request.offset + progress.done
  const { version, body } = await requestRange({
    ...request,
    offset,
    length: target.byteLength - progress.done,
  })
  if (body === undefined) return version
  try {
    for (;;) {
      const { done, value } = await next(request, body, target, progress)
      if (done) break
      if (value.byteLength > target.byteLength - progress.done) {
        throw place.failure('read-failed', 'the answer is longer than what was asked for', { offset })
      }
      target.set(value, progress.done)
      progress.done += value.byteLength
    }
  } finally {
    body.cancel().catch(() => {})
  }
  if (progress.done < target.byteLength) {
    throw new ShortReadError(place.name, request.offset, target.byteLength, progress.done)
  }
  return version
}

async function next(
  { place, offset }: Omit<RangeRequest, 'length'>,
  body: ReadableStreamDefaultReader<Uint8Array>,
  target: Uint8Array,
  progress: { readonly done: number },
): Promise<ReadableStreamReadResult<Uint8Array>> {
  try {
    return await body.read()
  } catch (cause) {
    // All that was wanted has come; how the connection ended does not matter.
    if (progress.done === target.byteLength) return { done: true, value: undefined }
    const what = `the connection broke: ${place.reason(cause)}`
    throw new PassingFailure(place.failure('read-failed', what, { offset: offset + progress.done }, cause))
  }
}
