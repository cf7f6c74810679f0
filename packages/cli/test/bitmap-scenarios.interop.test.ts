// What QEMU's own tests (tests/qemu-iotests, by their numbers) do with persistent bitmaps, done with tidemark bitmap in
// qemu-img's place: told in our own words, and judged by QEMU. As long as there are scenarios.
import { createHash } from 'node:crypto'
import { copyFileSync, readFileSync, statSync, truncateSync } from 'node:fs'
import {
  dirtyMap,
  dirtyMaps,
  needs,
  qcow2Blockdev,
  qemuImg,
  qemuIo,
  qemuIoCrash,
  run,
  StorageDaemon,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { bin, plainEnv, tidemark, tidemarkError } from './cli.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'qemu-storage-daemon', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())
const MiB = 2 ** 20

const hash = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')
const sound = { status: 0, corruptions: 0, leaks: 0 }

/** Names, granularities, flags and bits of all bitmaps, as QEMU has them; the directory's order does not count. */
async function qemuState(file: string): Promise<Record<string, unknown>> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const maps = await dirtyMaps(file)
  const found = info['format-specific']?.data.bitmaps ?? []
  return Object.fromEntries(
    found
      .map(({ name, granularity, flags }) => [name, { granularity, flags, bits: maps.get(name) }] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  )
}

const dirtyOf = async (file: string, name: string) =>
  (await dirtyMap(file, name)).filter(({ type }) => type === 1).map(({ offset, length }) => [offset, length])

async function flagsOf(file: string): Promise<Record<string, string[]>> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  return Object.fromEntries(info['format-specific']!.data.bitmaps!.map(({ name, flags }) => [name, flags]))
}

/** Must succeed, and leave an image that QEMU finds nothing wrong with. */
async function edit(file: string, ...args: string[]): Promise<void> {
  expect(await tidemark(['bitmap', ...args]), args.join(' ')).toEqual({ status: 0, stdout: '', stderr: '' })
  expect(await qemuImg.check(file), args.join(' ')).toMatchObject(sound)
}

