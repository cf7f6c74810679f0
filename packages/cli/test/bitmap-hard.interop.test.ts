// tidemark bitmap where things go wrong: interrupted, no room, a VM that has the image, or wants it.
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import {
  type DirtyExtent,
  dirtyMap,
  needs,
  qcow2Blockdev,
  qemuImg,
  qemuIo,
  run,
  runSync,
  StorageDaemon,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { largeImage, start, writing } from './running.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo', 'qemu-storage-daemon')
const dir = tempDir()
afterAll(() => dir.remove())
const MiB = 2 ** 20

const hash = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')
const delay = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

const merge = (file: string) => ['bitmap', '--merge', 'source', '--disable', file, 'target']

/** Of everything, in terms of QEMU. */
async function state(file: string): Promise<string> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const found: [string, string[], DirtyExtent[]][] = []
  for (const { name, flags } of info['format-specific']!.data.bitmaps!) {
    found.push([name, flags, flags.includes('in-use') ? [] : await dirtyMap(file, name)])
  }
  return createHash('sha256').update(JSON.stringify(found)).digest('hex')
}

describe.skipIf(peers.skip)(`in the middle of it${peers.label}`, () => {
  const model = dir.file('model.qcow2')
  const file = dir.file('victim.qcow2')
  let size = 0
  let wanted: { old: string; new: string }
  beforeAll(async () => {
    largeImage(model)
    size = statSync(model).size
    copyFileSync(model, file)
    expect(await tidemark(merge(file))).toMatchObject({ status: 0 })
    wanted = { old: await state(model), new: await state(file) }
    expect(wanted.old).not.toBe(wanted.new)
  })

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    '%s: the old state, every byte of it, or the new one; exit status %d',
    async (signal, status) => {
      const before = hash(model)
      for (let round = 0; round < 6; round++) {
        copyFileSync(model, file)
        const { child, ended, stderr } = start(merge(file))
        const began = await writing(file, size, child)
        // Stopped, so that it cannot be over before the signal comes; in later rounds it may be.
        if (round > 2) await delay(round * 3)
        else child.kill('SIGSTOP')
        child.kill(signal)
        child.kill('SIGCONT')
        const code = await ended
        const told = stderr()
        if (told === 'error: interrupted\n') {
          expect(code).toBe(status)
          expect(hash(file)).toBe(before)
          continue
        }
        // Where Node was ending already the signal ends it, and nothing is told.
        if (told !== '') expect(told).toBe('warning: the signal came too late: all of it is done\n')
        expect([0, status], `${began} ${told}`).toContain(code)
        expect(await state(file), `${began} ${code} ${told}`).toBe(wanted.new)
      }
    },
  )

  it('meanwhile qemu-img does not get the image, and when it is done it does', async () => {
    for (let attempt = 0; ; attempt++) {
      copyFileSync(model, file)
      const { child, ended } = start(merge(file))
      const began = await writing(file, size, child)
      child.kill('SIGSTOP')
      if (!began || child.exitCode !== null) {
        expect(attempt, 'always over before it could be stopped').toBeLessThan(20)
        continue
      }
      try {
        const qemu = await run('qemu-img', ['bitmap', '--add', file, 'b'], { accept: 'any' })
        expect(qemu.status).toBe(1)
        expect(qemu.stderr).toContain('lock')
        const { status, error } = await tidemarkError(['bitmap', '--add', file, 'b'])
        expect([status, error.code]).toEqual([1, 'image-locked'])
      } finally {
        child.kill('SIGCONT')
      }
      expect(await ended).toBe(0)
      expect(await state(file)).toBe(wanted.new)
      await qemuImg.bitmap('--add', file, 'b')
      return
    }
  })
})

