import type { RequestListener } from 'node:http'
import { programPath } from '@tidemark/testkit'
import { type Browser, chromium, type Page } from 'playwright-core'
import { rangeOf, rangeServer, serve, type TestServer } from '../http-server.js'
import type { Bundle } from './bundle.js'

/** The strictest policy under which all of the package works: zstddec fetches its own module as a data: URL. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  'connect-src http://127.0.0.1:* data:',
  "worker-src 'self'",
].join('; ')

const PAGE = '<!doctype html><meta charset="utf-8"><input type="file" multiple>'

export interface Site {
  readonly origin: string
  /** Scripts that were asked for since the last call, sorted. */
  scripts(): string[]
  /** Bytes of images that were sent, and in how many answers, since the last call. */
  images(): { bytes: number; answers: number }
  close(): Promise<void>
}

export interface SiteParts {
  readonly chunks: Bundle
  /** Served with ranges below `/images/`, without them below `/whole/`. */
  readonly images?: (name: string) => Uint8Array | undefined
  /** What is in the page before its scripts. */
  readonly html?: string
}

/** A web site on this machine: `/NAME` is a page with the script NAME.js and an input for files. */
export async function openSite({ chunks, images, html = PAGE }: SiteParts): Promise<Site> {
  let scripts: string[] = []
  let sent = { bytes: 0, answers: 0 }
  const answer: RequestListener = (request, response) => {
    const path = new URL(request.url ?? '/', 'http://127.0.0.1').pathname
    const [, folder, name] = /^\/(images|whole)\/(.+)$/.exec(path) ?? []
    const image = name === undefined ? undefined : images?.(name)
    const chunk = chunks.get(path)
    if (image !== undefined && folder === 'images') {
      rangeServer(image)(request, response)
      const { first, last } = rangeOf(request)
      sent = { bytes: sent.bytes + last - first + 1, answers: sent.answers + 1 }
    } else if (image !== undefined) response.end(image)
    else if (chunk !== undefined) {
      scripts.push(path)
      response.setHeader('Content-Type', 'text/javascript').end(chunk.code)
    } else if (chunks.has(`${path}.js`)) {
      response.setHeader('Content-Type', 'text/html').setHeader('Content-Security-Policy', POLICY)
      response.end(`${html}<script type="module" src="${path}.js"></script>`)
    } else response.writeHead(path === '/favicon.ico' ? 204 : 404).end()
  }
  const server: TestServer = await serve(answer)
  return {
    origin: new URL(server.url).origin,
    scripts() {
      const since = scripts.sort()
      scripts = []
      return since
    },
    images() {
      const since = sent
      sent = { bytes: 0, answers: 0 }
      return since
    },
    close: () => server.close(),
  }
}

/** Debian's Chromium, without a window. */
export async function openBrowser(): Promise<Browser> {
  const executablePath = programPath('chromium')
  if (executablePath === undefined) throw new Error('chromium is not installed')
  // Its sandbox does not start as root, nor in many containers; the only pages here are our own.
  return await chromium.launch({ executablePath, chromiumSandbox: false })
}

/**
 * A fresh page of a site.
 *
 * @param problems takes what goes wrong in it unseen: errors nobody caught, broken policies
 */
export async function openPage(browser: Browser, url: string, problems: string[] = []): Promise<Page> {
  const page = await browser.newPage()
  page.on('pageerror', error => problems.push(error.message))
  page.on('console', message => {
    if (message.type() === 'error') problems.push(message.text())
  })
  await page.goto(url)
  return page
}
