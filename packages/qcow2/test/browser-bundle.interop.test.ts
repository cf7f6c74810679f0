// What a page loads of the package, and when: from bundles as esbuild makes them, in a real browser.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { needs, tempDir, writeQcow2 } from '@tidemark/testkit'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Bundle, bundle, classicScript, gzipBytes, loadedWith, packagesIn } from './browser/bundle.js'
import { type Answers, type MadeImage, makeImage } from './browser/images.js'
import { openBrowser, openPage, openSite, type Site } from './browser/site.js'
import { dataImage } from './data-image.js'

const libraries = ['pako', 'zstddec', '@noble/ciphers']

/** Libraries in some chunks. */
const librariesIn = (chunks: Bundle, names: Iterable<string>) =>
  [...names].flatMap(name => packagesIn(chunks.get(name)!)).filter(each => libraries.includes(each))

const metadata = await bundle(['metadata-page'])
const reading = await bundle(['page', 'worker'])

describe('a bundle', () => {
  it('has nothing of Node', () => {
    for (const [name, chunk] of reading) {
      // Each specifier that is left names another chunk.
      for (const other of [...chunk.imports, ...chunk.lazy]) expect([...reading.keys()]).toContain(other)
      const ours = /^(?:dist(?:\/(?!node)\w+)?|bitmap-wasm\/dist|[\w-]+\.ts)$/
      const foreign = packagesIn(chunk).filter(each => !ours.test(each))
      expect(libraries, name).toEqual(expect.arrayContaining(foreign))
      expect(chunk.code.match(/['"]node:|\brequire\(|\bprocess\.|__dirname/), name).toBeNull()
    }
  })

  it('loads no library before it is needed, and each by itself', () => {
    for (const [chunks, name] of [
      [metadata, '/metadata-page.js'],
      [reading, '/page.js'],
      [reading, '/worker.js'],
    ] as const) {
      expect(librariesIn(chunks, loadedWith(chunks, name))).toEqual([])
    }
    for (const library of libraries) {
      const holders = [...reading.keys()].filter(name => librariesIn(reading, [name]).includes(library))
      expect(holders).toHaveLength(1)
      expect(librariesIn(reading, loadedWith(reading, holders[0]!))).toEqual([library])
    }
  })

  it('is small', () => {
    const kib = (chunks: Bundle, names: Iterable<string>) => gzipBytes(chunks, names) / 1024
    expect(kib(metadata, loadedWith(metadata, '/metadata-page.js'))).toBeLessThan(30)
    expect(kib(reading, loadedWith(reading, '/page.js'))).toBeLessThan(43)
    // With every library: LUKS over zlib and zstd.
    expect(kib(reading, reading.keys())).toBeLessThan(96)
  })
})

const peers = needs('chromium', 'qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
const dir = tempDir()
let browser: Browser
let page: Page | undefined
const sites: Site[] = []
const problems: string[] = []

const siteOf = async (chunks: Bundle, html?: string): Promise<Site> => {
  const site = await openSite({ chunks, ...(html === undefined ? {} : { html }) })
  sites.push(site)
  return site
}

beforeAll(async () => {
  if (!peers.skip) browser = await openBrowser()
})
afterEach(async () => {
  await page?.close()
  for (const site of sites.splice(0)) await site.close()
  expect(problems.splice(0)).toEqual([])
})
afterAll(async () => {
  await browser?.close()
  dir.remove()
})

/** @param job an expression for the page */
async function ask(job: string): Promise<unknown> {
  return page!.evaluate(job)
}

async function choose({ files }: Pick<MadeImage, 'files'>): Promise<void> {
  await page!.locator('input').setInputFiles([...files])
}

describe.skipIf(peers.skip)(`a page${peers.label}`, () => {
  it('of metadata loads no library', async () => {
    const image: MadeImage & Answers = await makeImage('compressed by zstd', dir.file('metadata'))
    const site = await siteOf(metadata)
    page = await openPage(browser, `${site.origin}/metadata-page`, problems)
    await choose(image)
    expect(await ask('jobs.info()')).toEqual(image.info)
    expect(await ask("jobs.dirty('monday')")).toEqual(image.dirty)
    expect(site.scripts()).toEqual([...loadedWith(metadata, '/metadata-page.js')].sort())
  })

  it.each([
    ['plain', []],
    ['compressed by zlib', ['pako']],
    ['compressed by zstd', ['zstddec']],
    ['LUKS', ['@noble/ciphers']],
  ])('that reads loads the libraries that an image needs: %s', async (title, needed) => {
    const image = await makeImage(title, dir.file(title))
    const site = await siteOf(reading)
    page = await openPage(browser, `${site.origin}/page`, problems)
    await choose(image)
    const place = JSON.stringify({ name: 'disk.qcow2', passphrase: image.passphrase })
    expect(await ask(`jobs.info(${place})`)).toEqual(image.info)
    expect(site.scripts()).toEqual([...loadedWith(reading, '/page.js')].sort())
    expect(await ask(`jobs.disk(${place})`)).toEqual(image.disk)
    expect(librariesIn(reading, site.scripts())).toEqual(needed)
  })
})

describe.skipIf(peers.skip)(
  `a page without WebCrypto, and with a script that is no module${peers.label}`,
  () => {
    beforeEach(async () => {
      page = await browser.newPage()
      await page.setContent('<input type="file">')
      await page.addScriptTag({ content: await classicScript('page') })
      expect(await ask('[isSecureContext, typeof crypto.subtle]')).toEqual([false, 'undefined'])
    })

    it('reads', async () => {
      const image = await makeImage('compressed by zstd', dir.file('classic'))
      await choose(image)
      expect(await ask("jobs.info({ name: 'disk.qcow2' })")).toEqual(image.info)
      expect(await ask("jobs.dirty({ name: 'disk.qcow2' }, 'monday')")).toEqual(image.dirty)
      // What was written last.
      const written = [...new Uint8Array(512).fill(9)]
      expect(await ask(`jobs.part({ name: 'disk.qcow2' }, ${3 * 2 ** 20}, 512)`)).toEqual(written)
    })

    it('says why it cannot read LUKS', async () => {
      const image = await makeImage('LUKS', dir.file('classic LUKS'))
      await choose(image)
      const place = JSON.stringify({ name: 'disk.qcow2', passphrase: image.passphrase })
      expect(await ask(`jobs.info(${place})`)).toEqual(image.info)
      expect(await ask(`jobs.part(${place}, 0, 512)`)).toMatchObject({
        message: expect.stringMatching(/WebCrypto/),
      })
    })
  },
)

const readme = readFileSync(fileURLToPath(new URL('../README.md', import.meta.url)), 'utf8')
const [, html, script] =
  /```html\n([\s\S]*?)<script type="module">\n([\s\S]*?)<\/script>\n```/.exec(readme) ?? []

describe.skipIf(peers.skip)(`README${peers.label}`, () => {
  it('has an example that runs in a browser as it stands', async () => {
    // What the README says the examples' images are.
    const greeting = new Uint8Array(65536)
    greeting.set(new TextEncoder().encode('Hello from the guest'))
    const base = dataImage({ l2: [greeting], bitmaps: [{ name: 'monday', dirty: [0] }] })
    writeFileSync(dir.file('base.qcow2'), base.bytes)
    writeQcow2(dir.file('disk.qcow2'), {
      backingFile: 'base.qcow2',
      backingFormat: 'qcow2',
      bitmaps: [
        { name: 'monday', dirty: [1, 2] },
        { name: 'tuesday', granularityBits: 9, dirty: [300] },
      ],
    })
    const site = await siteOf(await bundle({ text: script! }), html!)
    page = await openPage(browser, `${site.origin}/stdin`, problems)
    await choose({ files: ['base.qcow2', 'disk.qcow2'].map(dir.file) })
    // A comment at a line's end is what the line tells.
    const expected = [...script!.matchAll(/tell\(.*\) \/\/ (.*)$/gm)].map(([, text]) => `${text}\n`)
    expect(expected).toHaveLength(3)
    await expect.poll(() => page!.locator('pre').textContent()).toBe(expected.join(''))
  })
})
