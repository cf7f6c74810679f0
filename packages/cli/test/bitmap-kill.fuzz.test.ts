// tidemark bitmap, killed at random moments: QEMU opens the image, finds no corruption, and its bitmaps are as before or
// as they were to be.
//
// TIDEMARK_LONG=MINUTES goes on for so long, from a seed of its own.
import { createHash } from 'node:crypto'
import { copyFileSync, statSync } from 'node:fs'
import { dirtyMaps, needs, qemuImg, Random, tempDir, writeQcow2 } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark } from './cli.js'
import { largeImage, start, writing } from './running.js'

const minutes = Number(process.env.TIDEMARK_LONG ?? 0)
const rounds = process.env.CI === 'true' ? 200 : 40
const seed = minutes > 0 ? `long ${Date.now()}` : 'short'
/** At a time: where one waits, another one runs. */
const AT_ONCE = 3

const peers = needs('qemu-img', 'qemu-nbd', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())

/** Of everything, in terms of QEMU. */
async function state(file: string): Promise<string> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const maps = await dirtyMaps(file)
  const found = (info['format-specific']!.data.bitmaps ?? []).map(each => [each, maps.get(each.name)])
  return createHash('sha256').update(JSON.stringify(found)).digest('hex')
}

const models = {
  large: dir.file('large.qcow2'),
  none: dir.file('none.qcow2'),
  overlay: dir.file('overlay.qcow2'),
  one: dir.file('one.qcow2'),
}

/** All of it is done, or nothing of it. */
const edits: readonly (readonly [model: keyof typeof models, name: string, args: readonly string[]])[] = [
  ['large', 'target', ['--merge', 'source', '--disable']],
  ['large', 'target', ['--merge', 'source', '--rename', 'merged']],
  ['large', 'target', ['--clear']],
  ['large', 'source', ['--remove']],
  ['large', 'new', ['--add', '-g', '4k', '--merge', 'source', '--merge', 'target']],
  ['none', 'first', ['--add', '--disable']],
  ['overlay', 'first', ['--add']],
  ['one', 'last', ['--remove']],
]

interface Prepared {
  readonly model: string
  readonly size: number
  readonly args: (file: string) => string[]
  readonly old: string
  readonly new: string
  /** Milliseconds that it takes. */
  readonly duration: number
}

describe.skipIf(peers.skip)(
  `killed at random moments, seed '${seed}'${peers.label}`,
  { timeout: 600_000 + minutes * 60_000 },
  () => {
    const prepared: Prepared[] = []
    beforeAll(async () => {
      largeImage(models.large)
      await qemuImg.create(models.none, '1G')
      await qemuImg.create(models.overlay, undefined, { backing: models.none })
      writeQcow2(models.one, { virtualSize: 2 ** 30, bitmaps: [{ name: 'last', dirty: [1, 9] }] })
      for (const [i, [model, name, words]] of edits.entries()) {
        const file = dir.file(`whole-${i}.qcow2`)
        const args = (image: string) => ['bitmap', ...words, image, name]
        copyFileSync(models[model], file)
        const begun = Date.now()
        expect(await tidemark(args(file))).toMatchObject({ status: 0 })
        const duration = Date.now() - begun
        const [old, after] = [await state(models[model]), await state(file)]
        expect(old).not.toBe(after)
        const { size } = statSync(models[model])
        prepared.push({ model: models[model], size, args, old, new: after, duration })
      }
    })

    const seen = { rounds: 0, old: 0, new: 0, leaking: 0 }

    async function round(label: string, file: string): Promise<void> {
      const random = new Random(label)
      const { model, size, args, old, new: after, duration } = random.pick(prepared)
      const what = `${label}: ${args('FILE').join(' ')}`
      copyFileSync(model, file)
      const { child, ended } = start(args(file))
      // Most of them once it writes, where it matters; the others whenever.
      if (random.bool(0.7) && (await writing(file, size, child))) await delay(random.int(0, 40))
      else await delay(random.int(0, Math.ceil(duration * 1.2)))
      child.kill('SIGKILL')
      await ended
      const check = await qemuImg.check(file)
      expect(check, what).toMatchObject({ corruptions: 0, 'check-errors': 0 })
      const now = await state(file)
      expect([old, after], what).toContain(now)
      seen.rounds++
      if (check.leaks > 0) seen.leaking++
      seen[now === old ? 'old' : 'new']++
      // And it is done where it was not, by the same call.
      if (now !== old || !random.bool(0.1)) return
      expect(await tidemark(args(file)), what).toMatchObject({ status: 0 })
      expect(await state(file), what).toBe(after)
    }

    it(`${minutes > 0 ? `for ${minutes} minutes` : `${rounds} times`}: the bitmaps are old or new`, async () => {
      const end = Date.now() + minutes * 60_000
      let next = 0
      const goesOn = () => (minutes > 0 ? Date.now() < end : next < rounds)
      const worker = async (_: unknown, i: number) => {
        while (goesOn()) await round(`${seed} ${next++}`, dir.file(`victim-${i}.qcow2`))
      }
      await Promise.all(Array.from({ length: AT_ONCE }, worker))
      if (minutes > 0) console.log(JSON.stringify(seen))
      expect(seen.old, JSON.stringify(seen)).toBeGreaterThan(rounds / 20)
      expect(seen.new, JSON.stringify(seen)).toBeGreaterThan(0)
    })
  },
)

const delay = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))
