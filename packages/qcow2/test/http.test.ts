// Servers that do not do what they should: an error, a second attempt, never bytes of another image.
import { getEventListeners } from 'node:events'
import type { RequestListener } from 'node:http'
import { gzipSync } from 'node:zlib'
import { Random } from '@tidemark/testkit'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { readBytes } from '../src/index.js'
import { openHttp } from '../src/storage/http.js'
import { rangeOf, rangeServer, sendRange, serve, type TestServer } from './http-server.js'

const SIZE = 300_000
const content = new Random('http').bytes(SIZE)
const good = rangeServer(content)

const servers: TestServer[] = []
afterEach(async () => {
  vi.restoreAllMocks()
  for (const server of servers.splice(0)) await server.close()
})

async function serving(answer: RequestListener): Promise<TestServer> {
  const server = await serve(answer)
  servers.push(server)
  return server
}

/** Good for the one byte of the opening; from then on `answer`. */
async function turning(answer: RequestListener): Promise<TestServer> {
  let opened = false
  return await serving((request, response) => {
    if (opened) return answer(request, response)
    opened = true
    good(request, response)
  })
}

/** Makes the pauses between attempts short, and tells how long they would have been. */
function hurry(): number[] {
  const pauses: number[] = []
  const patient = globalThis.setTimeout
  vi.spyOn(globalThis, 'setTimeout').mockImplementation(((...[work, pause, ...more]: unknown[]) => {
    // fetch has its own, of other lengths.
    const ours = pause === 200 || pause === 800 || pause === 3200
    if (ours) pauses.push(pause)
    return patient(work as () => void, ours ? 1 : (pause as number), ...more)
  }) as typeof setTimeout)
  return pauses
}

const failure = (code: string, message: RegExp) => ({
  name: code === 'short-read' ? 'ShortReadError' : 'Qcow2Error',
  code,
  message: expect.stringMatching(message),
})

describe('a good server', () => {
  it('is asked for what is read, uncompressed, and only of the image that was opened', async () => {
    const server = await serving(good)
    const storage = await openHttp(server.url, {
      headers: { 'X-Token': 'abc', 'If-Range': '"mine"', 'Accept-Encoding': 'br' },
    })
    expect(storage).toMatchObject({ name: server.url, size: SIZE, nearBytes: 256 * 1024 })
    expect(storage.storedRun).toBeUndefined()
    expect(await readBytes(storage, 1000, 500)).toEqual(content.subarray(1000, 1500))
    await readBytes(storage, 0, 0)
    const asked = server.requests.map(({ method, headers }) => [
      method,
      headers.range,
      headers['if-range'],
      headers['accept-encoding'],
      headers['x-token'],
    ])
    expect(asked).toEqual([
      ['GET', 'bytes=0-0', undefined, 'identity', 'abc'],
      ['GET', 'bytes=1000-1499', '"1"', 'identity', 'abc'],
    ])
  })

  it('is not asked for more than six ranges at once', async () => {
    const server = await serving((request, response) => setTimeout(() => good(request, response), 20))
    const storage = await openHttp(server.url)
    const reads = Array.from({ length: 20 }, (_, at) => readBytes(storage, at * 100, 100))
    for (const [at, read] of (await Promise.all(reads)).entries()) {
      expect(read).toEqual(content.subarray(at * 100, at * 100 + 100))
    }
    expect(server.atOnce()).toBe(6)
  })

  it('may have an empty image', async () => {
    const server = await serving(rangeServer(new Uint8Array(0)))
    const storage = await openHttp(server.url)
    expect(storage.size).toBe(0)
    await storage.readInto(new Uint8Array(0), 0)
    await expect(readBytes(storage, 0, 1)).rejects.toThrow(RangeError)
  })

  it('may redirect; the image is still where it was asked for', async () => {
    const server = await serving((request, response) => {
      if (request.url === '/disk.qcow2') response.writeHead(302, { Location: '/elsewhere' }).end()
      else good(request, response)
    })
    const storage = await openHttp(server.url)
    expect(await readBytes(storage, 5, 5)).toEqual(content.subarray(5, 10))
    expect(storage.name).toBe(server.url)
    expect(storage.identity).toBe(`${server.url}#"1"`)
  })

  it('tells images apart by where they are and which they are', async () => {
    const [one, other] = [await serving(good), await serving(rangeServer(content, '"2"'))]
    const identity = async (url: string) => (await openHttp(url)).identity
    expect(await identity(one.url)).toBe(await identity(`${one.url}#part`))
    expect(await identity(one.url)).not.toBe(await identity(`${one.url}?v=2`))
    expect((await identity(one.url)).split('#')[1]).not.toBe((await identity(other.url)).split('#')[1])
  })

  it('without an ETag: Last-Modified takes its place', async () => {
    let date = 'Sun, 06 Nov 1994 08:49:37 GMT'
    const server = await serving((request, response) => {
      const { first, last } = rangeOf(request)
      sendRange(response, content, first, last, { 'Last-Modified': date })
    })
    const storage = await openHttp(server.url)
    expect(storage.identity).toBe(`${server.url}#${date}`)
    await readBytes(storage, 0, 10)
    expect(server.requests[1]!.headers['if-range']).toBe(date)
    date = 'Sun, 06 Nov 1994 08:49:38 GMT'
    await expect(readBytes(storage, 0, 10)).rejects.toMatchObject(failure('read-failed', /changed/))
  })

  it('with a weak ETag: that is no condition, but is looked at', async () => {
    let etag = 'W/"1"'
    const server = await serving((request, response) => {
      const { first, last } = rangeOf(request)
      sendRange(response, content, first, last, { ETag: etag })
    })
    const storage = await openHttp(server.url)
    await readBytes(storage, 0, 10)
    expect(server.requests[1]!.headers).not.toHaveProperty('if-range')
    etag = 'W/"2"'
    await expect(readBytes(storage, 0, 10)).rejects.toMatchObject(failure('read-failed', /changed/))
  })
})

