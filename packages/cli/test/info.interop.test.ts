import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  needs,
  qcow2Blockdev,
  qemuImg,
  qemuIo,
  qemuIoCrash,
  run,
  StorageDaemon,
  type TempDir,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { createLuks } from './luks.js'
import { missingFrom } from './superset.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-storage-daemon')

interface Info {
  readonly findings: readonly Record<string, unknown>[]
}

describe.skipIf(peers.skip)(`info holds all that qemu-img info says${peers.label}`, () => {
  let dir: TempDir
  beforeAll(() => {
    dir = tempDir()
  })
  afterAll(() => dir?.remove())

  const same = async (file: string, cwd = dir.path): Promise<Record<string, unknown>> => {
    const { stdout } = await run('qemu-img', ['info', '--output=json', file], { cwd })
    const found = await tidemarkJson<Record<string, unknown>>(['info', file], { cwd })
    expect(missingFrom(found, JSON.parse(stdout))).toEqual([])
    return found
  }

  describe('backing files', () => {
    beforeAll(async () => {
      await run('mkdir', [dir.file('sub')])
      for (const name of ['base.qcow2', 'sub/base.qcow2', 'sub/with space, comma.qcow2']) {
        await qemuImg.create(dir.file(name), '8M')
      }
      await qemuImg.create(dir.file('base.raw'), 1_000_000, { format: 'raw' })
    })

    /** Name of the overlay, name of its backing file as written, format. */
    const cases: readonly (readonly [string, (dir: string) => string, string])[] = [
      ['relative.qcow2', () => 'base.qcow2', 'qcow2'],
      ['sub/relative.qcow2', () => 'base.qcow2', 'qcow2'],
      ['sub/up.qcow2', () => '../base.qcow2', 'qcow2'],
      ['down.qcow2', () => 'sub/base.qcow2', 'qcow2'],
      ['dotted.qcow2', () => './sub/../base.qcow2', 'qcow2'],
      ['absolute.qcow2', path => join(path, 'base.qcow2'), 'qcow2'],
      ['odd.qcow2', () => 'sub/with space, comma.qcow2', 'qcow2'],
      ['raw.qcow2', () => 'base.raw', 'raw'],
      ['file.qcow2', path => `file:${join(path, 'base.qcow2')}`, 'qcow2'],
      ['file-relative.qcow2', () => 'file:base.qcow2', 'qcow2'],
      ['sub/file-relative.qcow2', () => 'file:../base.qcow2', 'qcow2'],
      [
        'json.qcow2',
        path =>
          `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: join(path, 'base.qcow2') } })}`,
        'qcow2',
      ],
      [
        'json-dotted.qcow2',
        path => `json:${JSON.stringify({ driver: 'qcow2', 'file.filename': join(path, 'base.qcow2') })}`,
        'qcow2',
      ],
      ['gone.qcow2', () => 'no-such.qcow2', 'qcow2'],
      ['nbd.qcow2', () => 'nbd://localhost/export', 'raw'],
    ]

    it.each(cases)('%s', async (name, backing, format) => {
      const file = dir.file(name)
      await qemuImg.create(file, '8M')
      await run('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-b', backing(dir.path), '-F', format, file])
      expect(await same(file)).toMatchObject({
        'backing-filename': backing(dir.path),
        'backing-filename-format': format,
      })
      await same(name)
      await same(`./${name}`)
      await same(`../${name}`, dir.file('sub'))
    })

    it('a backing file whose format is not said', async () => {
      const file = dir.file('unsaid.qcow2')
      writeQcow2(file, { backingFile: 'base.qcow2', virtualSize: 8 * 2 ** 20 })
      await same(file)
    })

    it('--backing-chain: the same list', async () => {
      await qemuImg.create(dir.file('top.qcow2'), '8M', { backing: dir.file('sub/relative.qcow2') })
      await qemuImg.bitmap('--add', dir.file('top.qcow2'), 'b0')
      for (const file of ['top.qcow2', 'raw.qcow2', 'base.qcow2', 'base.raw']) {
        const chain = await qemuImg.infoChain(dir.file(file))
        const found = await tidemarkJson(['info', '--backing-chain', dir.file(file)])
        expect(missingFrom(found, chain), file).toEqual([])
      }
      const { stdout } = await tidemark(['info', '--backing-chain', dir.file('top.qcow2')])
      expect(stdout.match(/^\/.*\.qcow2$/gm)).toHaveLength(3)
    })

    it('--backing-chain with a missing image shows what is there, and is an error', async () => {
      const { status, stdout, stderr } = await tidemark(['info', '--backing-chain', dir.file('gone.qcow2')])
      expect(status).toBe(1)
      expect(stdout).toContain('no-such.qcow2')
      expect(stderr).toMatch(/^error: .*no-such.qcow2: no such file\n$/)
    })
  })

  describe('formats and features', () => {
    it.each([0, 1, 511, 512, 513, 1_000_003])('raw with %i bytes', async size => {
      const file = dir.file(`${size}.raw`)
      writeFileSync(file, '')
      truncateSync(file, size)
      await same(file)
    })

    it.each(['vmdk', 'vdi', 'vhdx', 'vpc', 'qed'])('%s is named, and not read', async format => {
      const file = dir.file(`other.${format}`)
      await qemuImg.create(file, '16M', { format })
      const found = await tidemarkJson(['info', file], { status: 63 })
      expect(found).toMatchObject({ format, filename: file })
      // How large the disk is stands in what is not read.
      expect(found).not.toHaveProperty('virtual-size')
      expect((await tidemark(['info', file])).status).toBe(63)
    })

    it.each([
      ['version 2', { compat: '0.10' }],
      ['lazy refcounts', { lazyRefcounts: true }],
      ['extended L2', { extendedL2: true }],
      ['zstd', { compressionType: 'zstd' }],
      ['1-bit refcounts', { refcountBits: 1 }],
      ['preallocation', { preallocation: 'metadata' }],
    ] as const)('%s', async (name, options) => {
      const file = dir.file(`${name}.qcow2`)
      await qemuImg.create(file, '16M', options)
      await qemuIo(file, ['write -q 0 1M'])
      await same(file)
    })

    it.each([false, true])('an external data file, raw: %s', async dataFileRaw => {
      const file = dir.file(`data-${dataFileRaw}.qcow2`)
      await qemuImg.create(file, '16M', { dataFile: dir.file(`data-${dataFileRaw}.bin`), dataFileRaw })
      await qemuImg.bitmap('--add', file, 'b0')
      const found = await same(file)
      expect(found).toMatchObject({ 'format-specific': { data: { 'data-file-raw': dataFileRaw } } })
    })

    it.each([
      ['as QEMU makes it', []],
      [
        'another cipher',
        ['cipher-alg=aes-128', 'cipher-mode=cbc', 'ivgen-alg=essiv', 'ivgen-hash-alg=sha256'],
      ],
      ['another hash', ['hash-alg=sha512', 'ivgen-alg=plain']],
    ])('LUKS, to the key slots: %s', async (name, more) => {
      const file = dir.file(`luks ${name}.qcow2`)
      await createLuks(file, '4M', 'data=x', more)
      expect(await same(file)).toMatchObject({ encrypted: true })
      const { stdout } = await tidemark(['info', file])
      expect(stdout).toMatch(
        /encryption +LUKS, aes-\d+ (xts|cbc)-(plain|plain64|essiv) sha(256|512), 1 of 8 key slots/,
      )
    })

    it('a LUKS header that cannot be is a finding', async () => {
      const file = dir.file('luks-broken.qcow2')
      await createLuks(file, '4M', 'data=x')
      const bytes = readFileSync(file)
      const at = bytes.indexOf('LUKS')
      bytes.write('SKUL', at)
      writeFileSync(file, bytes)
      const { findings } = await tidemarkJson<Info>(['info', file])
      expect(findings).toMatchObject([
        { code: 'luks-header-corrupt', severity: 'error', structure: 'LUKS header', offset: at },
      ])
      const human = await tidemark(['info', file])
      expect(human).toMatchObject({ status: 0, stderr: '' })
      expect(human.stdout).toMatch(/encryption +LUKS$/m)
      expect(human.stdout).toMatch(/error +0x[0-9a-f]+ +LUKS header/)
      bytes.write('LUKS', at)
      bytes.writeUInt16BE(2, at + 6)
      writeFileSync(file, bytes)
      await tidemarkJson(['info', file], { status: 63 })
    })

    it('internal snapshots', async () => {
      const file = dir.file('snap.qcow2')
      await qemuImg.create(file, '4M')
      for (const name of ['one', 'zwei ü', 'x'.repeat(255)]) await qemuImg.snapshot('-c', name, file)
      const found = await same(file)
      expect(found).toMatchObject({ 'snapshot-count': 3, snapshots: [{ id: '1', name: 'one' }, {}, {}] })
      const { stdout } = await tidemark(['info', file])
      expect(stdout).toMatch(/^ {2}ID +SNAPSHOT +TAKEN +DISK +MEMORY$/m)
      expect(stdout).toMatch(/^ {2}2 +zwei ü +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC +4 MiB$/m)
    })

    it('a snapshot table that cannot be is a finding; what QEMU refuses is shown', async () => {
      const file = dir.file('snap-broken.qcow2')
      await qemuImg.create(file, '4M')
      await qemuImg.snapshot('-c', 'one', file)
      const bytes = readFileSync(file)
      const table = Number(bytes.readBigUInt64BE(64))
      // More extra data than QEMU takes.
      bytes.writeUInt32BE(2000, table + 36)
      writeFileSync(file, bytes)
      expect((await run('qemu-img', ['info', file], { accept: 'any' })).status).toBe(1)
      const { findings, ...rest } = await tidemarkJson<Info>(['info', file])
      expect(findings).toMatchObject([
        { code: 'snapshot-table-corrupt', severity: 'error', field: 'extra_data_size', offset: table + 36 },
      ])
      expect(rest).not.toHaveProperty('snapshots')
      expect((await tidemark(['info', file])).stdout).toMatch(/snapshots +1$/m)
    })

    it('a crash with lazy refcounts leaves the dirty flag', async () => {
      const file = dir.file('dirty.qcow2')
      await qemuImg.create(file, '4M', { lazyRefcounts: true })
      await qemuIoCrash(file, ['write -q 0 64k'])
      const found = await same(file)
      expect(found['dirty-flag']).toBe(true)
    })

    it('a crash leaves bitmaps in use', async () => {
      const file = dir.file('crash.qcow2')
      await qemuImg.create(file, '4M')
      await qemuImg.bitmap('--add', file, 'b0')
      await qemuIoCrash(file, ['write -q 0 64k'])
      expect(await same(file)).toMatchObject({
        'format-specific': { data: { bitmaps: [{ flags: ['in-use', 'auto'] }] } },
      })
      const human = await tidemark(['info', file])
      expect(human.stdout).toMatch(/b0 +64 KiB +inconsistent \(in-use\)/)
      const { status, error } = await tidemarkError(['map', file, '--bitmap', 'b0'])
      expect({ status, code: error.code }).toEqual({ status: 1, code: 'bitmap-inconsistent' })
      const forced = await tidemark(['map', file, '--bitmap', 'b0', '--force', '--output', 'json'])
      expect(forced.status).toBe(0)
      expect(forced.stderr).toMatch(/^warning: bitmap 'b0' .* is inconsistent \(in-use\)/)
    })
  })

  describe('an image that a writer holds', () => {
    let file: string
    let daemon: StorageDaemon
    beforeAll(async () => {
      file = dir.file('live.qcow2')
      await qemuImg.create(file, '16M')
      await qemuImg.bitmap('--add', file, 'b0')
      daemon = await StorageDaemon.start([qcow2Blockdev('disk', file)])
      await daemon.exportNbd('disk', { writable: true })
    })
    afterAll(async () => await daemon?.kill())

    it.each([
      ['info', ['info']],
      ['info --count', ['info', '--count']],
      ['map', ['map', '--bitmap', 'b0']],
      ['map of the disk', ['map']],
      ['dump', ['dump', '-o', '/dev/null']],
    ])('%s refuses', async (_, [command, ...args]) => {
      const { status, error } = await tidemarkError([command!, file, ...args])
      expect({ status, code: error.code }).toEqual({ status: 1, code: 'image-in-use' })
      expect(await run('qemu-img', ['info', file], { accept: 'any' })).toMatchObject({ status: 1 })
    })

    it('-U shows it, and says that it may be torn', async () => {
      for (const flag of ['-U', '--force-share']) {
        const shown = await tidemark(['info', flag, file, '--output', 'json'])
        expect(shown.status).toBe(0)
        expect(shown.stderr).toMatch(/^warning: .*live.qcow2 is in use by a writer: .*torn/)
        const { stdout } = await run('qemu-img', ['info', '-U', '--output=json', file])
        expect(missingFrom(JSON.parse(shown.stdout), JSON.parse(stdout))).toEqual([])
      }
    })

    it('-U reads its data, with the same warning; and never writes to it', async () => {
      const out = dir.file('live.raw')
      const read = await tidemark(['dump', '-U', file, '-o', out])
      expect(read).toMatchObject({ status: 0, stdout: '' })
      expect(read.stderr).toMatch(/^warning: .*live.qcow2 is in use by a writer: .*torn/)
      const before = readFileSync(file)
      for (const more of [[], ['-U']]) {
        const { status, error } = await tidemarkError(['dump', out, '-o', file, ...more])
        expect({ status, code: error.code }).toEqual({ status: 1, code: 'image-in-use' })
      }
      expect(readFileSync(file).equals(before)).toBe(true)
    })

    it('a raw image: its size is no secret, its data may be torn', async () => {
      const raw = dir.file('live-disk.raw')
      await qemuImg.create(raw, '1M', { format: 'raw' })
      const writer = await StorageDaemon.start([
        { driver: 'raw', 'node-name': 'disk', file: { driver: 'file', filename: raw } },
      ])
      try {
        await writer.exportNbd('disk', { writable: true })
        await same(raw)
        expect(await tidemark(['map', raw])).toMatchObject({ status: 0, stderr: '' })
        await run('qemu-img', ['map', '-f', 'raw', raw])
        const out = dir.file('torn.raw')
        expect((await tidemarkError(['dump', raw, '-o', out])).error.code).toBe('image-in-use')
        const convert = ['convert', '-f', 'raw', '-O', 'raw', raw, out]
        expect(await run('qemu-img', convert, { accept: 'any' })).toMatchObject({ status: 1 })
      } finally {
        await writer.kill()
      }
    })

    it('an overlay of it: refused where the chain is read', async () => {
      const overlay = dir.file('over-live.qcow2')
      await qemuImg.create(overlay, '16M')
      await run('qemu-img', ['rebase', '-u', '-b', file, '-F', 'qcow2', overlay])
      await same(overlay)
      expect((await tidemarkError(['info', '--backing-chain', overlay])).error.code).toBe('image-in-use')
    })

    it('a reader is no writer', async () => {
      const other = dir.file('read.qcow2')
      await qemuImg.create(other, '1M')
      const reader = await StorageDaemon.start([qcow2Blockdev('disk', other, { 'read-only': true })])
      try {
        await same(other)
      } finally {
        await reader.kill()
      }
    })
  })
})