describe.skipIf(peers.skip)(`the image that is merged from${peers.label}`, () => {
  it('meanwhile nobody gets it for writing, QEMU or ours; who reads does', async () => {
    const source = dir.file('source.qcow2')
    const pristine = dir.file('pristine.qcow2')
    const file = dir.file('into.qcow2')
    largeImage(source)
    writeQcow2(pristine, {
      virtualSize: (await qemuImg.info(source))['virtual-size'],
      bitmaps: [{ name: 'target', granularityBits: 12 }],
    })
    const { size } = statSync(pristine)
    const args = ['bitmap', '--merge', 'source', '-b', source, file, 'target']
    for (let attempt = 0; ; attempt++) {
      copyFileSync(pristine, file)
      const { child, ended } = start(args)
      const began = await writing(file, size, child)
      child.kill('SIGSTOP')
      if (!began || child.exitCode !== null) {
        expect(attempt, 'always over before it could be stopped').toBeLessThan(20)
        continue
      }
      try {
        const qemu = await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', source], { accept: 'any' })
        expect(qemu.stderr).toContain('Failed to get "write" lock')
        await expect(StorageDaemon.start([qcow2Blockdev('disk', source)])).rejects.toThrow('"write" lock')
        const { status, error } = await tidemarkError(['bitmap', '--clear', source, 'source'])
        expect([status, error.code, error.use]).toEqual([1, 'image-locked', 'read'])
        // Readers: QEMU's, and one more merge from it.
        expect((await qemuImg.check(source)).status).toBe(0)
        const other = dir.file('into-too.qcow2')
        copyFileSync(pristine, other)
        expect(await tidemark([...args.slice(0, -2), other, 'target'])).toMatchObject({ status: 0 })
      } finally {
        child.kill('SIGCONT')
      }
      expect(await ended).toBe(0)
      expect(await dirtyMap(file, 'target')).toEqual(await dirtyMap(source, 'source'))
      await qemuIo(source, ['write -q 0 512'])
      return
    }
  })
})

describe.skipIf(peers.skip)(`a VM has the image${peers.label}`, () => {
  it('it is refused, as is its bitmap for a merge; a dry run only with -U', async () => {
    const file = dir.file('held.qcow2')
    const free = dir.file('free.qcow2')
    for (const image of [file, free]) {
      await qemuImg.create(image, MiB)
      await qemuImg.bitmap('--add', image, 'b0')
    }
    const daemon = await StorageDaemon.start([qcow2Blockdev('disk', file)])
    try {
      const before = [file, free].map(hash)
      for (const args of [
        ['--add', file, 'b1'],
        ['--dry-run', '--add', file, 'b1'],
        ['--add', '--merge', 'b0', '-b', file, free, 'b1'],
        ['--unsafe-no-lock', '--add', file, 'b1'],
      ]) {
        const { status, error } = await tidemarkError(['bitmap', ...args])
        expect([status, error.code], args.join(' ')).toEqual([1, 'image-locked'])
        expect(error.message).toContain(file)
      }
      const planned = await tidemark(['bitmap', '--dry-run', '-U', '--add', file, 'b1'])
      expect(planned.status, planned.stderr).toBe(0)
      expect(planned.stderr).toMatch(/^warning: .* is in use by a writer/)
      expect([file, free].map(hash)).toEqual(before)
    } finally {
      await daemon.quit()
    }
    expect(await tidemark(['bitmap', '--add', '--merge', 'b0', file, 'b1'])).toMatchObject({ status: 0 })
  })
})

const root = process.getuid?.() === 0
const small = dir.file('small')
const mounted =
  root &&
  (() => {
    mkdirSync(small)
    return runSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'none', small], { accept: 'any' }).status === 0
  })()
