// tidemark bitmap, killed or failed at each single call that changes the image or makes it last (strace), and on a file
// system whose writes fail (nbdkit through FUSE).
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import {
  changingCalls,
  dirtyMaps,
  everyCall,
  flushingCalls,
  needs,
  qemuImg,
  qemuIo,
  run,
  runSync,
  strace,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bin, plainEnv, tidemark, tidemarkError } from './cli.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo', 'strace')
const dir = tempDir()
afterAll(() => dir.remove())

const hash = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')

/** All bitmaps in terms of QEMU: names, flags, bits. */
async function state(file: string): Promise<string> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const maps = await dirtyMaps(file)
  const bitmaps = info['format-specific']!.data.bitmaps ?? []
  return JSON.stringify(bitmaps.map(({ name, flags }) => [name, flags, maps.get(name)]))
}

/** Four bitmaps of two clusters with bits each, and an image without any. */
async function makeImages(image: string, none: string): Promise<void> {
  await qemuImg.create(none, '64G')
  copyFileSync(none, image)
  for (const name of ['touched', 'source', 'other', 'third']) {
    await qemuImg.bitmap('--add', '-g', '64k', image, name)
    await qemuIo(image, [`write -q -z ${name.length}M 1M`, `write -q -z ${40 + name.length}G 64k`])
    await qemuImg.bitmap('--disable', image, name)
  }
}

const edits: [what: string, from: 'image' | 'none', args: string[]][] = [
  ['add', 'image', ['--add', 'FILE', 'new']],
  ['the first one', 'none', ['--add', 'FILE', 'new']],
  ['clear', 'image', ['--clear', 'FILE', 'touched']],
  ['remove', 'image', ['--remove', 'FILE', 'touched']],
  ['merge', 'image', ['--merge', 'source', 'FILE', 'touched']],
]

describe.skipIf(peers.skip)(`at each call that it makes${peers.label}`, () => {
  const models = { image: dir.file('image.qcow2'), none: dir.file('none.qcow2') }
  const file = dir.file('victim.qcow2')
  beforeAll(() => makeImages(models.image, models.none))

  describe.each(edits)('%s', (_, from, args) => {
    const model = models[from]
    const command = [process.execPath, bin, 'bitmap', ...args.map(arg => (arg === 'FILE' ? file : arg))]
    const fresh = (inject?: Parameters<typeof strace>[2]) => {
      copyFileSync(model, file)
      return strace(command, file, { ...inject, env: plainEnv })
    }
    let calls: Awaited<ReturnType<typeof strace>>['calls']
    let wanted: { old: string; new: string; bytes: string }
    beforeAll(async () => {
      const whole = await fresh()
      expect(whole.status, whole.stderr).toBe(0)
      calls = whole.calls
      wanted = { old: await state(model), new: await state(file), bytes: hash(model) }
      // Such as there must be: new clusters, the switch, what is released; a flush after each.
      expect(wanted.old).not.toBe(wanted.new)
      expect(calls.filter(call => call === 'pwrite64').length).toBeGreaterThan(2)
      expect(calls.filter(call => call === 'fdatasync' || call === 'fsync').length).toBeGreaterThan(1)
    })

    it('killed: the old bitmaps or the new ones, no corruption', async () => {
      const seen = { old: 0, new: 0 }
      for (const inject of everyCall(calls, [...changingCalls, ...flushingCalls], 'signal=SIGKILL')) {
        const what = `${inject.call} ${inject.nth}`
        expect((await fresh({ inject })).signal, what).toBe('SIGKILL')
        expect(await qemuImg.check(file), what).toMatchObject({ corruptions: 0, 'check-errors': 0 })
        const now = await state(file)
        expect([wanted.old, wanted.new], what).toContain(now)
        seen[now === wanted.old ? 'old' : 'new']++
      }
      expect(seen.old).toBeGreaterThan(2)
      expect(seen.new).toBeGreaterThan(0)
    })

    it.each(['error=ENOSPC', 'error=EIO', 'retval=0'] as const)(
      'failed, %s: every byte as before, or done and told so',
      async what => {
        let undone = 0
        for (const inject of everyCall(calls, ['pwrite64', 'ftruncate'], what)) {
          // A change of size that does nothing and says that all is well is none of a kernel's.
          if (inject.call === 'ftruncate' && what === 'retval=0') continue
          const { status, stderr } = await fresh({ inject })
          const which = `${inject.call} ${inject.nth}: ${stderr}`
          expect(status, which).toBe(1)
          expect(stderr, which).toMatch(/^error: /)
          if (stderr.includes('the bitmaps are changed all the same')) {
            expect(await state(file), which).toBe(wanted.new)
            continue
          }
          expect(hash(file), which).toBe(wanted.bytes)
          undone++
        }
        expect(undone).toBeGreaterThan(2)
      },
    )

    it('a flush that fails: told, nothing more is written, the old bitmaps or the new ones', async () => {
      for (const inject of everyCall(calls, flushingCalls, 'error=EIO')) {
        const { status, stderr, calls: made } = await fresh({ inject })
        const which = `${inject.call} ${inject.nth}: ${stderr}`
        expect(status, which).toBe(1)
        expect(stderr, which).toMatch(/^error: .*flush failed/)
        const failed = calls.flatMap((each, i) => (each === inject.call ? [i] : []))[inject.nth - 1]!
        expect(made, which).toEqual(calls.slice(0, failed + 1))
        expect(await qemuImg.check(file), which).toMatchObject({ corruptions: 0, 'check-errors': 0 })
        expect([wanted.old, wanted.new], which).toContain(await state(file))
      }
    })
  })
})

