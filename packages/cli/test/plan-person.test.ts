/** `plan backup` as a person meets it: many disks, narrow screens, long histories, wrong folders. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { images, top } from './webshop.js'

const targets = Array.from({ length: 12 }, (_, i) => `sd${String.fromCharCode(97 + i)}`)

describe('plan backup for people', () => {
  let dir: TempDir
  beforeAll(() => {
    dir = tempDir()
    const file = (target: string) =>
      dir.file(`a-name-that-is-longer-than-a-narrow-screen-has-room-for-${target}.qcow2`)
    // The last one is missing.
    for (const target of targets.slice(0, -1)) copyFileSync(join(top, images, 'root.qcow2'), file(target))
    const disks = targets.map(
      target =>
        `<disk type='file'><driver type='qcow2'/><source file='${file(target)}'/><target dev='${target}'/></disk>`,
    )
    const domain = `<domain><name>vm</name><devices>${disks.join('')}</devices></domain>`
    writeFileSync(dir.file('vm.xml'), domain)
    mkdirSync(dir.file('few'))
    mkdirSync(dir.file('many'))
    const checkpoint = (name: string, parent: string | undefined, then: string) =>
      `<domaincheckpoint><name>${name}</name>${parent === undefined ? '' : `<parent><name>${parent}</name></parent>`}` +
      `<creationTime>1700000000</creationTime>${then}</domaincheckpoint>`
    writeFileSync(dir.file('few/monday.xml'), checkpoint('monday', undefined, domain))
    for (let i = 0; i < 10_000; i++) {
      const name = i === 5000 ? 'monday' : `c${i}`
      const parent = i === 5001 ? 'monday' : i === 0 ? undefined : `c${i - 1}`
      writeFileSync(dir.file(`many/${i}.xml`), checkpoint(name, parent, ''))
    }
  })
  afterAll(() => dir.remove())

  const args = (folder: string, ...more: string[]): string[] => [
    ...['plan', 'backup', '--domain-xml', dir.file('vm.xml'), '--checkpoint-dir', dir.file(folder)],
    ...['--incremental', 'monday', ...more],
  ]

  it('names the disk whose size nobody knows, and counts many instead of naming them', async () => {
    const { stdout, status } = await tidemark(args('few'))
    expect(status).toBe(10)
    expect(stdout).toMatch(
      /^11 of 12 disks incremental: \S+ [KM]iB to copy, and all of sdl, of unknown size\.$/m,
    )
    const two = await tidemark(args('few', '--disk', 'sda', '--disk', 'sdb'))
    expect(two.stdout).toMatch(/^2 of 2 disks incremental: \S+ [KM]iB to copy instead of \S+ MiB\.$/m)
  })

  it('keeps within COLUMNS, but for words that are longer, and without escapes where there is no terminal', async () => {
    for (const [columns, width] of [
      ['60', 60],
      ['7', 40],
      ['', 100],
      ['none', 100],
      ['5000', 110],
    ] as const) {
      const { stdout } = await tidemark(args('few'), { env: { COLUMNS: columns } })
      expect(stdout).not.toContain('\u001b')
      const prose = stdout.split('\n').filter(line => /^ {4}\S+ \S+ /.test(line) || /^[A-Z0-9]/.test(line))
      const longest = Math.max(...prose.filter(line => !line.includes('/')).map(({ length }) => length))
      expect(longest).toBeLessThanOrEqual(width)
      expect(longest).toBeGreaterThan(width - 25)
    }
    const { stdout } = await tidemark(args('few'), { env: { COLUMNS: '60' } })
    expect(stdout).toMatch(/^ {2}sda .{30,} {2}a-n\S*…\S*qcow2$/m)
  })

  it('shows of ten thousand checkpoints the ends and what is asked for', async () => {
    const { stdout, status } = await tidemark(args('many', '--disk', 'sda'))
    expect(status).toBe(0)
    expect(stdout.split('\n').length).toBeLessThan(40)
    expect(stdout).toMatch(/● monday .*changes since here/)
    expect(stdout).toMatch(/⋮ \d+ more/)
    const plan = await tidemarkJson(args('many', '--disk', 'sda'))
    expect(JSON.stringify(plan).length).toBeLessThan(10_000)
  }, 600_000)

  it('names a file that is left out once, and goes on', async () => {
    mkdirSync(dir.file('few/odd.xml'))
    const { stderr, status } = await tidemark(args('few', '--disk', 'sda'))
    expect({ stderr, status }).toEqual({
      stderr: `warning: ${dir.file('few/odd.xml')} is left out: is not a regular file\n`,
      status: 0,
    })
  })

  it('has help within 80 columns', async () => {
    const { stdout } = await tidemark(['plan', 'backup', '--help'], { env: { COLUMNS: '80' } })
    expect(stdout.split('\n').filter(line => line.length > 80)).toEqual([])
  })

  it('says what is wrong with a folder that is none', async () => {
    const file = dir.file('vm.xml')
    const wrong = [
      'plan',
      'backup',
      '--domain-xml',
      file,
      '--checkpoint-dir',
      file,
      '--incremental',
      'monday',
    ]
    expect(await tidemarkError(wrong)).toMatchObject({
      status: 1,
      error: { code: 'file-unreadable', message: `${file} is not a folder` },
    })
  })
})
