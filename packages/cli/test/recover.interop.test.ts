// tidemark bitmap --multi beside QEMU: the same bits as qemu-img bitmap; killed, interrupted, without room; and what
// QEMU does to an image between a crash and tidemark recover.
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { constants } from 'node:os'
import { type BitmapAction, editImages, type ImageEdit, type WritableStorage } from '@tidemark/qcow2'
import { createJournalFile, openWritableFile } from '@tidemark/qcow2/node'
import {
  dirtyMap,
  dirtyMaps,
  needs,
  qcow2Blockdev,
  qemuImg,
  qemuIo,
  Random,
  run,
  runSync,
  StorageDaemon,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bin, plainEnv, tidemark, tidemarkError, tidemarkJson } from './cli.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo', 'qemu-storage-daemon')
const dir = tempDir()
afterAll(() => dir.remove())
const MiB = 2 ** 20
const sound = { status: 0, corruptions: 0, leaks: 0 }
const hash = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')
const delay = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

/** Names, granularities, flags and bits of all bitmaps, as QEMU has them. */
async function qemuState(file: string): Promise<string> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const maps = await dirtyMaps(file)
  const found = (info['format-specific']?.data.bitmaps ?? []).map(each => [each, maps.get(each.name)])
  return JSON.stringify(found.sort(([a], [b]) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)))
}

describe.skipIf(peers.skip)(`what it does${peers.label}`, () => {
  it('is what qemu-img bitmap does to each image', async () => {
    const random = new Random('several')
    for (let round = 0; round < 4; round++) {
      const images: { file: string; theirs: string; args: string[][]; actions: object[] }[] = []
      for (let i = 0; i < 3; i++) {
        const file = dir.file(`same-${round}-${i}.qcow2`)
        const size = MiB * random.int(1, 64)
        await qemuImg.create(file, size)
        if (i > 0) {
          await qemuImg.bitmap('--add', '-g', String(2 ** random.int(9, 17)), file, 'cp0')
          await qemuIo(file, [`write -q ${512 * random.int(0, 100)} ${512 * random.int(1, 900)}`])
        }
        const granularity = 2 ** random.int(9, 18)
        const args = [['--add', '-g', String(granularity), 'FILE', 'cp1']]
        const actions: object[] = [{ action: 'add', name: 'cp1', granularity }]
        if (i > 0) {
          args.push(['--merge', 'cp0', 'FILE', 'cp1'], ['--disable', 'FILE', 'cp0'])
          actions.push({ action: 'merge', name: 'cp1', source: 'cp0' }, { action: 'disable', name: 'cp0' })
        }
        const theirs = `${file}.theirs`
        copyFileSync(file, theirs)
        images.push({ file, theirs, args, actions })
      }
      const input = JSON.stringify({
        images: images.map(({ file, actions }) => ({ filename: file, actions })),
      })
      expect(await tidemark(['bitmap', '--multi', '-'], { input })).toEqual({
        status: 0,
        stdout: '',
        stderr: '',
      })
      for (const { file, theirs, args } of images) {
        for (const words of args)
          await qemuImg.bitmap(...words.map(word => (word === 'FILE' ? theirs : word)))
        expect(await qemuState(file)).toBe(await qemuState(theirs))
        expect(await qemuImg.check(file)).toMatchObject(sound)
        // The mark is gone.
        expect(readFileSync(file)[88]).toBe(0)
      }
    }
  })
})

const names = ['vda', 'vdb', 'vdc']

/** Each image writes some MiB. The first has no bitmaps yet. */
function models(): void {
  const bits = 64 * 65536 * 8
  const dirty = (from: number) => Array.from({ length: 48 }, (_, i) => i * 65536 * 8 + from)
  for (const [i, name] of names.entries()) {
    const source = { name: 'cp0', granularityBits: 12, dirty: dirty(70 + i) }
    writeQcow2(dir.file(`${name}.model`), {
      virtualSize: bits * 4096,
      bitmaps: i === 0 ? [] : [source, { name: 'bystander', dirty: [1, 5] }],
    })
  }
}
const file = (name: string) => dir.file(`${name}.qcow2`)
const journal = dir.file('.vda.qcow2.tidemark-journal')
const add = { action: 'add', name: 'cp1', granularity: 4096 }
const plan = dir.file('plan.json')

