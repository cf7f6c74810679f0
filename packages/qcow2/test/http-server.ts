import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface TestServer {
  readonly url: string
  /** All that came, in order. */
  readonly requests: IncomingMessage[]
  /** How many were worked on at once, at most. */
  readonly atOnce: () => number
  close(): Promise<void>
}

/** A web server on this machine alone, for one test. */
export async function serve(answer: RequestListener): Promise<TestServer> {
  const requests: IncomingMessage[] = []
  let open = 0
  let most = 0
  const server = createServer((request, response) => {
    requests.push(request)
    most = Math.max(most, ++open)
    response.on('close', () => open--)
    answer(request, response)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/disk.qcow2`,
    requests,
    atOnce: () => most,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** What a request's Range asks for; these tests know of one form only. */
export function rangeOf(request: IncomingMessage): { first: number; last: number } {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
  if (last === undefined) throw new Error(`no such range: ${request.headers.range}`)
  return { first: Number(first), last: Number(last) }
}

/** A server as it should be (RFC 9110, 13.1.5 and 14): with a strong ETag, and If-Range. */
export function rangeServer(content: Uint8Array, etag = '"1"'): RequestListener {
  return (request, response) => {
    const { first, last } = rangeOf(request)
    const condition = request.headers['if-range']
    response.setHeader('ETag', etag)
    if (condition !== undefined && condition !== etag) {
      response.end(content)
    } else if (first >= content.byteLength) {
      response.writeHead(416, { 'Content-Range': `bytes */${content.byteLength}` }).end()
    } else {
      sendRange(response, content, first, Math.min(last, content.byteLength - 1))
    }
  }
}

export function sendRange(
  response: ServerResponse,
  content: Uint8Array,
  first: number,
  last: number,
  headers: Record<string, string> = {},
): void {
  response
    .writeHead(206, {
      'Content-Range': `bytes ${first}-${last}/${content.byteLength}`,
      'Content-Length': `${last - first + 1}`,
      ...headers,
    })
    .end(content.subarray(first, last + 1))
}
