import { readFileSync } from 'node:fs'
import {
  type DirtyExtent,
  type MapExtent,
  needs,
  qemuImg,
  qemuIo,
  run,
  type TempDir,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { createLuks } from './luks.js'

const peers = needs('qemu-img', 'qemu-io')

describe.skipIf(peers.skip)(`the map of a disk${peers.label}`, () => {
  let dir: TempDir
  beforeAll(async () => {
    dir = tempDir()
    await qemuImg.create(dir.file('base.qcow2'), '1M')
    await qemuIo(dir.file('base.qcow2'), ['write 0 128k', 'write -z 256k 64k'])
    await qemuImg.create(dir.file('top.qcow2'), '2M', { backing: 'base.qcow2' })
    await qemuImg.bitmap('--add', dir.file('top.qcow2'), 'b')
    await qemuIo(dir.file('top.qcow2'), ['write 64k 10k', 'write -c 512k 64k', 'write -z 640k 100k'])
    await qemuImg.create(dir.file('empty.qcow2'), 0)
  })
  afterAll(() => dir?.remove())

  const inDir = (args: readonly string[]) => tidemark(args, { cwd: dir.path })

  it.each(['top.qcow2', 'base.qcow2', 'empty.qcow2'])(
    'as JSON it is qemu-img’s, to the byte: %s',
    async name => {
      const { stdout } = await run('qemu-img', ['map', '--output=json', dir.file(name)])
      for (const more of [
        ['--output', 'json'],
        ['--format', 'json'],
        ['--output=json', '--format=json'],
      ]) {
        expect(await inDir(['map', name, ...more])).toEqual({ status: 0, stdout, stderr: '' })
      }
    },
  )

  it('ndjson: the same objects, one a line', async () => {
    const { stdout } = await inDir(['map', 'top.qcow2', '--format', 'ndjson'])
    const lines = stdout.split('\n')
    expect(lines.pop()).toBe('')
    expect(lines.map(line => JSON.parse(line))).toEqual(await qemuImg.map(dir.file('top.qcow2')))
  })

  it('for people', async () => {
    expect((await inDir(['map', 'top.qcow2'])).stdout).toMatchInlineSnapshot(`
      " OFFSET   LENGTH  STATE       MAPPED TO  FILE
            0    65536  data           327680  base.qcow2
        65536    65536  data           458752  top.qcow2
       131072   131072  hole
       262144    65536  zero                -  base.qcow2
       327680   196608  hole
       524288    65536  compressed          -  top.qcow2
       589824    65536  hole
       655360   131072  zero                -  top.qcow2
       786432   262144  hole
      1048576  1048576  hole

      192 KiB stored, 192 KiB zeros, 1.63 MiB nowhere, of 2 MiB in 10 extents
      "
    `)
    expect((await inDir(['map', 'empty.qcow2'])).stdout).toMatchInlineSnapshot(`
      "OFFSET  LENGTH  STATE       MAPPED TO  FILE

      0 B stored, 0 B zeros, 0 B nowhere, of 0 B in 0 extents
      "
    `)
  })

  it('for people: where encrypted data are is not told, and needs no passphrase', async () => {
    await run('sh', ['-c', `printf secret > '${dir.file('key')}'`])
    const secret = `secret,id=k,file=${dir.file('key')}`
    await createLuks(dir.file('luks.qcow2'), '1M', `file=${dir.file('key')}`)
    const open = `driver=qcow2,encrypt.key-secret=k,file.filename=${dir.file('luks.qcow2')}`
    await run('qemu-io', ['--object', secret, '--image-opts', open, '-c', 'write 64k 64k'])
    const { stdout, stderr } = await inDir(['map', 'luks.qcow2'])
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^ +65536 +65536 +encrypted +- +luks.qcow2$/m)
  })

  it('names from images do not rewrite the terminal', async () => {
    const name = 'a\x1b[31m\nb.raw'
    await run('sh', ['-c', 'printf %s x > "$1"', 'sh', dir.file(name)])
    writeQcow2(dir.file('evil.qcow2'), { virtualSize: 512, backingFile: name, backingFormat: 'raw' })
    const { stdout } = await inDir(['map', 'evil.qcow2'])
    expect(stdout).toContain('  a\\x1b[31m\\x0ab.raw\n')
  })

  it('--with-data: what dirty extents are now, as both maps together say', async () => {
    const [dirty, disk] = [
      await tidemarkJson<DirtyExtent[]>(['map', dir.file('top.qcow2'), '--bitmap', 'b']),
      await qemuImg.map(dir.file('top.qcow2')),
    ]
    const kindOf = (at: number): string => {
      const covers = ({
        offset = 0,
        start = offset,
        length,
      }: {
        offset?: number
        start?: number
        length: number
      }) => start <= at && at < start + length
      const { type } = dirty.find(({ offset, length }) => covers({ start: offset, length }))!
      const { zero, data } = disk.find(({ start, length }) => covers({ start, length })) as MapExtent
      return type === 0 ? 'clean' : `dirty ${zero} ${data}`
    }
    const found = await tidemarkJson<(DirtyExtent & { zero?: boolean; data?: boolean })[]>([
      ...['map', dir.file('top.qcow2'), '--bitmap', 'b', '--with-data'],
    ])
    let end = 0
    for (const { offset, length, type, zero, data } of found) {
      expect(offset).toBe(end)
      end += length
      const kind = type === 0 ? 'clean' : `dirty ${zero} ${data}`
      for (let at = offset; at < end; at += 32768) expect(kindOf(at), `${at}`).toBe(kind)
    }
    expect(end).toBe(2 ** 21)
    expect(new Set(found.map(({ type, zero }) => `${type} ${zero}`))).toEqual(
      new Set(['0 undefined', '1 false', '1 true']),
    )
    const lines = await inDir([
      'map',
      'top.qcow2',
      '--bitmap',
      'b',
      '--with-data',
      '--dirty',
      '--format',
      'ndjson',
    ])
    expect(
      lines.stdout
        .trim()
        .split('\n')
        .map(line => JSON.parse(line)),
    ).toEqual(found.filter(({ type }) => type === 1))
    const text = await inDir(['map', 'top.qcow2', '--bitmap', 'b', '--with-data'])
    expect(text.stdout).toMatchInlineSnapshot(`
      " OFFSET   LENGTH  STATE  NOW
            0    65536  clean
        65536    65536  dirty  data
       131072   393216  clean
       524288    65536  dirty  data
       589824    65536  clean
       655360   131072  dirty  zero
       786432  1310720  clean

      256 KiB dirty of 2 MiB (12.5 %), 128 KiB of it zeros now, in 3 extents
      "
    `)
  })

  it('--with-data needs the whole chain, and so its gate', async () => {
    const args = ['map', dir.file('top.qcow2'), '--bitmap', 'b', '--with-data', '--no-backing']
    expect((await tidemarkError(args)).error.code).toBe('reference-denied')
    expect((await tidemark(args.filter(arg => arg !== '--with-data'))).status).toBe(0)
  })
})