describe.skipIf(peers.skip)(`as QEMU's own tests have it${peers.label}`, () => {
  it('291: bitmaps of a layer go down into its backing file, one by one and by a temporary one', async () => {
    const base = dir.file('291-base.qcow2')
    const top = dir.file('291-top.qcow2')
    await qemuImg.create(base, 10 * MiB)
    await qemuIo(base, ['write -q 0 1M'])
    await edit(base, '--add', '-f', 'qcow2', base, 'b0')
    await qemuIo(base, ['write -q 1M 1M'])
    await edit(base, '--disable', '-f', 'qcow2', base, 'b0')
    await qemuImg.create(top, undefined, { backing: base })
    await edit(top, '--add', top, 'b1')
    await edit(top, '--add', '--disable', '-g', '512k', top, 'b2')
    await qemuIo(top, ['write -q 3M 1M'])
    await edit(top, '--disable', '--rename', 'b0', top, 'b1')
    await edit(top, '--enable', top, 'b2')
    await qemuIo(top, ['write -q 9M 100k'])

    await edit(base, '--merge', 'b0', '-b', top, '-F', 'qcow2', base, 'b0')
    expect(await dirtyOf(base, 'b0')).toEqual([
      [MiB, MiB],
      [3 * MiB, MiB],
    ])
    await edit(base, '--add', '--disable', '--merge', 'b2', '-b', top, '-F', 'qcow2', base, 'tmp')
    await edit(base, '--merge', 'tmp', base, 'b0')
    await edit(base, '--remove', base, 'tmp')
    expect(await dirtyOf(base, 'b0')).toEqual([
      [MiB, MiB],
      [3 * MiB, MiB],
      [9 * MiB, MiB / 2],
    ])
    // A bitmap is looked for in the image itself, not below it.
    const { status, error } = await tidemarkError(['bitmap', '--remove', top, 'tmp'])
    expect([status, error.code]).toEqual([1, 'bitmap-missing'])
    // QEMU takes them along.
    const copy = dir.file('291-copy.qcow2')
    await qemuImg.convert(top, copy, { to: 'qcow2', args: ['--bitmaps'] })
    expect(await qemuState(copy)).toEqual(await qemuState(top))
  })

  it('291: an inconsistent bitmap can only be removed', async () => {
    const file = dir.file('291-torn.qcow2')
    await qemuImg.create(file, 10 * MiB)
    await edit(file, '--add', file, 'b0')
    await qemuIoCrash(file, ['write -q 0 64k'])
    await edit(file, '--add', file, 'b1')
    const before = hash(file)
    for (const args of [['--clear'], ['--merge', 'b1'], ['--enable'], ['--disable'], ['--rename', 'x']]) {
      const { status, error } = await tidemarkError(['bitmap', ...args, file, 'b0'])
      expect([status, error.code], args.join(' ')).toEqual([1, 'bitmap-inconsistent'])
    }
    expect(hash(file)).toBe(before)
    await edit(file, '--remove', file, 'b0')
    expect(Object.keys(await qemuState(file))).toEqual(['b1'])
  })

  it('303: many bitmaps, in a directory of many clusters', async () => {
    const file = dir.file('303.qcow2')
    const names = Array.from({ length: 10_000 }, (_, i) => `bitmap-${i}-${'x'.repeat(i % 40)}`)
    writeQcow2(file, {
      virtualSize: 4 * MiB,
      clusterBits: 12,
      bitmaps: names.map((name, i) => ({ name, dirty: [i % 64] })),
    })
    await edit(file, '--add', file, 'one more')
    await edit(file, '--remove', file, names[5000]!)
    await edit(file, '--disable', '--merge', names[17]!, file, names[3]!)
    const info = await qemuImg.info(file, { format: 'qcow2' })
    const found = info['format-specific']!.data.bitmaps!
    expect(found.map(({ name }) => name)).toEqual([...names.toSpliced(5000, 1), 'one more'])
    expect(found[3]!.flags).toEqual([])
    expect(await dirtyOf(file, names[3]!)).toEqual([
      [3 * 65536, 65536],
      [17 * 65536, 65536],
    ])
    expect(await dirtyOf(file, names[9999]!)).toEqual([[(9999 % 64) * 65536, 65536]])
  })

  it('242: flags are as they were where nothing was to be changed', async () => {
    const file = dir.file('242.qcow2')
    writeQcow2(file, {
      virtualSize: MiB,
      bitmaps: [
        { name: 'auto', dirty: [1] },
        { name: 'off', flags: 0, granularityBits: 15, dirty: [2] },
        { name: 'in use', flags: 1, dirty: [3] },
        { name: 'in use and auto', flags: 3, granularityBits: 9 },
      ],
    })
    await edit(file, '--add', file, 'new')
    const flags = async () => {
      const info = await qemuImg.info(file, { format: 'qcow2' })
      return info['format-specific']!.data.bitmaps!.map(each => [each.name, each.granularity, each.flags])
    }
    const old = [
      ['auto', 65536, ['auto']],
      ['off', 32768, []],
      ['in use', 65536, ['in-use']],
      ['in use and auto', 512, ['in-use', 'auto']],
    ]
    expect(await flags()).toEqual([...old, ['new', 65536, ['auto']]])
    await edit(file, '--remove', file, 'in use')
    expect(await flags()).toEqual([...old.toSpliced(2, 1), ['new', 65536, ['auto']]])
  })

  it('242: a flag that QEMU does not know makes it refuse the image; it is left alone', async () => {
    const file = dir.file('242-strange.qcow2')
    writeQcow2(file, { virtualSize: MiB, bitmaps: [{ name: 'strange', flags: 0x80 | 2 }, { name: 'good' }] })
    const before = hash(file)
    const { status, error } = await tidemarkError(['bitmap', '--clear', file, 'strange'])
    expect(status, error.message).toBe(1)
    expect(error.message).toContain('strange')
    expect(hash(file)).toBe(before)
  })

  it('190: what the bitmaps need elsewhere is measured the same after either tool', async () => {
    const file = dir.file('190.qcow2')
    await qemuImg.create(file, '2T')
    const theirs = dir.file('190-theirs.qcow2')
    copyFileSync(file, theirs)
    for (const args of [['--add'], ['--add', '-g', '512k'], ['--add', '-g', '2M']]) {
      const name = `b${args.length}-${args.at(-1)}`
      await edit(file, ...args, file, name)
      await qemuImg.bitmap(...args, theirs, name)
    }
    const measure = async (image: string) =>
      (await run('qemu-img', ['measure', '--output=json', '-O', 'qcow2', '-f', 'qcow2', image])).stdout
    expect(JSON.parse(await measure(file))).toHaveProperty('bitmaps')
    expect(await measure(file)).toBe(await measure(theirs))
  })

  it.each([
    ['65536', 10 * MiB, 20 * MiB],
    ['4096', 64 * MiB, 512 * MiB],
    ['512', 5 * MiB + 512, 70 * MiB + 1024],
    ['131072', 64 * MiB, MiB],
  ])('246: the disk becomes another size, granularity %s', async (granularity, from, to) => {
    const file = dir.file(`246-${granularity}.qcow2`)
    await qemuImg.create(file, from)
    await edit(file, '--add', '-g', granularity, file, 'b0')
    await edit(file, '--add', '--disable', '-g', '64k', file, 'b1')
    await qemuIo(file, [`write -q 0 512`, `write -q ${from - 512} 512`])
    await qemuImg.resize(file, to)
    const theirs = dir.file(`246-${granularity}-theirs.qcow2`)
    copyFileSync(file, theirs)
    await qemuImg.bitmap('--merge', 'b0', '--enable', theirs, 'b1')
    await edit(file, '--merge', 'b0', '--enable', file, 'b1')
    expect(await qemuState(file)).toEqual(await qemuState(theirs))
    await qemuIo(file, [`write -q ${to - 512} 512`])
    await qemuIo(theirs, [`write -q ${to - 512} 512`])
    expect(await qemuState(file)).toEqual(await qemuState(theirs))
  })

  it('165, 236: what is enabled records over restarts, what is disabled does not', async () => {
    const file = dir.file('165.qcow2')
    await qemuImg.create(file, 16 * MiB)
    const wanted: number[][] = []
    await edit(file, '--add', '-g', '64k', file, 'b0')
    for (const [i, records] of [true, false, true, true, false, true].entries()) {
      await edit(file, records ? '--enable' : '--disable', file, 'b0')
      await qemuIo(file, [`write -q -P 7 ${i * 2 * MiB} 64k`])
      if (records) wanted.push([i * 2 * MiB, 65536])
      expect(await dirtyOf(file, 'b0')).toEqual(wanted)
    }
    await edit(file, '--clear', file, 'b0')
    expect(await dirtyOf(file, 'b0')).toEqual([])
    await qemuIo(file, ['read -q -P 7 10M 64k', 'write -q 5M 512'])
    expect(await dirtyOf(file, 'b0')).toEqual([[5 * MiB, 65536]])
    // Nothing of the disk was lost over it.
    expect(statSync(file).size).toBeLessThan(4 * MiB)
  })

  it('165: a VM that only reads leaves a bitmap as it is; one that is killed makes it inconsistent, the others too', async () => {
    const file = dir.file('165-read-only.qcow2')
    await qemuImg.create(file, 16 * MiB)
    await edit(file, '--add', file, 'b0')
    await edit(file, '--add', '--disable', file, 'off')
    const before = hash(file)
    const reader = await StorageDaemon.start([qcow2Blockdev('disk', file, { 'read-only': true })])
    expect((await tidemarkError(['bitmap', '--clear', file, 'b0'])).error).toMatchObject({ use: 'read' })
    await reader.quit()
    expect(hash(file)).toBe(before)
    const writer = await StorageDaemon.start([qcow2Blockdev('disk', file)])
    await writer.kill()
    const flags = await flagsOf(file)
    expect(flags).toEqual({ b0: ['in-use', 'auto'], off: ['in-use'] })
    await edit(file, '--remove', file, 'b0')
    await edit(file, '--add', file, 'b0')
    await qemuIo(file, ['write -q 1M 64k'])
    expect(await dirtyOf(file, 'b0')).toEqual([[MiB, 65536]])
    expect(await flagsOf(file)).toEqual({ off: ['in-use'], b0: ['auto'] })
  })

  it('236: bitmaps that recorded one after the other, overlapping, become one; and cleared, none', async () => {
    const file = dir.file('236.qcow2')
    await qemuImg.create(file, 64 * MiB)
    const theirs = dir.file('236-theirs.qcow2')
    const writes = [
      ['a', ['write -q 0 512', 'write -q 0x100000 64k', 'write -q 0x2000000 64k', 'write -q 0x3fe0000 128k']],
      ['b', ['write -q 0x30000 64k', 'write -q 0x1f8000 64k', 'write -q 0x3ff0000 64k']],
      ['c', ['write -q 0xff8000 48k', 'write -q 0x2000000 1M']],
    ] as const
    for (const [name, commands] of writes) {
      await edit(file, '--add', '-g', '64k', file, name)
      await qemuIo(file, commands)
      await edit(file, '--disable', file, name)
    }
    copyFileSync(file, theirs)
    const all = ['a', 'b', 'c'].flatMap(name => ['--merge', name])
    await edit(file, '--add', '--disable', ...all, file, 'all')
    await qemuImg.bitmap('--add', '--disable', ...all, theirs, 'all')
    expect(await qemuState(file)).toEqual(await qemuState(theirs))
    // Counted once where they overlap: at 32 MiB, and at the end.
    const count = (await dirtyOf(file, 'all')).reduce((sum, [, length]) => sum + length!, 0)
    expect(count).toBe((2 + 1 + 2 + 2 + 16 + 2) * 65536)
    // Merged again nothing is more; cleared it is empty, and what it was made of is not.
    await edit(file, ...all, file, 'all')
    expect(await qemuState(file)).toEqual(await qemuState(theirs))
    await edit(file, '--clear', file, 'all')
    expect(await dirtyOf(file, 'all')).toEqual([])
    expect((await dirtyOf(file, 'a')).length).toBe(4)
  })

  it('242: an extension with more bitmaps than the directory, or none, or a directory elsewhere: left alone', async () => {
    const file = dir.file('242-hurt.qcow2')
    for (const [what, extension] of [
      ['one more', { nbBitmaps: 3 }],
      ['one less', { nbBitmaps: 1 }],
      ['a directory behind the end', { directoryOffset: 2 ** 30 }],
      ['one that is no cluster’s beginning', { directoryOffset: 65536 * 5 + 8 }],
      ['a reserved field', { reserved: 1 }],
    ] as const) {
      writeQcow2(file, {
        virtualSize: MiB,
        bitmaps: [{ name: 'a' }, { name: 'b', dirty: [1] }],
        bitmapsExtension: extension,
      })
      const before = hash(file)
      const qemu = await run('qemu-img', ['bitmap', '--remove', file, 'a'], { accept: 'any' })
      const ours = await tidemark(['bitmap', '--remove', file, 'a'])
      expect([qemu.status, ours.status], what).toEqual([1, 1])
      expect(hash(file), what).toBe(before)
    }
  })

  it('291: what is inconsistent keeps convert --bitmaps from working until it is removed', async () => {
    const file = dir.file('291-broken.qcow2')
    const copy = dir.file('291-broken-copy.qcow2')
    await qemuImg.create(file, 10 * MiB)
    await edit(file, '--add', file, 'b0')
    await edit(file, '--add', file, 'b1')
    await qemuIoCrash(file, ['write -q 0 64k'])
    await edit(file, '--add', file, 'b2')
    const convert = (...more: string[]) =>
      run('qemu-img', ['convert', '-O', 'qcow2', '--bitmaps', ...more, file, copy], { accept: 'any' })
    expect((await convert()).stderr).toContain('inconsistent bitmap')
    expect((await convert('--skip-broken-bitmaps')).status).toBe(0)
    expect(Object.keys(await qemuState(copy))).toEqual(['b2'])
    await edit(file, '--remove', file, 'b0')
    await edit(file, '--remove', file, 'b1')
    expect((await convert()).status).toBe(0)
    expect(await qemuState(copy)).toEqual(await qemuState(file))
  })

  it('303: granules in chunks, by two bitmaps of which one stops recording; as QEMU has them', async () => {
    const file = dir.file('303-chunks.qcow2')
    await qemuImg.create(file, 10 * MiB)
    await edit(file, '--add', '-g', '32k', file, 'one')
    await qemuIo(file, ['write -q 0 1M', 'write -q 3M 512'])
    await edit(file, '--disable', file, 'one')
    await edit(file, '--add', '-g', '64k', file, 'two')
    await qemuIo(file, ['write -q 2M 100k', 'write -q 10485248 512'])
    expect(await dirtyOf(file, 'one')).toEqual([
      [0, MiB],
      [3 * MiB, 32768],
    ])
    expect(await dirtyOf(file, 'two')).toEqual([
      [2 * MiB, 131072],
      [10 * MiB - 65536, 65536],
    ])
    expect(await flagsOf(file)).toEqual({ one: [], two: ['auto'] })
  })

  it('remove-bitmap-from-backing: not while a VM has an overlay open, then it goes, and the overlay does not notice', async () => {
    const base = dir.file('base.qcow2')
    const top = dir.file('top.qcow2')
    await qemuImg.create(base, MiB)
    await qemuIo(base, ['write -q -P 7 0 64k'])
    await edit(base, '--add', base, 'bitmap0')
    await qemuImg.create(top, undefined, { backing: base })
    const daemon = await StorageDaemon.start([qcow2Blockdev('disk', top)])
    const before = hash(base)
    const { status, error } = await tidemarkError(['bitmap', '--remove', base, 'bitmap0'])
    expect([status, error.code, error.use]).toEqual([1, 'image-locked', 'read'])
    expect(hash(base)).toBe(before)
    await daemon.quit()
    await edit(base, '--remove', base, 'bitmap0')
    expect(await qemuState(base)).toEqual({})
    await qemuIo(top, ['read -q -P 7 0 64k', 'read -q -P 0 64k 64k'])
  })

  it('qemu-img-close-errors: bitmaps until the disk is full: the one that does not fit fails, those before hold', async () => {
    const file = dir.file('full.qcow2')
    await qemuImg.create(file, 64 * MiB)
    const backing = dir.file('full-device')
    copyFileSync(file, backing)
    // A file that must not grow beyond 20 clusters of the image, as on a device so long.
    const limit = 20 * 65536
    truncateSync(backing, limit)
    const add = (name: string) =>
      run(
        'sh',
        [
          '-c',
          `ulimit -f ${limit / 512}; exec "$@"`,
          'sh',
          process.execPath,
          bin,
          'bitmap',
          '--add',
          '-g',
          '512',
          backing,
          name,
        ],
        {
          accept: 'any',
          env: plainEnv,
        },
      )
    const names: string[] = []
    for (;;) {
      const before = hash(backing)
      const { status, stderr } = await add(`b${names.length}`)
      if (status === 0) {
        names.push(`b${names.length}`)
        expect(names.length).toBeLessThan(20)
        continue
      }
      expect([status, stderr]).toEqual([1, expect.stringContaining('file too large')])
      expect(hash(backing)).toBe(before)
      break
    }
    expect(names.length).toBeGreaterThan(5)
    expect(Object.keys(await qemuState(backing)).sort()).toEqual(names.sort())
    expect(await qemuImg.check(backing)).toMatchObject(sound)
  })
})
