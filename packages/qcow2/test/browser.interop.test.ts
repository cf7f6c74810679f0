// The built package in a real browser: what it says of images that QEMU made, beside what QEMU says.
import { appendFileSync, copyFileSync, readFileSync, statSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { basename } from 'node:path'
import { needs, qemuImg, qemuIo, tempDir } from '@tidemark/testkit'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { bundle } from './browser/bundle.js'
import { type Answers, type MadeImage, makeImage, makers } from './browser/images.js'
import type { PageJobs } from './browser/page.js'
import type { Place } from './browser/reading.js'
import { openBrowser, openPage, openSite, type Site } from './browser/site.js'
import { rangeServer, serve } from './http-server.js'

const peers = needs('chromium', 'qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
const GIB = 2 ** 30
const dir = tempDir()
const titles = Object.keys(makers)
const made: (MadeImage & Answers)[] = []
let browser: Browser
let site: Site
let page: Page
const problems: string[] = []

const imageOf = (title: string) => made[titles.indexOf(title)]!

/** Does a job in the page. */
async function ask<K extends keyof PageJobs>(
  job: K,
  ...args: Parameters<PageJobs[K]>
): Promise<Awaited<ReturnType<PageJobs[K]>>> {
  return page.evaluate(
    ([name, given]) => {
      const { jobs } = globalThis as unknown as { jobs: Record<string, (...args: unknown[]) => unknown> }
      return jobs[name]!(...given)
    },
    [job, args] as const,
  ) as Promise<Awaited<ReturnType<PageJobs[K]>>>
}

/** Chooses an image's files, as somebody does who has the dialogue before him. */
async function choose({ files, passphrase }: MadeImage): Promise<Place> {
  await page.locator('input').setInputFiles([...files])
  return { name: basename(files[0]!), ...(passphrase === undefined ? {} : { passphrase }) }
}

/** The same below `/images/`, where each image has a folder. */
function served(title: string): Place & { url: string } {
  const { files, passphrase } = imageOf(title)
  const url = `${site.origin}/images/${titles.indexOf(title)}/`
  return { name: basename(files[0]!), url, ...(passphrase === undefined ? {} : { passphrase }) }
}

beforeAll(async () => {
  if (peers.skip) return
  for (const title of titles) made.push(await makeImage(title, dir.file(`${made.length}`)))
  const files = new Set(made.flatMap(image => image.files))
  const images = (name: string) => (files.has(dir.file(name)) ? readFileSync(dir.file(name)) : undefined)
  site = await openSite({ chunks: await bundle(['page', 'worker']), images })
  browser = await openBrowser()
  page = await openPage(browser, `${site.origin}/page`, problems)
})
afterEach(() => expect(problems.splice(0)).toEqual([]))
afterAll(async () => {
  await browser?.close()
  await site?.close()
  dir.remove()
})

describe.skipIf(peers.skip)(`in a browser${peers.label}`, () => {
  describe.each(titles)('%s', title => {
    it('as files that were chosen', async () => {
      const { info, dirty, disk, bitmap } = imageOf(title)
      const place = await choose(imageOf(title))
      expect(await ask('info', place)).toEqual(info)
      if (bitmap !== undefined) expect(await ask('dirty', place, bitmap)).toEqual(dirty)
      expect(await ask('disk', place)).toEqual(disk)
    })

    it('over HTTP, of which metadata need little', async () => {
      const { info, dirty, disk, bitmap } = imageOf(title)
      site.images()
      expect(await ask('info', served(title))).toEqual(info)
      if (bitmap !== undefined) expect(await ask('dirty', served(title), bitmap)).toEqual(dirty)
      const { bytes, answers } = site.images()
      expect(bytes).toBeGreaterThan(info.clusterSize)
      expect(bytes).toBeLessThan(3 * info.clusterSize)
      expect(answers).toBeLessThanOrEqual(10)
      expect(await ask('disk', served(title))).toEqual(disk)
    })

    it('in a worker', async () => {
      const place = await choose(imageOf(title))
      expect(await ask('diskInWorker', place)).toEqual(imageOf(title).disk)
    })
  })

  it('a file of more than 4 GiB', async () => {
    const file = dir.file('large.qcow2')
    await qemuImg.create(file, '5G', { preallocation: 'metadata' })
    const at = 5 * GIB - 3 * 65536
    await qemuIo(file, [`write -P 90 ${at} 1k`])
    expect(statSync(file).size).toBeGreaterThan(5 * GIB)
    const place = await choose({ files: [file] })
    expect(await ask('part', place, at + 1022, 4)).toEqual([90, 90, 0, 0])
  })

  it('the images have what the maps can tell', () => {
    const told = made.flatMap(({ disk }) => disk.extents)
    expect(new Set(told.map(({ zero }) => zero))).toEqual(new Set([true, false]))
    expect(new Set(told.map(({ depth }) => depth))).toEqual(new Set([0, 1, 2]))
    for (const { dirty } of made) if (dirty !== undefined) expect(dirty.length).toBeGreaterThan(2)
  })
})

describe.skipIf(peers.skip)(`what is wrong has a code, in a browser${peers.label}`, () => {
  const failure = (code: string, message: RegExp) => ({ code, message: expect.stringMatching(message) })

  it.each([
    [0, 'not-qcow2', /./],
    [60, 'corrupt-image', /header at 0x0/],
    [100_000, 'corrupt-image', /l1_table_offset/],
    [1_000_000, 'corrupt-image', /L2 table entry .* a cluster within the file/],
  ])('a file cut to %i bytes', async (cut, code, message) => {
    const place = await choose(imageOf('plain'))
    expect(await ask('disk', { ...place, cut })).toEqual(failure(code, message))
  })

  it('a bitmap that is cut off', async () => {
    const place = await choose(imageOf('plain'))
    const cut = statSync(imageOf('plain').files[0]!).size - 70_000
    expect(await ask('dirty', { ...place, cut }, 'monday')).toEqual(failure('corrupt-image', /bitmap/))
  })

  it('no passphrase, and a wrong one', async () => {
    const { passphrase: _, ...place } = await choose(imageOf('LUKS'))
    expect(await ask('disk', place)).toEqual(failure('passphrase-missing', /encrypted/))
    expect(await ask('disk', { ...place, passphrase: 'no' })).toEqual(
      failure('passphrase-wrong', /no key slot/),
    )
  })

  it('a backing file that was not chosen', async () => {
    const image = imageOf('a backing chain of three, the last one raw')
    const place = await choose({ ...image, files: image.files.slice(0, 2) })
    expect(await ask('disk', place)).toEqual(failure('reference-denied', /^base\.raw was not chosen/))
  })

  it('a file that has changed since it was chosen', async () => {
    const file = dir.file('changing.qcow2')
    copyFileSync(imageOf('plain').files[0]!, file)
    const place = await choose({ files: [file] })
    expect(await ask('info', place)).toEqual(imageOf('plain').info)
    appendFileSync(file, 'more')
    expect(await ask('info', place)).toEqual(failure('read-failed', /^changing\.qcow2: read of/))
  })

  it('a server that knows no ranges, or no such image', async () => {
    const { name, url } = served('plain')
    expect(await ask('info', { name, url: url.replace('images', 'whole') })).toEqual(
      failure('read-failed', /must support Range requests/),
    )
    expect(await ask('info', { name: 'none', url })).toEqual(failure('image-missing', /404/))
    // The browser's own words on the console.
    expect(problems.splice(0)).toEqual([expect.stringContaining('404')])
  })

  it('an image that changes on the server', async () => {
    const bytes = readFileSync(imageOf('plain').files[0]!)
    let opened = 0
    const server = await serve((request, response) => {
      response.setHeader('Access-Control-Allow-Origin', '*')
      response.setHeader('Access-Control-Allow-Headers', 'If-Range')
      response.setHeader('Access-Control-Expose-Headers', 'Content-Range, ETag')
      if (request.method === 'OPTIONS') response.end()
      else rangeServer(bytes, opened++ < 3 ? '"1"' : '"2"')(request, response)
    })
    const place = { name: 'disk.qcow2', url: new URL('/', server.url).href }
    expect(await ask('disk', place)).toEqual(failure('read-failed', /changed while it was read/))
    await server.close()
  })
})

describe.skipIf(peers.skip)(`a server of another origin, in a browser${peers.label}`, () => {
  /** @param exposed what scripts may see of the answers */
  const across = async (exposed: string): Promise<unknown> => {
    const bytes = readFileSync(imageOf('plain').files[0]!)
    const answer: RequestListener = (request, response) => {
      response.setHeader('Access-Control-Allow-Origin', site.origin)
      response.setHeader('Access-Control-Expose-Headers', exposed)
      // A range alone is a simple request; If-Range is asked for beforehand.
      if (request.method !== 'OPTIONS') return rangeServer(bytes)(request, response)
      response.writeHead(204, { 'Access-Control-Allow-Headers': 'If-Range' }).end()
    }
    const server = await serve(answer)
    try {
      return await ask('disk', { name: 'disk.qcow2', url: new URL('/', server.url).href })
    } finally {
      await server.close()
    }
  }

  it('is read where it allows If-Range, and shows Content-Range and ETag', async () => {
    expect(await across('Content-Range, ETag')).toEqual(imageOf('plain').disk)
  })

  it('else says what is missing', async () => {
    expect(await across('ETag')).toEqual({
      code: 'read-failed',
      message: expect.stringContaining('Access-Control-Expose-Headers'),
    })
  })
})