describe('what cannot be opened', () => {
  it.each<[string, string, RegExp, RequestListener]>([
    ['404', 'image-missing', /HTTP 404/, (_, response) => response.writeHead(404).end('no')],
    ['410', 'image-missing', /HTTP 410/, (_, response) => response.writeHead(410).end()],
    ['401', 'read-failed', /permission denied/, (_, response) => response.writeHead(401).end()],
    ['403', 'read-failed', /permission denied/, (_, response) => response.writeHead(403).end()],
    ['500', 'read-failed', /HTTP 500/, (_, response) => response.writeHead(500).end()],
    ['416', 'read-failed', /HTTP 416/, (_, response) => response.writeHead(416).end()],
    ['ranges are ignored', 'read-failed', /support Range/, (_, response) => response.end(content)],
    [
      'no Content-Range',
      'read-failed',
      /no Content-Range/,
      (_, response) => response.writeHead(206).end(content.subarray(0, 1)),
    ],
    [
      'no total',
      'read-failed',
      /its size is not in Content-Range/,
      (_, response) => response.writeHead(206, { 'Content-Range': 'bytes 0-0/*' }).end('x'),
    ],
    [
      'a total that is no number of bytes',
      'read-failed',
      /its size is not in Content-Range/,
      (_, response) =>
        response.writeHead(206, { 'Content-Range': 'bytes 0-0/99999999999999999999' }).end('x'),
    ],
    [
      'several ranges',
      'read-failed',
      /no Content-Range/,
      (_, response) =>
        response.writeHead(206, { 'Content-Type': 'multipart/byteranges; boundary=x' }).end('--x--'),
    ],
    [
      'compressed',
      'read-failed',
      /Content-Encoding: "gzip"/,
      (_, response) =>
        response
          .writeHead(206, { 'Content-Range': `bytes 0-0/${SIZE}`, 'Content-Encoding': 'gzip' })
          .end(gzipSync(content.subarray(0, 1))),
    ],
    [
      'redirects without end',
      'read-failed',
      /redirect/,
      (_, response) => response.writeHead(307, { Location: '/disk.qcow2' }).end(),
    ],
  ])('%s', async (_, code, message, answer) => {
    hurry()
    const server = await serving(answer)
    await expect(openHttp(server.url)).rejects.toMatchObject(failure(code, message))
  })

  it('the whole of an endless image is not read', async () => {
    let written = 0
    let ended: () => void
    const gone = new Promise<void>(resolve => (ended = resolve))
    const server = await serving((_, response) => {
      response.on('close', () => ended())
      response.writeHead(200)
      const more = () => {
        while (!response.destroyed && response.write(content)) written += SIZE
        if (!response.destroyed) response.once('drain', more)
      }
      more()
    })
    await expect(openHttp(server.url)).rejects.toMatchObject(failure('read-failed', /support Range/))
    await gone
    // The sockets' buffers at most.
    expect(written).toBeLessThan(50 * 2 ** 20)
  })

  it('nobody there, after a few attempts', async () => {
    const server = await serve(good)
    await server.close()
    const pauses = hurry()
    await expect(openHttp(server.url)).rejects.toMatchObject(failure('read-failed', /ECONNREFUSED/))
    expect(pauses).toEqual([200, 800, 3200])
  })

  it.each(['not a url', 'file:///etc/passwd', '', '/disk.qcow2'])('%j: TypeError', async url => {
    await expect(openHttp(url)).rejects.toThrow(TypeError)
  })
})