describe.skipIf(peers.skip)(`a write that is cut short${peers.label}`, () => {
  it('by a limit of the file’s length, anywhere in what it writes: every byte as before, or all of it done', async () => {
    const model = dir.file('long.qcow2')
    const file = dir.file('limited.qcow2')
    await makeImages(model, dir.file('none-three.qcow2'))
    const end = statSync(model).size
    // Longer than it need be, so that it does not have to grow.
    await run('truncate', ['-s', '+1M', model])
    const seen = { short: 0, done: 0 }
    // In units of 512 bytes, from one to the next by no whole clusters, so that all parts of them come.
    for (let limit = 300; seen.done < 2; limit += 331) {
      expect(limit * 512).toBeLessThan(end + 2 ** 20)
      copyFileSync(model, file)
      const words = [process.execPath, bin, 'bitmap', '--add', '--merge', 'source', file, 'new']
      const { status, stderr } = await run('sh', ['-c', `ulimit -f ${limit}; exec "$@"`, 'sh', ...words], {
        accept: 'any',
        env: plainEnv,
      })
      if (status === 0) {
        expect(await qemuImg.check(file)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
        seen.done++
        continue
      }
      expect([status, stderr], String(limit)).toEqual([1, expect.stringContaining('file too large')])
      expect(hash(file), String(limit)).toBe(hash(model))
      seen.short++
    }
    expect(seen.short).toBeGreaterThan(3)
  })
})

/** Needs the right to mount, which is tried; what fails here is failed call by call above, with strace alone. */
const fuse = needs('nbdkit', 'nbdfuse')
const mayMount = !fuse.skip && mounts(dir.file('tried'))

function mounts(file: string): boolean {
  writeFileSync(file, '')
  const script = `nbdfuse "$1" --command nbdkit -s --exit-with-parent memory 1M & fuse=$!
    for i in $(seq 100); do [ "$(stat -c %s "$1")" -gt 0 ] && exec umount "$1"; sleep 0.02; done
    kill $fuse; exit 1`
  return runSync('sh', ['-c', script, 'sh', file], { accept: 'any' }).status === 0
}

describe.skipIf(peers.skip || fuse.skip || !mayMount)(
  `on a file system whose writes fail${mayMount ? fuse.label : ' [skipped: needs FUSE and the right to mount]'}`,
  () => {
    const model = dir.file('model.qcow2')
    const behind = dir.file('behind.qcow2')
    const file = dir.file('mounted.qcow2')
    const args = ['bitmap', '--add', '--merge', 'source', file, 'new']
    let old: string
    beforeAll(async () => {
      await makeImages(model, dir.file('none-too.qcow2'))
      // What is mounted keeps its length: free clusters behind the last one.
      await run('truncate', ['-s', '+2M', model])
      old = await state(model)
    })

    /** The image as a file whose writes fail as these options of nbdkit's error filter say. */
    async function mounted<T>(options: readonly string[], use: () => Promise<T>): Promise<T> {
      copyFileSync(model, behind)
      writeFileSync(file, '')
      const server = ['nbdkit', '-s', '--exit-with-parent', '--filter=error', 'file', `file=${behind}`]
      const child = spawn('nbdfuse', [file, '--command', ...server, ...options], { stdio: 'ignore' })
      const ended = once(child, 'close')
      try {
        for (let tries = 0; statSync(file).size === 0; tries++) {
          if (tries > 400 || child.exitCode !== null) throw new Error('nbdfuse did not mount')
          await new Promise(resolve => setTimeout(resolve, 10))
        }
        return await use()
      } finally {
        if (runSync('umount', [file], { accept: 'any' }).status !== 0) child.kill()
        await ended
      }
    }

    it('works there where none fails', async () => {
      expect(await mounted([], () => tidemark(args))).toMatchObject({ status: 0 })
      expect(await qemuImg.check(behind)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
      expect((await dirtyMaps(behind)).get('new')).toEqual((await dirtyMaps(behind)).get('source'))
    })

    it.each([
      ['ENOSPC', 'no-space'],
      ['EIO', 'write-failed'],
    ])('every write fails, %s: exit status 1, every byte as before', async (errno, code) => {
      const options = [`error-pwrite=${errno}`, 'error-pwrite-rate=100%']
      const { status, error } = await mounted(options, () => tidemarkError(args))
      expect([status, error.code], error.message).toEqual([1, code])
      expect(hash(behind)).toBe(hash(model))
    })

    it('some writes fail, those that put things back too: the old bitmaps or the new ones, leaks at worst', async () => {
      const seen = { untouched: 0, old: 0, new: 0 }
      for (let round = 0; round < 9; round++) {
        const rate = [3, 10, 30][round % 3]
        const { status, stderr } = await mounted([`error-pwrite-rate=${rate}%`], () => tidemark(args))
        expect(await qemuImg.check(behind), stderr).toMatchObject({ corruptions: 0, 'check-errors': 0 })
        const now = await state(behind)
        if (status === 0 || stderr.includes('the bitmaps are changed all the same')) {
          expect(now, stderr).not.toBe(old)
          expect((await dirtyMaps(behind)).get('new')).toEqual((await dirtyMaps(behind)).get('source'))
          seen.new++
          continue
        }
        expect([status, now], stderr).toEqual([1, old])
        expect(stderr).toMatch(/^error: .*failed/)
        seen[hash(behind) === hash(model) ? 'untouched' : 'old']++
      }
      expect(seen.untouched + seen.old, JSON.stringify(seen)).toBeGreaterThan(0)
    })
  },
)
