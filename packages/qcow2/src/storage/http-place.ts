import { Qcow2Error, type Qcow2ErrorCode } from '../errors.js'

/**
 * Where an image is on the network, and how it is called in messages: by its URL without what may be secret, which
 * is the user, the password and the query (signed URLs have their key there).
 */
export class HttpPlace {
  readonly name: string
  /** What requests go to, with the query, without user and password: fetch refuses these in a URL. */
  readonly href: string
  readonly headers: Headers
  readonly #secrets: string[]

  /** @throws TypeError for what is no http: or https: URL, or no headers */
  constructor(given: string | URL, headers: HeadersInit | undefined) {
    const url = parseUrl(given)
    this.headers = parseHeaders(headers)
    if (url.username !== '' || url.password !== '') {
      if (!this.headers.has('Authorization')) this.headers.set('Authorization', basic(url))
      url.username = ''
      url.password = ''
    }
    url.hash = ''
    this.href = url.href
    this.#secrets = url.search.length > 1 ? [url.href, url.search] : []
    url.search = ''
    this.name = this.#secrets.length > 0 ? `${url.href}?…` : url.href
  }

  /** A failure's error; `cause` is left out where it repeats a secret, as some fetch functions do. */
  failure(
    code: Qcow2ErrorCode,
    what: string,
    details: Readonly<Record<string, unknown>> = {},
    cause?: unknown,
  ): Qcow2Error {
    const options = cause === undefined || this.#tells(cause) ? undefined : { cause }
    return new Qcow2Error(code, `${this.name}: ${what}`, { image: this.name, ...details }, options)
  }

  /** fetch's own message is "fetch failed", the cause's says why. */
  reason(error: unknown): string {
    let last = error
    for (let depth = 0; depth < 5 && last instanceof Error && last.cause !== undefined; depth++) {
      last = last.cause
    }
    const text = last instanceof Error ? last.message || last.name : String(last)
    return this.#tells(text) ? 'the connection failed' : text
  }

  #tells(error: unknown): boolean {
    let text = ''
    for (let depth = 0; depth < 5 && error !== undefined; depth++) {
      text += error instanceof Error ? `${error.message}\n${error.stack}\n` : String(error)
      error = error instanceof Error ? error.cause : undefined
    }
    return this.#secrets.some(secret => text.includes(secret))
  }
}

function parseUrl(given: string | URL): URL {
  let url: URL
  try {
    url = new URL(given)
  } catch {
    // The platform's error quotes all of it.
    throw new TypeError('not a URL')
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new TypeError(`${url.protocol} is not http: or https:`)
  }
  return url
}

function parseHeaders(headers: HeadersInit | undefined): Headers {
  try {
    return new Headers(headers)
  } catch {
    // As above: that may be a password.
    throw new TypeError('a header has a name or a value that HTTP does not allow')
  }
}

/** RFC 7617, in UTF-8. */
function basic({ username, password }: URL): string {
  const bytes = new TextEncoder().encode(`${decoded(username)}:${decoded(password)}`)
  return `Basic ${btoa(String.fromCharCode(...bytes))}`
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
