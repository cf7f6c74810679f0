// tidemark bitmap beside qemu-img bitmap: the same arguments do the same, and QEMU is at home in what comes out.
import { createHash } from 'node:crypto'
import { copyFileSync, readFileSync, statSync } from 'node:fs'
import {
  dirtyMap,
  dirtyMaps,
  makeRandomImage,
  needs,
  qemuImg,
  qemuIo,
  qemuIoCrash,
  Random,
  run,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError } from './cli.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
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

/** Must succeed, and leave an image that QEMU finds nothing wrong with. */
async function edit(file: string, ...args: string[]): Promise<void> {
  expect(await tidemark(['bitmap', ...args]), args.join(' ')).toEqual({ status: 0, stdout: '', stderr: '' })
  expect(await qemuImg.check(file), args.join(' ')).toMatchObject(sound)
}

interface CommandLine {
  /** FILE and OTHER stand for the images. */
  readonly args: readonly string[]
}

/** Mostly such as can be done. */
function randomLine(random: Random, names: readonly string[], others: readonly string[]): CommandLine {
  const adds = names.length === 0 || random.bool(0.35)
  const name = adds ? `new-${random.int(0, 1e6)}` : random.pick(names)
  const fromOther = others.length > 0 && random.bool(0.3)
  const sources = fromOther ? others : [...names, name]
  const options: string[][] = []
  if (adds) options.push(random.bool(0.4) ? ['--add', '-g', granularity()] : ['--add'])
  let merges = false
  for (let i = random.int(adds ? 0 : 1, 4); i > 0; i--) {
    const action = random.pick(['clear', 'enable', 'disable', 'merge', 'merge', 'merge', 'remove', 'add'])
    // These two seldom: what follows fails then, or they themselves do.
    if ((action === 'remove' || action === 'add') && !random.bool(0.2)) continue
    if (action === 'merge') {
      merges = true
      const source = random.bool(0.95) ? random.pick(sources) : 'nobody'
      options.push(random.bool() ? ['--merge', source] : [`--merge=${source}`])
    } else options.push([`--${action}`])
  }
  if (fromOther && (merges || random.bool(0.2))) {
    options.splice(
      random.int(0, options.length),
      0,
      random.bool() ? ['-b', 'OTHER', '-F', 'qcow2'] : ['-bOTHER'],
    )
  } else if (random.bool(0.03)) options.push(['-F', 'qcow2'])
  if (!adds && random.bool(0.05)) options.push(['-g', '64k'])
  if (random.bool(0.2)) options.unshift(['-f', 'qcow2'])
  if (random.bool(0.03)) options.push(['-q'])
  const positional = random.bool(0.97) ? ['FILE', name] : ['FILE']
  // Options may stand behind the names, but for a name that looks like one.
  const behind = !name.startsWith('-') && random.bool(0.25)
  const words = options.flat()
  return { args: behind ? [...positional, ...words] : [...words, '--', ...positional] }

  function granularity(): string {
    return random.bool(0.1)
      ? random.pick(['3k', '256', '4G', '0'])
      : random.pick(['512', '4k', '64k', '0x20000', '1M', '0.5M', '2G'])
  }
}

describe.skipIf(peers.skip)(`the same arguments as qemu-img bitmap${peers.label}`, () => {
  const images = 30
  const lines = 5
  it.each([0, 1, 2])('random command lines, part %d', async part => {
    let done = 0
    let refused = 0
    for (let seed = part; seed < images; seed += 3) {
      const random = new Random(`bitmap-cli-${seed}`)
      const { file, size } = await makeRandomImage(`cli-${seed}`, dir.path)
      const other = dir.file(`other-${seed}.qcow2`)
      await qemuImg.create(other, size)
      await qemuImg.bitmap('--add', '-g', String(2 ** random.int(9, 17)), other, 'o1')
      await qemuIo(other, [`write -q 0 ${Math.min(512 * random.int(1, 300), size)}`])
      await qemuImg.bitmap('--add', '--disable', other, 'o2')
      const theirs = dir.file('theirs.qcow2')
      for (let i = 0; i < lines; i++) {
        copyFileSync(file, theirs)
        const names = Object.keys(await qemuState(file))
        const { args } = randomLine(random, names, ['o1', 'o2'])
        const what = `seed ${seed}, line ${i}: ${args.map(arg => arg.slice(0, 40)).join(' ')}`
        const words = (image: string) =>
          args.map(arg => (arg === 'FILE' ? image : arg.replace(/^(-b)?OTHER$/, `$1${other}`)))
        const before = hash(file)
        const ours = await tidemark(['bitmap', ...words(file)])
        const qemu = await run('qemu-img', ['bitmap', ...words(theirs)], { accept: 'any' })
        expect(ours.status === 0, `${what}\n${ours.stderr}${qemu.stderr}`).toBe(qemu.status === 0)
        if (ours.status !== 0) {
          refused++
          expect(hash(file), what).toBe(before)
          continue
        }
        done++
        expect(await qemuImg.check(file), what).toMatchObject(sound)
        expect(await qemuState(file), what).toEqual(await qemuState(theirs))
      }
    }
    // So that neither kind is missing.
    expect(done).toBeGreaterThan(20)
    expect(refused).toBeGreaterThan(3)
  })
})

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
})