afterAll(() => {
  if (mounted) runSync('umount', ['-l', small], { accept: 'any' })
})
describe.skipIf(peers.skip || !mounted)(
  `a full disk${mounted ? peers.label : ' [skipped: needs root, and the right to mount]'}`,
  () => {
    it('nothing is changed, and it is told', async () => {
      const file = `${small}/full.qcow2`
      await qemuImg.create(file, '64G')
      await qemuImg.bitmap('--add', '-g', '4k', file, 'b0')
      await qemuImg.bitmap('--add', '-g', '4k', file, 'b1')
      // Ten clusters of bits.
      await qemuIo(
        file,
        Array.from({ length: 10 }, (_, i) => `write -q -z ${i * 4}G 64k`),
      )
      const before = hash(file)
      // All that is left but for some pages.
      const left = runSync('df', ['--output=avail', '-B1', small]).stdout.trim().split('\n')[1]
      writeFileSync(`${small}/rest`, Buffer.alloc(Number(left) - 2 * 65536, 1))
      const args = ['bitmap', '--add', '-g', '4k', '--merge', 'b0', file, 'more']
      const { status, error } = await tidemarkError(args)
      expect([status, error.code], error.message).toEqual([1, 'no-space'])
      expect(hash(file)).toBe(before)
      expect(await qemuImg.check(file)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
      runSync('rm', [`${small}/rest`])
      expect(await tidemark(args)).toMatchObject({ status: 0 })
      expect(await dirtyMap(file, 'more')).toEqual(await dirtyMap(file, 'b0'))
    })
  },
)

const loop = root ? runSync('sh', ['-c', 'command -v losetup && losetup -f'], { accept: 'any' }).status : 1
describe.skipIf(peers.skip || loop !== 0)(
  `an image on a block device${loop === 0 ? peers.label : ' [skipped: needs root and a loop device]'}`,
  () => {
    it('is edited in place, and where the device has no room left alone', async () => {
      const backend = dir.file('backend')
      await qemuImg.create(backend, '1G')
      await qemuImg.bitmap('--add', backend, 'b0')
      await qemuIo(backend, ['write -q -z 0 1M'])
      const imageBytes = Math.ceil(statSync(backend).size / 65536) * 65536
      await run('truncate', ['-s', String(imageBytes + 4 * 65536), backend])
      const device = (await run('losetup', ['-f', '--show', backend])).stdout.trim()
      try {
        expect(await tidemark(['bitmap', '--add', '--merge', 'b0', device, 'b1'])).toEqual({
          status: 0,
          stdout: '',
          stderr: '',
        })
        expect(await qemuImg.check(device)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
        expect(await dirtyMap(device, 'b1')).toEqual(await dirtyMap(device, 'b0'))
        const before = hash(device)
        for (const more of [[], ['--dry-run']]) {
          const many = ['1', '2', '3', '4', '5', '6', '7'].flatMap(name => ['--add', '--rename', name])
          const args = ['bitmap', ...more, ...many, device, 'y']
          const { status, error } = await tidemarkError(args)
          expect([status, error.code], error.message).toEqual([1, 'no-space'])
        }
        await run('sync', [])
        expect(hash(device)).toBe(before)
        expect(await tidemark(['bitmap', '--remove', device, 'b0'])).toMatchObject({ status: 0 })
        expect(await qemuImg.check(device)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
      } finally {
        await run('losetup', ['-d', device])
      }
    })

    it('has no journal beside it, in /dev, which a crash does not leave', async () => {
      const [backend, file] = [dir.file('backend-2'), dir.file('file.qcow2')]
      for (const each of [backend, file]) await qemuImg.create(each, '1G')
      await run('truncate', ['-s', '8M', backend])
      const device = (await run('losetup', ['-f', '--show', backend])).stdout.trim()
      try {
        const input = (...filenames: string[]) => ({
          input: JSON.stringify({
            images: filenames.map(filename => ({ filename, actions: [{ action: 'add', name: 'b' }] })),
          }),
        })
        const args = ['bitmap', '--multi', '-']
        for (const more of [[], ['--dry-run']]) {
          const { status, error } = await tidemarkError([...args, ...more], input(device))
          expect([status, error.code], error.message).toEqual([1, 'journal-place-needed'])
          expect(error.message).toContain('--journal')
        }
        expect(await tidemarkJson(args, input(device, file))).toMatchObject({
          journal: dir.file('.file.qcow2.tidemark-journal'),
          images: [{ filename: device }, { filename: file }],
        })
        const remove = { images: [{ filename: device, actions: [{ action: 'remove', name: 'b' }] }] }
        expect(
          await tidemark([...args, '--journal', dir.file('j')], { input: JSON.stringify(remove) }),
        ).toMatchObject({ status: 0 })
        expect(await qemuImg.check(device)).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
      } finally {
        await run('losetup', ['-d', device])
      }
    })
  },
)