describe('what goes wrong later', () => {
  const cases: [string, string, RegExp, RequestListener][] = [
    ['it is gone', 'image-missing', /HTTP 404/, (_, response) => response.writeHead(404).end()],
    ['another ETag', 'read-failed', /changed/, rangeServer(content, '"2"')],
    [
      'another ETag, If-Range ignored',
      'read-failed',
      /changed/,
      (_, response) => sendRange(response, content, 100, 199, { ETag: '"2"' }),
    ],
    [
      'another size, the same ETag',
      'read-failed',
      /changed/,
      rangeServer(content.subarray(0, SIZE - 1), '"1"'),
    ],
    ['shorter than the range', 'read-failed', /shorter/, rangeServer(content.subarray(0, 50), '"1"')],
    [
      'another range',
      'read-failed',
      /100 bytes at 100 were asked for, the answer has "bytes 101-200\/300000"/,
      (_, response) => sendRange(response, content, 101, 200),
    ],
    [
      'less than the range',
      'read-failed',
      /the answer has "bytes 100-198\/300000"/,
      (_, response) => sendRange(response, content, 100, 198),
    ],
    ['no Content-Range', 'read-failed', /no Content-Range/, (_, response) => response.writeHead(206).end()],
    [
      'a short body',
      'short-read',
      /100 bytes wanted at 0x64, only 60 are there/,
      (_, response) =>
        response.writeHead(206, { 'Content-Range': `bytes 100-199/${SIZE}` }).end(content.subarray(100, 160)),
    ],
    [
      'a short body, of honest length',
      'short-read',
      /only 60/,
      (_, response) =>
        response
          .writeHead(206, { 'Content-Range': `bytes 100-199/${SIZE}`, 'Content-Length': '60' })
          .end(content.subarray(100, 160)),
    ],
    [
      'no body at all',
      'short-read',
      /only 0/,
      (_, response) => response.writeHead(206, { 'Content-Range': `bytes 100-199/${SIZE}` }).end(),
    ],
    [
      'a long body',
      'read-failed',
      /longer/,
      (_, response) =>
        response.writeHead(206, { 'Content-Range': `bytes 100-199/${SIZE}` }).end(content.subarray(100, 201)),
    ],
    [
      'compressed',
      'read-failed',
      /Content-Encoding/,
      (_, response) => sendRange(response, content, 100, 199, { 'Content-Encoding': 'br' }),
    ],
  ]
  it.each(cases)('%s', async (_, code, message, answer) => {
    const server = await turning(answer)
    const storage = await openHttp(server.url)
    await expect(readBytes(storage, 100, 100)).rejects.toMatchObject(failure(code, message))
    // What will not pass is not tried again.
    expect(server.requests.length).toBe(2)
  })

  it('an endless body is not read to its end, which never comes', async () => {
    let gone = () => {}
    const closed = new Promise<void>(resolve => (gone = resolve))
    const server = await turning((_, response) => {
      response.on('close', gone)
      response.writeHead(206, { 'Content-Range': `bytes 100-199/${SIZE}` })
      const more = () => {
        while (!response.destroyed && response.write(content)) {}
        if (!response.destroyed) response.once('drain', more)
      }
      more()
    })
    const storage = await openHttp(server.url)
    await expect(readBytes(storage, 100, 100)).rejects.toMatchObject(failure('read-failed', /longer/))
    await closed
  })
})