function fresh(): void {
  for (const name of names) copyFileSync(dir.file(`${name}.model`), file(name))
  rmSync(journal, { force: true })
}
const state = async () => JSON.stringify(await Promise.all(names.map(name => qemuState(file(name)))))
const hashes = () => names.map(name => hash(file(name)))

function start(args: readonly string[]): { child: ChildProcess; ended: Promise<number>; stderr(): string } {
  const env: NodeJS.ProcessEnv = { ...process.env, ...plainEnv }
  const child = spawn(process.execPath, [bin, ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr!.on('data', piece => (stderr += piece))
  const ended = once(child, 'close').then(
    ([code, signal]) => code ?? 128 + constants.signals[signal as 'SIGINT'],
  )
  return { child, ended, stderr: () => stderr }
}

/** Until the journal says what it is about, or it is over. */
async function begun(child: ChildProcess): Promise<void> {
  const size = () => statSync(journal, { throwIfNoEntry: false })?.size ?? 0
  while (child.exitCode === null && child.signalCode === null && size() <= 512) {
    await new Promise(resolve => setImmediate(resolve))
  }
}

describe.skipIf(peers.skip)(`cut off${peers.label}`, () => {
  const wanted = { old: '', new: '' }
  beforeAll(async () => {
    models()
    const merge = { action: 'merge', name: 'cp1', source: 'cp0' }
    const images = names.map((name, i) => ({
      filename: file(name),
      actions: i === 0 ? [add] : [add, merge, { action: 'disable', name: 'cp0' }],
    }))
    writeFileSync(plan, JSON.stringify({ images }))
    fresh()
    wanted.old = await state()
    expect(await tidemark(['bitmap', '--multi', plan])).toMatchObject({ status: 0 })
    wanted.new = await state()
    expect(wanted.new).not.toBe(wanted.old)
  })

  /** Killed after so many milliseconds since the journal was there. */
  async function killed(milliseconds: number): Promise<boolean> {
    fresh()
    const { child, ended } = start(['bitmap', '--multi', plan])
    await begun(child)
    await delay(milliseconds)
    child.kill('SIGKILL')
    await ended
    return existsSync(journal)
  }

  async function mustBeWhole(what: string): Promise<'old' | 'new'> {
    expect(existsSync(journal), what).toBe(false)
    for (const name of names) expect(await qemuImg.check(file(name)), `${what}: ${name}`).toMatchObject(sound)
    const now = await state()
    expect([wanted.old, wanted.new], what).toContain(now)
    return now === wanted.old ? 'old' : 'new'
  }

  const rounds = process.env.CI === 'true' ? 60 : 16
  it(`SIGKILL, ${rounds} times, and recover, which is killed too at times`, async () => {
    const random = new Random('recover-kill')
    const seen = { old: 0, new: 0, recovered: 0 }
    for (let round = 0; round < rounds; round++) {
      const what = `round ${round}`
      if (await killed(random.int(0, 60))) {
        seen.recovered++
        if (random.bool(0.4)) {
          const { child, ended } = start(['recover', journal])
          await delay(random.int(60, 200))
          child.kill('SIGKILL')
          await ended
        }
        if (existsSync(journal)) {
          const dry = await tidemarkJson<{ outcome: string }>(['recover', '--dry-run', journal])
          const done = await tidemarkJson<{ outcome: string }>(['recover', journal])
          expect(done.outcome, what).toBe(dry.outcome)
        }
      }
      seen[await mustBeWhole(what)]++
    }
    expect(seen.recovered, JSON.stringify(seen)).toBeGreaterThan(3)
  })

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s: every byte as it was, or all of it done; exit status %d', async (signal, status) => {
    for (let round = 0; round < 5; round++) {
      fresh()
      const before = hashes()
      const { child, ended, stderr } = start(['bitmap', '--multi', plan])
      await begun(child)
      await delay(round * 20)
      child.kill(signal)
      const code = await ended
      expect(existsSync(journal)).toBe(false)
      if (stderr() === 'error: interrupted\n') {
        expect(code).toBe(status)
        expect(hashes()).toEqual(before)
      } else {
        expect([0, status], stderr()).toContain(code)
        expect(await mustBeWhole(`round ${round}`)).toBe('new')
      }
    }
  })

  /**
   * What a crash leaves at this moment: before the edit is decided, after that, when one image is switched. The process
   * that would have gone on is this one, and does not.
   */
  async function cutOff(moment: 'prepared' | 'decided' | 'half'): Promise<void> {
    fresh()
    const never = () => new Promise<void>(() => {})
    const { images } = JSON.parse(readFileSync(plan, 'utf8')) as {
      images: { filename: string; actions: BitmapAction[] }[]
    }
    const edits: ImageEdit[] = []
    for (const image of images) edits.push({ ...image, storage: await openWritableFile(image.filename) })
    const log = await createJournalFile(journal)
    await new Promise<void>(resolve => {
      const stop = (storage: WritableStorage): void => {
        storage.writeFrom = () => {
          resolve()
          return never()
        }
      }
      const flush = log.storage.flush.bind(log.storage)
      let flushes = 0
      log.storage.flush = async () => {
        await flush()
        flushes++
        // One for each record: that it begins, what it is about, that it is decided.
        if (flushes === 2 && moment === 'prepared') stop(log.storage)
        if (flushes === 3) stop(edits[moment === 'half' ? 1 : 0]!.storage)
      }
      void editImages(edits, { journal: async () => log })
    })
    for (const { storage } of [...edits, log]) await storage.close()
  }

  it('a VM had an image, before the edit was decided: the others go back, it is left alone', async () => {
    await cutOff('prepared')
    await qemuIo(file('vdb'), ['write -q 0 64k'])
    const { outcome, images } = await tidemarkJson<{ outcome: string; images: { found: string }[] }>([
      'recover',
      journal,
    ])
    expect([outcome, images[1]!.found]).toEqual(['rolled-back', 'changed'])
    expect((await dirtyMap(file('vdb'), 'cp0'))[0]).toMatchObject({ offset: 0, type: 1 })
    for (const name of ['vda', 'vdc']) expect(await qemuImg.check(file(name))).toMatchObject(sound)
    expect(await qemuImg.check(file('vdb'))).toMatchObject({ corruptions: 0 })
  })

  it.each([
    ['check -r leaks', () => qemuImg.check(file('vdb'), 'leaks')],
    ['a VM', () => qemuIo(file('vdb'), ['write -q 0 64k'])],
    ['another image in its place', async () => qemuImg.create(file('vdb'), MiB)],
    ['it is gone', async () => rmSync(file('vdb'))],
  ] as const)(
    'one is switched, then: %s. Nothing is touched, each is named, and by hand it ends',
    async (_, meddle) => {
      await cutOff('half')
      await meddle()
      const there = names.filter(name => existsSync(file(name)))
      const before = there.map(name => hash(file(name)))
      const { status, error } = await tidemarkError(['recover', journal])
      if (error?.code !== 'recovery-impossible') throw new Error(JSON.stringify(error))
      expect(status).toBe(1)
      for (const name of names) expect(error.message).toContain(file(name))
      expect(there.map(name => hash(file(name)))).toEqual(before)
      expect(existsSync(journal)).toBe(true)
      // What it says to do.
      for (const name of there) await run('qemu-img', ['check', '-q', '-r', 'leaks', file(name)])
      rmSync(journal)
      for (const name of there) {
        expect(await qemuImg.check(file(name))).toMatchObject(sound)
        expect(await tidemark(['bitmap', '--add', file(name), 'by-hand'])).toMatchObject({ status: 0 })
      }
    },
  )

  it('an image is a link to another by now: it is told, and nothing is touched', async () => {
    await cutOff('decided')
    rmSync(file('vdb'))
    symlinkSync(file('vdc'), file('vdb'))
    const before = hashes()
    for (const more of [[], ['--dry-run']]) {
      const { status, error } = await tidemarkError(['recover', ...more, journal])
      expect([status, error.code], error.message).toEqual([1, 'journal-invalid'])
      expect(error.message).toContain(`${file('vdb')} and ${file('vdc')} are one and the same file`)
    }
    expect(hashes()).toEqual(before)
    rmSync(file('vdb'))
    copyFileSync(dir.file('vdb.model'), file('vdb'))
    expect(await tidemark(['recover', journal])).toMatchObject({ status: 0 })
    expect(await mustBeWhole('afterwards')).toBe('old')
  })

  it('a VM has an image now: it is refused, and nothing is touched', async () => {
    await cutOff('decided')
    const daemon = await StorageDaemon.start([{ ...qcow2Blockdev('disk', file('vdc')), 'read-only': true }])
    try {
      const before = hashes()
      const { status, error } = await tidemarkError(['recover', journal])
      expect([status, error.code]).toEqual([1, 'image-locked'])
      expect(hashes()).toEqual(before)
    } finally {
      await daemon.quit()
    }
    expect(await tidemark(['recover', journal])).toMatchObject({ status: 0 })
    expect(await mustBeWhole('afterwards')).toBe('new')
  })

  it('while it goes on, recover and another edit are refused', async () => {
    fresh()
    const { child, ended } = start(['bitmap', '--multi', plan])
    await begun(child)
    child.kill('SIGSTOP')
    try {
      if (existsSync(journal)) {
        for (const args of [
          ['recover', journal],
          ['bitmap', '--multi', plan, '--journal', dir.file('other')],
          ['bitmap', '--add', file('vdc'), 'x'],
        ]) {
          const { status, error } = await tidemarkError(args)
          expect([status, error.code], args.join(' ')).toEqual([1, 'image-locked'])
        }
        expect(existsSync(dir.file('other'))).toBe(false)
      }
    } finally {
      child.kill('SIGCONT')
    }
    expect(await ended).toBe(0)
    expect(await mustBeWhole('in the end')).toBe('new')
  })
})

