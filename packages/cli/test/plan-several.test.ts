import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { hostImages, top, webshop } from './webshop.js'

interface Several {
  readonly plans: readonly { readonly domain: string; readonly disks: readonly { readonly mode: string }[] }[]
  readonly errors: readonly { readonly domain: string; readonly code: string; readonly message: string }[]
}

/** The example under several names, some of them broken. */
describe('plans of several domains', () => {
  let dir: TempDir
  beforeAll(() => {
    dir = tempDir()
    cpSync(join(top, webshop), dir.path, { recursive: true })
    const root = dir.file('libvirt/qemu')
    const xml = readFileSync(join(root, 'webshop.xml'), 'utf8')
    const copy = (name: string): void => {
      writeFileSync(join(root, `${name}.xml`), xml.replace('<name>webshop<', `<name>${name}<`))
      cpSync(join(root, 'checkpoint/webshop'), join(root, 'checkpoint', name), { recursive: true })
    }
    copy('archive')
    copy('forgetful')
    rmSync(join(root, 'checkpoint/forgetful/monday.xml'))
    writeFileSync(join(root, 'broken.xml'), '<domain><name>broken')
    mkdirSync(join(root, 'folder.xml'))
    symlinkSync('/nowhere', join(root, 'link.xml'))
  })
  afterAll(() => dir.remove())

  const args = (...more: string[]): string[] => [
    ...['plan', 'backup', '--libvirt-root', dir.file('libvirt')],
    ...['--map-source', `${hostImages}=${dir.file('images')}`, ...more],
  ]
  const domains = (...names: string[]): string[] => names.flatMap(name => ['--domain', name])

  it('are in one object, in the order asked for, each as alone', async () => {
    const asked = domains('webshop', 'archive', 'webshop')
    const several = await tidemarkJson<Several>(args(...asked, '--incremental', 'monday'), { status: 10 })
    expect(several.plans.map(({ domain }) => domain)).toEqual(['webshop', 'archive'])
    expect(several.errors).toEqual([])
    const alone = await tidemarkJson(args(...domains('archive'), '--incremental', 'monday'), { status: 10 })
    expect(several.plans[1]).toEqual(alone)
  })

  it('--all: what is wrong with one is told of that one', async () => {
    const all = await tidemarkJson<Several>(args('--all', '--incremental', 'monday'), { status: 4 })
    expect(all.plans.map(({ domain }) => domain)).toEqual(['archive', 'webshop'])
    expect(all.errors.map(({ domain, code }) => [domain, code])).toEqual([
      ['broken', 'invalid-xml'],
      ['folder', 'file-unreadable'],
      ['forgetful', 'checkpoint-missing'],
      ['link', 'domain-missing'],
    ])
    const { status, stdout } = await tidemark(args('--all', '--incremental', 'monday'))
    expect(status).toBe(4)
    expect(stdout).toMatch(/archive +3 +2 +1 +0 +32.2 MiB +disk-not-in-checkpoint/)
    expect(stdout).toContain('forgetful: checkpoint-missing')
    expect(stdout).toContain('2 of 6 domains planned: 6 disks, 4 incremental, 2 full, 0 unknown.')
    expect(stdout).not.toContain('sdc: why full')
    const details = await tidemark(
      args(...domains('webshop', 'archive'), '--incremental', 'monday', '--details'),
    )
    expect(details.stdout.match(/sdc: why full/g)).toHaveLength(2)
  })

  it('the exit status is the worst of all', async () => {
    const status = async (...more: string[]) => (await tidemark(args(...more))).status
    const two = domains('webshop', 'archive')
    expect(await status(...two, '--incremental', 'tuesday')).toBe(0)
    expect(await status(...two, '--incremental', 'monday')).toBe(10)
    expect(await status(...two, '--incremental', 'monday', '--disk', 'sdc')).toBe(11)
    expect(await status(...domains('webshop', 'broken'), '--incremental', 'tuesday')).toBe(4)
    expect(await status(...domains('link', 'broken'), '--incremental', 'tuesday')).toBe(1)
    expect(await status('--all', '--incremental', 'nonday')).toBe(1)
    expect(await status(...two, '--incremental', 'tuesday', '--require-incremental')).toBe(0)
  })

  it('--require-incremental gives the plans or the error, never both', async () => {
    const asked = args(...domains('webshop', 'archive'), '--incremental', 'monday', '--require-incremental')
    const { status, error } = await tidemarkError(asked)
    expect(status).toBe(1)
    expect(error).toMatchObject({
      code: 'not-incremental',
      plans: [{ domain: 'webshop' }, { domain: 'archive' }],
    })
    expect(error.message).toContain('webshop, archive')
  })

  it.each([
    ['--format', 'sh'],
    ['--size-then', 'sda=1M'],
    ['--domain-xml', 'a.xml'],
    ['--domain', 'webshop'],
  ])('what is for one domain alone is refused: %s', async (...more) => {
    expect((await tidemark(args('--all', '--incremental', 'monday', ...more))).status).toBe(64)
  })

  it('--details is refused of one domain, and a folder without any is an error', async () => {
    expect((await tidemark(args(...domains('webshop'), '--incremental', 'monday', '--details'))).status).toBe(
      64,
    )
    mkdirSync(dir.file('empty/qemu'), { recursive: true })
    const empty = ['plan', 'backup', '--all', '--libvirt-root', dir.file('empty'), '--incremental', 'monday']
    expect((await tidemarkError(empty)).error.code).toBe('no-domains')
  })
})
