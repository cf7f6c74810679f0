import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TempDir, tempDir } from '@tidemark/testkit'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { raw } from './raw.js'
import { hostImages, top, webshop } from './webshop.js'

interface Plan {
  readonly disks: readonly {
    readonly target: string
    readonly mode: string
    readonly reasons: readonly { readonly code: string; readonly severity: string }[]
  }[]
}

/** The example, copied so that it can be broken. */
describe('plan backup of a broken domain', () => {
  let dir: TempDir
  beforeEach(() => {
    dir = tempDir()
    cpSync(join(top, webshop), dir.path, { recursive: true })
  })
  afterEach(() => dir.remove())

  const checkpointFile = (name: string): string => dir.file(`libvirt/qemu/checkpoint/webshop/${name}.xml`)
  const edit = (file: string, from: string | RegExp, to: string): void => {
    const text = readFileSync(file, 'utf8')
    if (text.replace(from, to) === text) throw new Error(`${file} has no ${from}`)
    writeFileSync(file, text.replace(from, to))
  }
  const args = (incremental: string, ...more: string[]): string[] => [
    ...['plan', 'backup', '--domain', 'webshop', '--libvirt-root', dir.file('libvirt')],
    ...['--map-source', `${hostImages}=${dir.file('images')}`, '--incremental', incremental, ...more],
  ]
  const modes = ({ disks }: Plan): Record<string, string> =>
    Object.fromEntries(disks.map(({ target, mode }) => [target, mode]))
  const codes = ({ disks }: Plan, wanted?: string): string[][] =>
    disks.map(({ reasons }) =>
      reasons.filter(({ severity }) => wanted === undefined || severity === wanted).map(({ code }) => code),
    )

  it('the checkpoint is missing', async () => {
    const { status, error } = await tidemarkError(args('mondya'))
    expect(status).toBe(1)
    expect(error).toMatchObject({ code: 'checkpoint-missing', checkpoint: 'mondya', domain: 'webshop' })
    expect(error.message).toContain("did you mean 'monday'?")
    const human = await tidemark(args('mondya'))
    expect(human).toMatchObject({ status: 1, stdout: '' })
    expect(human.stderr).toMatch(/^error: domain 'webshop' has no checkpoint 'mondya'/)
  })

  it("a checkpoint's parent is missing: a note, and the same plan", async () => {
    rmSync(checkpointFile('monday'))
    const plan = await tidemarkJson<Plan>(args('tuesday'))
    expect(codes(plan)).toEqual(Array(3).fill(['checkpoint-parent-missing']))
    const { stdout } = await tidemark(args('tuesday'))
    expect(stdout).toContain('parent monday is missing')
    // Once, not for each disk.
    expect(stdout.match(/checkpoint-parent-missing/g)).toHaveLength(1)
  })

  it('the chain of checkpoints is circular', async () => {
    edit(checkpointFile('monday'), /(<name>monday<\/name>)/, '$1<parent><name>wednesday</name></parent>')
    const plan = await tidemarkJson<Plan>(args('tuesday'))
    expect(codes(plan)).toEqual(Array(3).fill(['checkpoint-cycle']))
    expect((await tidemark(args('tuesday'))).stdout).toContain('again: the chain is circular')
  })

  it('the chain of checkpoints is branched', async () => {
    edit(checkpointFile('wednesday'), '<name>tuesday</name>', '<name>monday</name>')
    const plan = await tidemarkJson<Plan>(args('tuesday'))
    expect(codes(plan).every(each => each.includes('checkpoint-branched'))).toBe(true)
  })

  it('one image is missing: the others stay incremental', async () => {
    rmSync(dir.file('images/root.qcow2'))
    const plan = await tidemarkJson<Plan>(args('tuesday'), { status: 10 })
    expect(modes(plan)).toEqual({ sda: 'full', sdb: 'incremental', sdc: 'incremental' })
    expect(codes(plan, 'blocks')).toEqual([['image-missing'], [], []])
  })

  it('a backing file is missing', async () => {
    rmSync(dir.file('images/data.qcow2'))
    const plan = await tidemarkJson<Plan>(args('tuesday'), { status: 10 })
    expect(codes(plan, 'blocks')).toEqual([[], ['image-missing'], []])
  })

  it('a backing file is the image itself', async () => {
    cpSync(dir.file('images/data.overlay.qcow2'), dir.file('images/data.qcow2'))
    // What the domain's XML says of the chain would overrule the images.
    edit(dir.file('libvirt/qemu/webshop.xml'), /<backingStore.*<\/backingStore>/s, '')
    const plan = await tidemarkJson<Plan>(args('tuesday'), { status: 10 })
    expect(codes(plan, 'blocks')).toEqual([[], ['backing-cycle'], []])
  })

  it('all images are missing: 11, and with --require-incremental 1', async () => {
    rmSync(dir.file('images'), { recursive: true })
    const plan = await tidemarkJson<Plan>(args('tuesday'), { status: 11 })
    expect(new Set(Object.values(modes(plan)))).toEqual(new Set(['full']))
    const { status, error } = await tidemarkError(args('tuesday', '--require-incremental'))
    expect({ status, code: error.code }).toEqual({ status: 1, code: 'not-incremental' })
    expect(error).toMatchObject({ disks: ['sda', 'sdb', 'sdc'], plan: { incremental: 'tuesday' } })
  })

  it('--require-incremental: 1 for some, 0 for none; nothing is printed for a program to take for a plan', async () => {
    const some = await tidemark(args('monday', '--require-incremental', '--format', 'xml'))
    expect(some).toMatchObject({ status: 1, stdout: '' })
    const human = await tidemark(args('monday', '--require-incremental'))
    expect(human.status).toBe(1)
    expect(human.stdout).toContain('disk-not-in-checkpoint')
    expect(human.stderr).toBe('error: not incremental: sdc (--require-incremental)\n')
    expect((await tidemark(args('tuesday', '--require-incremental'))).status).toBe(0)
    const two = await tidemark(args('monday', '--require-incremental', '--disk', 'sda', '--disk', 'sdb'))
    expect(two.status).toBe(0)
  })

  it('--disk limits the plan, in domain order; an unknown one is an error', async () => {
    const plan = await tidemarkJson<Plan>(args('monday', '--disk', 'sdb', '--disk', 'sda'))
    expect(Object.keys(modes(plan))).toEqual(['sda', 'sdb'])
    expect(await tidemarkJson<Plan>(args('monday', '--disk', 'sdc'), { status: 11 })).toMatchObject({
      disks: [{ target: 'sdc' }],
    })
    const { status, error } = await tidemarkError(args('monday', '--disk', 'sdz'))
    expect({ status, code: error.code }).toEqual({ status: 1, code: 'disk-unknown' })
  })

  it('the domain is missing', async () => {
    const { status, error } = await tidemarkError(args('monday').with(3, 'webshpo'))
    expect({ status, code: error.code }).toEqual({ status: 1, code: 'domain-missing' })
    expect(error.message).toContain("did you mean 'webshop'?")
  })

  it.each(['', '/etc/passwd', '../webshop', '.', 'a\x01\x1b[2Jb\x9b'])(
    "a domain's name is %j",
    async name => {
      const { status } = await tidemarkError(args('monday').with(3, name))
      expect(status).toBe(1)
      const human = await tidemark(args('monday').with(3, name))
      const json = await tidemark([...args('monday').with(3, name), '--output', 'json'])
      expect(human.stderr + json.stderr).not.toMatch(raw)
    },
  )

  it("a checkpoint's XML cannot be read: told, and left out", async () => {
    writeFileSync(checkpointFile('tuesday'), '<domaincheckpoint><name>tues')
    const human = await tidemark(args('monday'))
    expect(human.status).toBe(10)
    expect(human.stderr).toMatch(/^warning: .*tuesday.xml is left out/)
    const plan = await tidemarkJson<{ 'load-problems': unknown[] }>(args('monday'), { status: 10 })
    expect(plan['load-problems']).toHaveLength(1)
    // Still one object: the warning is in it.
    expect((await tidemarkError(args('tuesday'))).error).toMatchObject({
      code: 'checkpoint-missing',
      warnings: [expect.stringContaining('tuesday.xml is left out')],
    })
  })

  it('the XML of the domain is none', async () => {
    writeFileSync(dir.file('libvirt/qemu/webshop.xml'), 'no XML')
    const { status } = await tidemarkError(args('monday'))
    expect(status).toBe(1)
  })

  it('--domain-xml and --checkpoint-dir give the same plan', async () => {
    const given = [
      ...['plan', 'backup', '--domain-xml', dir.file('libvirt/qemu/webshop.xml')],
      ...['--checkpoint-dir', dir.file('libvirt/qemu/checkpoint/webshop')],
      ...args('monday').slice(6),
    ]
    expect(await tidemark(given)).toEqual(await tidemark(args('monday')))
    const elsewhere = await tidemarkError(given.with(5, dir.file('nowhere')))
    expect(elsewhere.status).toBe(1)
  })

  it('--no-bodies: the same modes, no sizes', async () => {
    const plan = await tidemarkJson<Plan>(args('monday', '--no-bodies'), { status: 10 })
    expect(modes(plan)).toEqual({ sda: 'incremental', sdb: 'incremental', sdc: 'full' })
    expect(JSON.stringify(plan)).not.toContain('dirty-bytes')
    expect((await tidemark(args('monday', '--no-bodies'))).stdout).toMatch(
      /sda +incremental .* \? +root.qcow2/,
    )
  })

  it('a name that turns the terminal over is shown as escapes', async () => {
    const bad = '\x9b2Jred'
    edit(checkpointFile('monday'), /<description>[^<]*</, `<description>${bad}<`)
    edit(dir.file('libvirt/qemu/webshop.xml'), /root\.qcow2/, `ro${bad}ot.qcow2`)
    const { stdout, stderr } = await tidemark(args('monday'))
    expect(stdout + stderr).not.toMatch(raw)
    expect(stdout).toContain('ro\\x9b2Jredot.qcow2')
  })
})
