// Locks among several of ours, as calls of the kernel's, and where there are none to be had.
import { closeSync, openSync, truncateSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { run } from '@tidemark/testkit'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { WRITER } from '../src/node/lock-bytes.js'
import { F_RDLCK, F_UNLCK, F_WRLCK, type NativeCalls, native } from '../src/node/native.js'
import { isLocked } from '../src/node/ofd-locks.js'
import { openWritableFile } from '../src/node/writable-file.js'
import { daemon, dir, fresh, io, label, linux, lockedBytes, nbd, scriptArgs, skip } from './lock-peers.js'

describe.skipIf(!linux)('several of ours', () => {
  let serial = 0
  const image = (): string => {
    const file = dir.file(`o${serial++}`)
    writeFileSync(file, new Uint8Array(512))
    return file
  }

  it('of one process: exactly one has it', async () => {
    const file = image()
    for (let round = 0; round < 20; round++) {
      const opened = await Promise.allSettled(Array.from({ length: 8 }, () => openWritableFile(file)))
      const have = opened.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []))
      expect(have.length).toBe(1)
      for (const result of opened)
        if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'image-locked' })
      await have[0]!.close()
    }
    expect(lockedBytes(file)).toEqual([])
  })

  it('of several processes: never two at a time', async () => {
    const file = image()
    // Whoever has it makes a file that must not be there.
    const script = `
      const { closeSync, openSync, unlinkSync } = await import('node:fs')
      const [file, witness] = ${JSON.stringify([file, `${file}-witness`])}
      let had = 0
      let refused = 0
      const end = Date.now() + 1500
      while (Date.now() < end) {
        try {
          const storage = await openWritableFile(file)
          closeSync(openSync(witness, 'wx'))
          await new Promise(resolve => setImmediate(resolve))
          unlinkSync(witness)
          await storage.close()
          had++
        } catch (error) {
          if (error.code !== 'image-locked') throw error
          refused++
        }
      }
      console.log(JSON.stringify([had, refused]))`
    const ended = await Promise.all([1, 2, 3].map(() => run(process.execPath, scriptArgs(script))))
    for (const { stdout } of ended) {
      const [had, refused] = JSON.parse(stdout)
      expect(had).toBeGreaterThan(0)
      expect(refused).toBeGreaterThan(0)
    }
  })

  it('isLocked asks about others, not about itself', async () => {
    const file = image()
    const fd = openSync(file, 'r')
    expect(await isLocked(fd, WRITER)).toBeUndefined()
    const storage = await openWritableFile(file)
    expect(await isLocked(fd, WRITER)).toBe('written')
    await storage.close()
    expect(await isLocked(fd, WRITER)).toBeUndefined()
    closeSync(fd)
  })
})

describe.skipIf(!linux)('the calls', () => {
  afterEach(() => {
    vi.doUnmock('../src/node/native.js')
    vi.resetModules()
  })
  const { EAGAIN, EOPNOTSUPP, ENOLCK, EBADF, EINVAL } = constants.errno

  it('tell errnos as negative numbers, and conflicts by their type', async () => {
    const calls = (await native())!.ofdLocks!
    const file = dir.file('calls')
    writeFileSync(file, '')
    const [a, b] = [openSync(file, 'r+'), openSync(file, 'r+')]
    const far = 2 ** 40 + 5
    expect(calls.set(a, F_RDLCK, far, 3)).toBe(0)
    expect(calls.get(b, F_RDLCK, far, 1)).toBe(F_UNLCK)
    expect(calls.get(b, F_WRLCK, far + 2, 1)).toBe(F_RDLCK)
    expect(calls.get(b, F_WRLCK, far + 3, 1)).toBe(F_UNLCK)
    expect(calls.get(b, F_WRLCK, far - 1, 1)).toBe(F_UNLCK)
    expect(calls.get(a, F_WRLCK, far, 1)).toBe(F_UNLCK)
    expect(calls.set(b, F_WRLCK, far, 1)).toBe(-EAGAIN)
    expect(calls.set(a, F_WRLCK, far, 1)).toBe(0)
    expect(calls.get(b, F_RDLCK, far, 1)).toBe(F_WRLCK)
    closeSync(a)
    expect(calls.set(b, F_WRLCK, 0, 0)).toBe(0)
    expect(calls.set(b, F_RDLCK, -5, 1)).toBe(-EINVAL)
    closeSync(b)
    expect(calls.set(-1, F_RDLCK, 0, 1)).toBe(-EBADF)
    const reader = openSync(file, 'r')
    expect(calls.set(reader, F_WRLCK, 0, 1)).toBe(-EBADF)
    expect(await (await native())!.fallocate(reader, 3, 0, 1)).toBe(-EBADF)
    closeSync(reader)
  })

  type Fake = (name: 'set' | 'get', type: number, byte: number) => number
  /** Opens a file where the kernel's answers are these; tells the calls too. */
  async function withLocks(
    answer: Fake,
    lock: 'required' | 'none',
  ): Promise<{ outcome: unknown; log: string[] }> {
    const log: string[] = []
    const names = ['read', 'write', 'un']
    const call = (name: 'set' | 'get') => (_: number, type: number, byte: number) => {
      log.push(`${name === 'get' ? '?' : ''}${names[type]} ${byte}`)
      return answer(name, type, byte)
    }
    const fake = { ofdLocks: { set: call('set'), get: call('get') } } as unknown as NativeCalls
    vi.resetModules()
    vi.doMock('../src/node/native.js', async original => ({
      ...(await original<object>()),
      native: async () => fake,
    }))
    const { openWritableFile } = await import('../src/node/writable-file.js')
    const file = dir.file('fake')
    writeFileSync(file, '')
    const outcome = await openWritableFile(file, { lock }).then(
      storage =>
        storage.close().then(() => (storage.size === 0 ? 'opened' : `opened, ${storage.size} bytes`)),
      error => error,
    )
    return { outcome, log }
  }

  const TAKEN = ['read 100', 'read 101', 'read 103', 'read 201', 'read 203']
  const RELEASED = ['un 100', 'un 101', 'un 103', 'un 201', 'un 203']

  it('take first, look then: of two that come at once, none oversees the other', async () => {
    const { outcome, log } = await withLocks(name => (name === 'get' ? F_UNLCK : 0), 'required')
    expect(outcome).toBe('opened')
    expect(log.slice(0, 5)).toEqual(TAKEN)
    expect(log.slice(5).sort()).toEqual([
      '?write 101',
      '?write 103',
      '?write 200',
      '?write 201',
      '?write 203',
    ])
  })

  it('the size is what the one before left', async () => {
    const { outcome } = await withLocks(name => {
      if (name === 'set') return 0
      truncateSync(dir.file('fake'), 65536)
      return F_UNLCK
    }, 'required')
    expect(outcome).toBe('opened, 65536 bytes')
  })

  it('one who is seen only then: all is given back', async () => {
    const { outcome, log } = await withLocks(
      (name, _, byte) => (name === 'set' ? 0 : byte === 101 ? F_RDLCK : F_UNLCK),
      'required',
    )
    expect(outcome).toMatchObject({ code: 'image-locked', details: { use: 'written' } })
    expect(log.slice(0, 5)).toEqual(TAKEN)
    expect(log.slice(-5)).toEqual(RELEASED)
  })

  it.each([
    [/EOPNOTSUPP|ENOTSUP/, EOPNOTSUPP],
    [/ENOLCK/, ENOLCK],
  ])(
    'a file system without locks (%s): lock-unavailable, as QEMU refuses it; opened where none is asked',
    async (name, errno) => {
      const { outcome, log } = await withLocks(() => -errno, 'required')
      expect(outcome).toMatchObject({ code: 'lock-unavailable', message: expect.stringMatching(name) })
      expect(log.slice(-5)).toEqual(RELEASED)
      expect((await withLocks(() => -errno, 'none')).outcome).toBe('opened')
    },
  )

  it('one that takes locks and does not tell of them: lock-unavailable', async () => {
    const { outcome, log } = await withLocks(name => (name === 'get' ? -EOPNOTSUPP : 0), 'required')
    expect(outcome).toMatchObject({ name: 'Qcow2Error', code: 'lock-unavailable' })
    expect(log.slice(-5)).toEqual(RELEASED)
  })
})