describe.skipIf(peers.skip)(`internal snapshots${peers.label}`, () => {
  let dir: TempDir
  let file: string
  let then: Buffer
  beforeAll(async () => {
    dir = tempDir()
    file = dir.file('disk.qcow2')
    await qemuImg.create(file, '1M')
    await qemuIo(file, ['write -P 1 0 200k'])
    await qemuImg.convert(file, dir.file('then.raw'))
    then = readFileSync(dir.file('then.raw'))
    await qemuImg.snapshot('-c', 'before upgrade', file)
    await qemuIo(file, ['write -P 2 100k 300k'])
    await qemuImg.resize(file, '3M')
  })
  afterAll(() => dir?.remove())

  it.each(['1', 'before upgrade'])('by id or name: %s, with the size that the disk had then', async name => {
    const out = dir.file('out.raw')
    const told = await tidemarkJson(['dump', file, '--snapshot', name, '-o', out])
    expect(told).toMatchObject({ 'virtual-size': 2 ** 20 })
    expect(readFileSync(out).equals(then)).toBe(true)
    const map = await tidemarkJson<MapExtent[]>(['map', file, '--snapshot', name])
    const stored = map.filter(({ data }) => data).reduce((sum, { length }) => sum + length, 0)
    expect(stored).toBe(262144)
    expect(map.at(-1)!.start + map.at(-1)!.length).toBe(2 ** 20)
  })

  it.each(['dump', 'map'])('%s of one that is not there: those that there are', async command => {
    const out = command === 'dump' ? ['-o', dir.file('none')] : []
    const { status, error } = await tidemarkError([command, file, '--snapshot', 'after', ...out])
    expect([status, error.code]).toEqual([1, 'snapshot-missing'])
    expect(error.message).toContain("it has 1 'before upgrade'")
  })
})