const small = dir.file('small')
const mounted =
  process.getuid?.() === 0 &&
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
    it('the last image has no room: all of them are as they were, and there is no journal', async () => {
      const roomy = dir.file('roomy.qcow2')
      const full = `${small}/full.qcow2`
      for (const image of [roomy, full]) {
        await qemuImg.create(image, '64G')
        await qemuImg.bitmap('--add', '-g', '4k', image, 'b0')
        await qemuIo(
          image,
          Array.from({ length: 10 }, (_, i) => `write -q -z ${i * 4}G 64k`),
        )
      }
      const actions = [add, { action: 'merge', name: 'cp1', source: 'b0' }]
      const input = JSON.stringify({ images: [roomy, full].map(filename => ({ filename, actions })) })
      const left = runSync('df', ['--output=avail', '-B1', small]).stdout.trim().split('\n')[1]
      writeFileSync(`${small}/rest`, Buffer.alloc(Number(left) - 2 * 65536, 1))
      const before = [roomy, full].map(hash)
      for (const journal of [dir.file('j'), `${small}/j`]) {
        const args = ['bitmap', '--multi', '-', '--journal', journal]
        const { status, error } = await tidemarkError(args, { input })
        expect([status, error.code], error.message).toEqual([1, 'no-space'])
        expect([roomy, full].map(hash)).toEqual(before)
        expect(existsSync(journal)).toBe(false)
      }
      runSync('rm', [`${small}/rest`])
      expect(await tidemark(['bitmap', '--multi', '-'], { input })).toMatchObject({ status: 0 })
      for (const image of [roomy, full]) {
        expect(await qemuImg.check(image)).toMatchObject(sound)
        expect(await dirtyMap(image, 'cp1')).toEqual(await dirtyMap(image, 'b0'))
      }
    })
  },
)