describe('what may pass', () => {
  it('a connection that breaks: the rest is asked for', async () => {
    let broken = 0
    const server = await turning((request, response) => {
      const { first, last } = rangeOf(request)
      if (broken++ === 2) return sendRange(response, content, first, last)
      response.writeHead(206, {
        'Content-Range': `bytes ${first}-${last}/${SIZE}`,
        'Content-Length': `${last - first + 1}`,
      })
      response.write(content.subarray(first, first + 1000), () => response.destroy())
    })
    const storage = await openHttp(server.url)
    expect(Buffer.compare(await readBytes(storage, 7, SIZE - 7), content.subarray(7))).toBe(0)
    const firsts = server.requests.slice(1).map(request => rangeOf(request).first)
    expect(firsts).toEqual([7, 1007, 2007])
    expect(server.requests[3]!.headers['if-range']).toBe('"1"')
  })

  it('a connection that breaks, and then another image: an error', async () => {
    let etag = '"1"'
    const server = await turning((request, response) => {
      if (etag === '"2"') return rangeServer(content, etag)(request, response)
      etag = '"2"'
      response.writeHead(206, { 'Content-Range': `bytes 0-9999/${SIZE}`, 'Content-Length': '10000' })
      response.write(content.subarray(0, 1000), () => response.destroy())
    })
    const storage = await openHttp(server.url)
    await expect(readBytes(storage, 0, 10_000)).rejects.toMatchObject(failure('read-failed', /changed/))
  })

  it('a connection that breaks behind the last byte: all is there', async () => {
    const server = await serving(good)
    let asked = 0
    const storage = await openHttp(server.url, {
      fetch: async (input, init) => {
        const { body, headers, status } = await fetch(input, init)
        if (asked++ === 0) return new Response(body, { headers, status })
        const reader = body!.getReader()
        const broken = new ReadableStream({
          async pull(controller) {
            const { done, value } = await reader.read()
            if (done) controller.error(new Error('reset'))
            else controller.enqueue(value)
          },
        })
        return new Response(broken, { headers, status })
      },
    })
    expect(await readBytes(storage, 100, 100)).toEqual(content.subarray(100, 200))
    expect(asked).toBe(2)
  })

  it('a connection that always breaks: a few attempts, then an error', async () => {
    const server = await turning((_, response) => response.destroy())
    const storage = await openHttp(server.url)
    hurry()
    await expect(readBytes(storage, 0, 10)).rejects.toMatchObject({
      code: 'read-failed',
      details: { offset: 0 },
    })
    expect(server.requests.length).toBe(1 + 4)
  })

  it.each([429, 502, 503, 504])('HTTP %d, then all is well', async status => {
    let busy = 2
    const server = await serving((request, response) => {
      if (busy-- > 0) response.writeHead(status, { 'Retry-After': '0' }).end('later')
      else good(request, response)
    })
    const storage = await openHttp(server.url)
    expect(await readBytes(storage, 10, 10)).toEqual(content.subarray(10, 20))
    expect(server.requests.length).toBe(2 + 2)
  })

  it('busy for ever: a few attempts, then an error', async () => {
    const server = await serving((_, response) => response.writeHead(503, { 'Retry-After': '0' }).end())
    await expect(openHttp(server.url)).rejects.toMatchObject(failure('read-failed', /busy \(HTTP 503\)/))
    expect(server.requests.length).toBe(4)
  })

  it.each(['3600', new Date(Date.now() + 3_600_000).toUTCString()])(
    'busy for an hour (Retry-After: %s): not waited for',
    async after => {
      const server = await serving((_, response) => response.writeHead(503, { 'Retry-After': after }).end())
      await expect(openHttp(server.url)).rejects.toMatchObject(failure('read-failed', /busy/))
      expect(server.requests.length).toBe(1)
    },
  )
})