describe.skipIf(skip)(`without koffi${label}`, () => {
  afterEach(() => {
    vi.doUnmock('koffi')
    vi.restoreAllMocks()
    vi.resetModules()
  })
  async function without(): Promise<typeof openWritableFile> {
    vi.resetModules()
    vi.doMock('koffi', () => {
      throw new Error("Cannot find package 'koffi'")
    })
    return (await import('../src/node/writable-file.js')).openWritableFile
  }
  const said = (open: typeof openWritableFile, file: string, lock: 'required' | 'none') =>
    open(file, { lock }).then(
      storage => storage.close().then(() => 'opened'),
      error => [error.code, error.details.use ?? ''].join(' ').trim(),
    )

  it('lock-unavailable, which says what is missing and that one can do without', async () => {
    const open = await without()
    const file = await fresh()
    const failure = await open(file).catch(error => error)
    expect(failure).toMatchObject({ name: 'Qcow2Error', code: 'lock-unavailable', details: { image: file } })
    expect(failure.message).toMatch(/koffi.*lock: 'none'/)
    expect(await said(open, file, 'none')).toBe('opened')
  })

  it('of an image that is only read: it says what does without', async () => {
    await without()
    const { openHeldFile } = await import('../src/node/held-file.js')
    await expect(openHeldFile(await fresh())).rejects.toMatchObject({
      code: 'lock-unavailable',
      message: expect.stringMatching(/koffi.*openFile does without/),
    })
  })

  it('another system: it says so', async () => {
    const platform = Object.getOwnPropertyDescriptor(process, 'platform')!
    Object.defineProperty(process, 'platform', { ...platform, value: 'darwin' })
    try {
      const open = await without()
      await expect(open(dir.file('calls'))).rejects.toMatchObject({
        code: 'lock-unavailable',
        message: expect.stringContaining('darwin'),
      })
    } finally {
      Object.defineProperty(process, 'platform', platform)
    }
  })

  it.each<[string, (file: string) => Promise<() => Promise<void>>, string | undefined]>([
    ['a writer', daemon, 'image-locked written'],
    ['a reader', nbd('-r'), 'image-locked read'],
    ['one who only looks', io('-r', '-U'), undefined],
  ])('%s is seen all the same', async (_, hold, refusal) => {
    const file = await fresh()
    const release = await hold(file)
    const open = await without()
    expect(await said(open, file, 'required')).toBe(refusal ?? 'lock-unavailable')
    expect(await said(open, file, 'none')).toBe(refusal ?? 'opened')
    await release()
    expect(await said(open, file, 'none')).toBe('opened')
  })

  it('one of ours is seen too', async () => {
    const file = await fresh()
    const storage = await openWritableFile(file)
    expect(await said(await without(), file, 'none')).toBe('image-locked written')
    await storage.close()
  })
})
