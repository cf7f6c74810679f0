// tidemark bitmap beside qemu-img bitmap: the same arguments do the same, and QEMU is at home in what comes out.
import { createHash } from 'node:crypto'
import { copyFileSync, readFileSync } from 'node:fs'
import { dirtyMaps, makeRandomImage, needs, qemuImg, qemuIo, Random, run, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { tidemark } from './cli.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())

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