describe('a signal', () => {
  const reason = new Error('enough')

  it('ends a read from a server that sends a byte now and then', async () => {
    let gone = () => {}
    const closed = new Promise<void>(resolve => (gone = resolve))
    const server = await turning((_, response) => {
      response.writeHead(206, { 'Content-Range': `bytes 0-${SIZE - 1}/${SIZE}` })
      const timer = setInterval(() => response.write('x'), 5)
      response.on('close', () => {
        clearInterval(timer)
        gone()
      })
    })
    const storage = await openHttp(server.url)
    const controller = new AbortController()
    setTimeout(() => controller.abort(reason), 50)
    await expect(readBytes(storage, 0, SIZE, { signal: controller.signal })).rejects.toBe(reason)
    // Nothing is left on the line.
    await closed
  })

  it('ends the opening, and a pause before another attempt', async () => {
    const silent = await serving(() => {})
    const busy = await serving((_, response) => response.writeHead(503, { 'Retry-After': '9' }).end())
    for (const { url } of [silent, busy]) {
      const controller = new AbortController()
      setTimeout(() => controller.abort(reason), 50)
      const start = performance.now()
      await expect(openHttp(url, { signal: controller.signal })).rejects.toBe(reason)
      expect(performance.now() - start).toBeLessThan(5000)
    }
    expect(busy.requests.length).toBe(1)
    await expect(openHttp(silent.url, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(silent.requests.length).toBe(1)
    const { signal } = new AbortController()
    await openHttp((await serving(good)).url, { signal })
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  it('ends a read that waits for its turn, and no other', async () => {
    const waiting: (() => void)[] = []
    const server = await turning((request, response) => void waiting.push(() => good(request, response)))
    const storage = await openHttp(server.url)
    const first = Array.from({ length: 6 }, (_, at) => readBytes(storage, at, 1))
    const controller = new AbortController()
    const seventh = readBytes(storage, 6, 1, { signal: controller.signal })
    const eighth = readBytes(storage, 7, 1)
    controller.abort(reason)
    await expect(seventh).rejects.toBe(reason)
    while (waiting.length < 6) await new Promise(resolve => setTimeout(resolve, 5))
    const timer = setInterval(() => waiting.splice(0).forEach(go => void go()), 5)
    expect(await Promise.all(first)).toEqual(
      Array.from({ length: 6 }, (_, at) => content.subarray(at, at + 1)),
    )
    expect(await eighth).toEqual(content.subarray(7, 8))
    clearInterval(timer)
    expect(server.requests.map(request => request.headers.range)).not.toContain('bytes=6-6')
  })

  it('is not needed to close: reads on their way end', async () => {
    const server = await turning(() => {})
    const storage = await openHttp(server.url)
    const reads = Array.from({ length: 8 }, (_, at) =>
      readBytes(storage, at, 1).catch((error: Error) => error),
    )
    await storage.close()
    for (const read of reads) expect(await read).toMatchObject({ message: `${server.url} is closed` })
  })
})

describe('secrets', () => {
  const secretive = (url: string) => url.replace('http://', 'http://eve:p%C3%A4ss@').concat('?sig=k3y#x')

  it('a user and password are sent, and neither they nor the query are told', async () => {
    const server = await serving(good)
    const storage = await openHttp(secretive(server.url))
    expect(storage.name).toBe(`${server.url}?…`)
    expect(server.requests[0]!.url).toBe('/disk.qcow2?sig=k3y')
    const sent = server.requests[0]!.headers.authorization!
    expect(Buffer.from(sent.split(' ')[1]!, 'base64').toString()).toBe('eve:päss')
    expect(storage.identity).not.toMatch(/eve|p.*ss@/)
  })

  it("the caller's own Authorization is preferred", async () => {
    const server = await serving(good)
    await openHttp(secretive(server.url), { headers: { authorization: 'Bearer b' } })
    expect(server.requests[0]!.headers.authorization).toBe('Bearer b')
  })

  const told = (error: unknown): string => {
    let text = ''
    for (let each = error; each !== undefined; each = (each as Error).cause) {
      const { message, stack, ...own } = each as Error
      text += `${message}${stack}${JSON.stringify(own)}`
    }
    return text
  }
  it.each<[string, () => Promise<unknown>]>([
    ['missing', async () => openHttp(secretive((await serving((_, r) => r.writeHead(404).end())).url))],
    ['no ranges', async () => openHttp(secretive((await serving((_, r) => r.end('x'))).url))],
    ['nobody there', async () => openHttp(secretive('http://127.0.0.1:1/disk.qcow2'))],
    [
      'a fetch that tells all',
      async () =>
        openHttp(secretive('http://127.0.0.1:1/disk.qcow2'), {
          fetch: async input => {
            throw new Error(`request to ${input} failed`)
          },
        }),
    ],
    ['no URL', async () => openHttp('http://eve:päss@?sig=k3y')],
    ['another scheme', async () => openHttp('ftp://eve:päss@host/?sig=k3y')],
    ['no header', async () => openHttp('http://127.0.0.1:1/', { headers: { Authorization: 'k3y\nx' } })],
  ])('%s', async (_, open) => {
    hurry()
    const error = await open().then(
      () => expect.unreachable(),
      error => error,
    )
    expect(told(error)).not.toMatch(/eve|päss|p%C3%A4ss|k3y/)
  })
})
