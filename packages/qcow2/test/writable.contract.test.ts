// What every WritableStorage must do, wherever the bytes go.
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { needs, Random, run, runSync, tempDir } from '@tidemark/testkit'
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import { readBytes } from '../src/index.js'
import { openFile } from '../src/node/index.js'
import { openWritableFile } from '../src/node/writable-file.js'
import { memoryWritable } from '../src/storage/memory-writable.js'
import type { WritableStorage } from '../src/storage/writable.js'

const dir = tempDir()
const SIZE = 3 * 65536 + 512
const content = new Uint8Array(new Random('writable').bytes(SIZE))
const cleanUp: (() => void)[] = []

afterAll(() => {
  for (const undo of cleanUp.reverse()) undo()
  dir.remove()
})

let serial = 0
function written(bytes: Uint8Array = content): string {
  const file = dir.file(`w${serial++}`)
  writeFileSync(file, bytes)
  return file
}

/** A loop device over a file: only root can, and not in every container. */
function blockDevice(file: string, ...flags: string[]): string | undefined {
  try {
    const done = runSync('losetup', ['-f', '--show', ...flags, file], { accept: 'any' })
    if (done.status !== 0) return undefined
    const device = done.stdout.trim()
    cleanUp.push(() => runSync('losetup', ['-d', device], { accept: 'any' }))
    return device
  } catch {
    return undefined
  }
}

const device = blockDevice(written())
const label = device === undefined ? ' [skipped: needs losetup and the right to use it]' : ''

interface Subject {
  name: string
  open(): Promise<WritableStorage>
  skip?: boolean
  resizable: boolean
  /** A discarded stretch reads as zeros; else as it was. */
  discards: boolean
}

const subjects: Subject[] = [
  { name: 'memory', open: async () => memoryWritable(content), resizable: true, discards: true },
  {
    name: 'memory of one size',
    open: async () => memoryWritable(content, { resizable: false }),
    resizable: false,
    discards: true,
  },
  { name: 'file', open: () => openWritableFile(written()), resizable: true, discards: true },
  {
    name: 'file, on this thread',
    open: () => openWritableFile(written(), { blocking: true }),
    resizable: true,
    discards: true,
  },
  {
    name: `block device${label}`,
    async open() {
      writeFileSync(device!, content)
      return openWritableFile(device!)
    },
    resizable: false,
    discards: false,
    skip: device === undefined,
  },
]

const bytesOf = (storage: WritableStorage) => readBytes(storage, 0, storage.size)
const same = (a: Uint8Array, b: Uint8Array) => expect(Buffer.compare(a, b)).toBe(0)

for (const { name, open, skip = false, resizable, discards } of subjects) {
  describe.skipIf(skip)(name, () => {
    const using = async (use: (storage: WritableStorage) => Promise<void>): Promise<void> => {
      const storage = await open()
      try {
        await use(storage)
      } finally {
        await storage.close()
      }
    }

    it('begins with what is there, and knows what it is', () =>
      using(async storage => {
        expect(storage).toMatchObject({ size: SIZE, resizable })
        expect(storage.name).not.toBe('')
        expect(storage.identity).not.toBe('')
        expect(storage.identity).not.toBe(memoryWritable(content).identity)
        same(await bytesOf(storage), content)
      }))

    it('reads what was written, at any offset, and all else as it was', () =>
      using(async storage => {
        const model = content.slice()
        const random = new Random('writes')
        const places = [
          [0, SIZE],
          [0, 1],
          [511, 2],
          [SIZE - 1, 1],
          [65535, 65538],
        ]
        while (places.length < 40) {
          const offset = random.int(0, SIZE - 1)
          places.push([offset, random.int(1, SIZE - offset)])
        }
        for (const [offset, length] of places as [number, number][]) {
          const bytes = new Uint8Array(random.bytes(length))
          await storage.writeFrom(bytes, offset)
          model.set(bytes, offset)
          same(await bytesOf(storage), model)
        }
        await storage.flush()
        same(await bytesOf(storage), model)
      }))

    it('takes the bytes of a view, and leaves them alone', () =>
      using(async storage => {
        const around = new Uint8Array(30).fill(0xee)
        around.fill(0x11, 10, 20)
        await storage.writeFrom(around.subarray(10, 20), 100)
        around.fill(0x22)
        expect(await readBytes(storage, 99, 12)).toEqual(
          Uint8Array.of(content[99]!, ...new Array(10).fill(0x11), content[110]!),
        )
      }))

    it('writes that overlap in time, at different places', () =>
      using(async storage => {
        const model = new Uint8Array(SIZE)
        await Promise.all(
          Array.from({ length: 64 }, async (_, at) => {
            const bytes = new Uint8Array(3000).fill(at + 1)
            model.set(bytes, at * 3000)
            await storage.writeFrom(bytes, at * 3000)
          }),
        )
        same(await readBytes(storage, 0, 64 * 3000), model.subarray(0, 64 * 3000))
      }))

    it('writes nothing where nothing is given, at the very end too', () =>
      using(async storage => {
        await storage.writeFrom(new Uint8Array(0), 0)
        await storage.writeFrom(new Uint8Array(0), SIZE)
        same(await bytesOf(storage), content)
      }))

    it.each([
      ['one byte past the end', SIZE - 3, 4],
      ['all past the end', SIZE, 1],
      ['nothing, but past the end', SIZE + 1, 0],
      ['far away', 2 ** 53, 1],
      ['before the start', -1, 1],
      ['a fraction', 0.5, 1],
      ['no number', Number.NaN, 1],
    ])('%s: RangeError, and nothing is changed', (_, offset, length) =>
      using(async storage => {
        await expect(storage.writeFrom(new Uint8Array(length), offset)).rejects.toThrow(RangeError)
        await expect(storage.discard(offset, length)).rejects.toThrow(RangeError)
        expect(storage.size).toBe(SIZE)
        same(await bytesOf(storage), content)
      }),
    )

    it.each([-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY])('a size of %s: RangeError', size =>
      using(async storage => {
        await expect(storage.resize(size)).rejects.toThrow(RangeError)
        expect(storage.size).toBe(SIZE)
      }),
    )

    it('with a signal that is aborted: its reason', () =>
      using(async storage => {
        const reason = new Error('enough')
        const read = storage.readInto(new Uint8Array(5), 0, { signal: AbortSignal.abort(reason) })
        await expect(read).rejects.toBe(reason)
      }))

    if (resizable)
      it('grows, and what is new reads as zeros; shrinks, and forgets', () =>
        using(async storage => {
          await storage.resize(SIZE + 100_000)
          expect(storage.size).toBe(SIZE + 100_000)
          same(await bytesOf(storage), Buffer.concat([content, new Uint8Array(100_000)]))
          await storage.writeFrom(Uint8Array.of(1, 2, 3), SIZE + 99_997)
          await storage.resize(1000)
          expect(storage.size).toBe(1000)
          await expect(storage.readInto(new Uint8Array(1), 1000)).rejects.toThrow(RangeError)
          await expect(storage.writeFrom(new Uint8Array(1), 1000)).rejects.toThrow(RangeError)
          await storage.resize(SIZE + 100_000)
          const expected = new Uint8Array(SIZE + 100_000)
          expected.set(content.subarray(0, 1000))
          same(await bytesOf(storage), expected)
          await storage.flush()
          await storage.resize(0)
          await storage.flush()
          expect(storage.size).toBe(0)
        }))
    else
      it('has one size: no-space beyond it, nothing to do below', () =>
        using(async storage => {
          await expect(storage.resize(SIZE + 1)).rejects.toMatchObject({
            name: 'Qcow2Error',
            code: 'no-space',
            details: { image: storage.name, size: SIZE + 1 },
          })
          await storage.resize(SIZE)
          await storage.resize(10)
          expect(storage.size).toBe(SIZE)
          same(await bytesOf(storage), content)
        }))

    it('discards, at any offset, nothing else', () =>
      using(async storage => {
        const model = content.slice()
        for (const [offset, length] of [
          [65536, 65536],
          [100, 50],
          [SIZE - 10, 10],
          [5, 0],
          [SIZE, 0],
        ] as const) {
          await storage.discard(offset, length)
          if (discards) model.fill(0, offset, offset + length)
          same(await bytesOf(storage), model)
        }
        expect(storage.size).toBe(SIZE)
        await storage.writeFrom(content, 0)
        same(await bytesOf(storage), content)
      }))

    it('flushes side by side, with nothing to flush too', () =>
      using(async storage => {
        await storage.flush()
        await storage.writeFrom(Uint8Array.of(1), 0)
        await Promise.all([storage.flush(), storage.flush(), storage.flush()])
      }))

    it('closed while it works: what began ends; later all throws; may be closed twice', async () => {
      const storage = await open()
      const works = [storage.writeFrom(content.slice().fill(7), 0), storage.flush(), storage.discard(0, 512)]
      await storage.close()
      await Promise.all(works)
      await storage.close()
      for (const use of [
        () => storage.readInto(new Uint8Array(1), 0),
        () => storage.writeFrom(new Uint8Array(1), 0),
        () => storage.writeFrom(new Uint8Array(0), 0),
        () => storage.flush(),
        () => storage.resize(SIZE),
        () => storage.discard(0, 1),
      ]) {
        await expect(use()).rejects.toThrow(/closed/)
      }
    })
  })
}

describe('memory', () => {
  it('copies what it begins with', async () => {
    const bytes = content.slice()
    const storage = memoryWritable(bytes, { name: 'disk' })
    bytes.fill(0)
    await storage.writeFrom(Uint8Array.of(9), 5)
    expect(bytes[5]).toBe(0)
    expect(await readBytes(storage, 4, 3)).toEqual(Uint8Array.of(content[4]!, 9, content[6]!))
    expect(storage.name).toBe('disk')
  })

  it('grows from nothing, to its limit and no further', async () => {
    const storage = memoryWritable(undefined, { maxBytes: 1000 })
    for (const size of [1, 3, 10, 999, 1000]) {
      await storage.resize(size)
      await storage.writeFrom(Uint8Array.of(size), size - 1)
    }
    await expect(storage.resize(1001)).rejects.toMatchObject({ code: 'no-space' })
    const bytes = await readBytes(storage, 0, 1000)
    expect([...bytes].flatMap((byte, at) => (byte ? [at] : []))).toEqual([0, 2, 9, 998, 999])
  })

  it('more than there is: no-space', async () => {
    await expect(memoryWritable().resize(2 ** 52)).rejects.toMatchObject({ code: 'no-space' })
  })
})

describe('files', () => {
  it('what is written is in the file, by whatever name it was opened', async () => {
    const file = written()
    symlinkSync(file, dir.file('link'))
    const [storage, reader] = await Promise.all([openWritableFile(dir.file('link')), openFile(file)])
    expect(storage.identity).toBe(reader.identity)
    expect(storage.name).toBe(dir.file('link'))
    await storage.resize(SIZE + 3)
    await storage.writeFrom(Uint8Array.of(1, 2, 3), SIZE)
    same(readFileSync(file), Buffer.concat([content, Uint8Array.of(1, 2, 3)]))
    await Promise.all([storage.close(), reader.close()])
  })

  it('an empty one', async () => {
    const storage = await openWritableFile(written(new Uint8Array(0)))
    await storage.flush()
    await storage.resize(5)
    await storage.writeFrom(Uint8Array.of(1, 2, 3, 4, 5), 0)
    expect(await bytesOf(storage)).toEqual(Uint8Array.of(1, 2, 3, 4, 5))
    await storage.close()
  })

  it('one that somebody cut meanwhile: ShortReadError, never zeros', async () => {
    const file = written()
    const storage = await openWritableFile(file)
    truncateSync(file, 1000)
    await expect(readBytes(storage, 900, 200)).rejects.toMatchObject({ code: 'short-read' })
    await storage.close()
  })

  const linux = process.platform === 'linux'
  it.runIf(linux)('give back the space that is discarded, and tell of the hole', async () => {
    const file = written(new Uint8Array(2 ** 20).fill(1))
    const storage = await openWritableFile(file)
    await storage.flush()
    const before = statSync(file)
    await storage.discard(65536, 524288)
    const after = statSync(file)
    expect(after.size).toBe(2 ** 20)
    expect((before.blocks - after.blocks) * 512).toBe(524288)
    expect(await storage.storedRun!(65536)).toEqual({ data: false, end: 65536 + 524288 })
    await storage.resize(2 ** 21)
    expect(await storage.storedRun!(2 ** 20)).toEqual({ data: false, end: 2 ** 21 })
    await storage.close()
  })

  it.each([false, true])('large writes, in pieces; blocking: %s', async blocking => {
    const bytes = new Uint8Array(37 * 2 ** 20 + 3)
    for (let at = 0; at < bytes.length; at += 4093) bytes[at] = at % 251
    const file = written(new Uint8Array(0))
    const storage = await openWritableFile(file, { blocking })
    await storage.resize(bytes.length + 1)
    await storage.writeFrom(bytes, 1)
    same(readFileSync(file).subarray(1), bytes)
    await storage.close()
  })

  const made = (make: (path: string) => void): string => {
    const file = dir.file(`m${serial++}`)
    make(file)
    return file
  }
  it.each([
    ['a name that is not there', () => dir.file('missing'), 'image-missing'],
    ['a folder that is not there', () => dir.file('no/such'), 'image-missing'],
    ['below a file', () => `${written()}/x`, 'image-missing'],
    ['an empty name', () => '', 'image-missing'],
    ['a directory', () => made(mkdirSync), 'read-failed'],
    ['a FIFO, without waiting', () => made(path => runSync('mkfifo', [path])), 'read-failed'],
    ['a character device', () => '/dev/zero', 'read-failed'],
    ['a full character device', () => '/dev/full', 'read-failed'],
    ['a symlink to itself', () => made(path => symlinkSync(path, path)), 'read-failed'],
    ['a name with a NUL', () => 'a\0b', 'read-failed'],
  ])('%s', async (_, path, code) => {
    await expect(openWritableFile(path())).rejects.toMatchObject({ name: 'Qcow2Error', code })
    expect(existsSync(dir.file('missing'))).toBe(false)
  })

  it.each([
    [0o444, 'write-failed', 'may be read only'],
    [0, 'read-failed', 'permission denied'],
    [0o222, 'read-failed', 'permission denied'],
  ])('without permission: mode %s', async (mode, code, words) => {
    const file = written()
    chmodSync(file, mode)
    // Root may do everything: in a child that is nobody, then. Not in this process: the pool's threads, and access(2),
    // which asks for the real user, have to be it too.
    const user = process.getuid?.() === 0 ? { user: { uid: 65534, gid: 65534 } } : {}
    chmodSync(dir.path, 0o755)
    const outcome = await inChild(`await openWritableFile(${JSON.stringify(file)})`, user)
    expect(outcome).toMatchObject({ code, message: expect.stringContaining(words) })
  })
})

/** Runs a statement in another process and tells what it threw. Needs the build. */
async function inChild(
  statement: string,
  options: Parameters<typeof run>[2] = {},
  ulimit = '',
): Promise<unknown> {
  const module = new URL('../dist/node/writable-file.js', import.meta.url).href
  const script = `
    const { openWritableFile } = await import(${JSON.stringify(module)})
    let outcome = null
    try { ${statement} } catch ({ name, code, message, details }) { outcome = { name, code, message, details } }
    console.log(JSON.stringify(outcome))`
  const { stdout } = await run(
    'sh',
    ['-c', `${ulimit} exec "$0" --input-type=module -e "$1"`, process.execPath, script],
    options,
  )
  return JSON.parse(stdout)
}

describe('no space', () => {
  it('a limit of the process’s: no-space, and the process lives', async () => {
    const file = written()
    const outcome = await inChild(
      `const storage = await openWritableFile(${JSON.stringify(file)})
       await storage.resize(2 ** 30)`,
      {},
      'ulimit -f 2048;',
    )
    expect(outcome).toMatchObject({ code: 'no-space', details: { image: file, size: 2 ** 30 } })
    expect(statSync(file).size).toBe(SIZE)
  })
})

/** A file system of 1 MiB: only root can, and not in every container. */
function smallFileSystem(): string | undefined {
  const place = dir.file('small')
  mkdirSync(place)
  try {
    if (runSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', place], { accept: 'any' }).status !== 0)
      return undefined
  } catch {
    return undefined
  }
  cleanUp.push(() => runSync('umount', ['-l', place], { accept: 'any' }))
  return place
}
const small = smallFileSystem()
const smallLabel = small === undefined ? ' [skipped: needs mount and the right to use it]' : ''

describe.skipIf(small === undefined)(`a full file system${smallLabel}`, () => {
  it.each([false, true])('no-space where it is full, and it goes on; blocking: %s', async blocking => {
    const file = `${small}/image`
    writeFileSync(file, '')
    const storage = await openWritableFile(file, { blocking })
    await storage.resize(2 ** 22)
    const failure = await storage.writeFrom(new Uint8Array(2 ** 21).fill(5), 4096).catch(error => error)
    expect(failure).toMatchObject({ name: 'Qcow2Error', code: 'no-space', details: { image: file } })
    // A first part was written; the failure tells of the rest.
    const { offset, length } = failure.details
    expect(offset).toBeGreaterThan(4096)
    expect(offset + length).toBe(4096 + 2 ** 21)
    expect(await readBytes(storage, offset - 4096, 4096)).toEqual(new Uint8Array(4096).fill(5))
    // With space again it works as before.
    await storage.discard(0, 2 ** 20)
    await storage.writeFrom(new Uint8Array(4096).fill(6), 0)
    await storage.flush()
    expect(await readBytes(storage, 0, 4096)).toEqual(new Uint8Array(4096).fill(6))
    await storage.close()
  })

  it('one that is read-only: write-failed', async () => {
    writeFileSync(`${small}/image`, 'x')
    runSync('mount', ['-o', 'remount,ro', small!])
    await expect(openWritableFile(`${small}/image`)).rejects.toMatchObject({
      code: 'write-failed',
      message: expect.stringContaining('read-only'),
    })
    runSync('mount', ['-o', 'remount,rw', small!])
  })
})

describe.skipIf(device === undefined)(`block devices${label}`, () => {
  it('know their size, have no holes, and are one with what reads them', async () => {
    const storage = await openWritableFile(device!)
    const reader = await openFile(device!)
    expect(storage.identity).toBe(reader.identity)
    expect(storage.storedRun).toBeUndefined()
    await Promise.all([storage.close(), reader.close()])
  })

  it('that the system uses: image-locked', async () => {
    const claim = openSync(device!, constants.O_RDWR | constants.O_EXCL)
    await expect(openWritableFile(device!)).rejects.toMatchObject({ code: 'image-locked' })
    closeSync(claim)
    await (await openWritableFile(device!)).close()
  })

  const peers = needs('mke2fs')
  it.skipIf(peers.skip)(`that are mounted: image-locked${peers.label}`, async () => {
    const file = dir.file('mounted')
    writeFileSync(file, '')
    truncateSync(file, 2 ** 20)
    runSync('mke2fs', ['-q', '-F', file])
    const mounted = blockDevice(file)!
    const place = made('place')
    runSync('mount', [mounted, place])
    try {
      await expect(openWritableFile(mounted)).rejects.toMatchObject({
        code: 'image-locked',
        message: expect.stringContaining('mounted'),
      })
    } finally {
      runSync('umount', [place])
    }
    await (await openWritableFile(mounted)).close()
  })

  it('that are read-only: write-failed', async () => {
    const readOnly = blockDevice(written(), '-r')!
    await expect(openWritableFile(readOnly)).rejects.toMatchObject({ code: 'write-failed' })
  })

  function made(name: string): string {
    mkdirSync(dir.file(name))
    return dir.file(name)
  }
})

describe('what the kernel may do', () => {
  afterEach(() => {
    vi.doUnmock('node:fs')
    vi.doUnmock('koffi')
    vi.resetModules()
  })
  const failing = (code: string) => Object.assign(new Error(`${code}: simulated`), { code })

  /** The file storage with some calls of node:fs replaced. */
  async function withFs(replaced: Record<string, unknown>): Promise<typeof openWritableFile> {
    vi.resetModules()
    vi.doMock('node:fs', async original => ({ ...(await original<object>()), ...replaced }))
    return (await import('../src/node/writable-file.js')).openWritableFile
  }

  type Done = (error: Error | null, written?: number) => void

  it.each([false, true])('short writes are continued; blocking: %s', async blocking => {
    const fs = await vi.importActual<typeof import('node:fs')>('node:fs')
    const lengths: number[] = []
    const cut = (length: number) => {
      lengths.push(length)
      return Math.min(length, 1000)
    }
    const open = await withFs({
      write: (fd: number, bytes: Uint8Array, from: number, length: number, position: number, done: Done) =>
        fs.write(fd, bytes, from, cut(length), position, done),
      writeSync: (fd: number, bytes: Uint8Array, from: number, length: number, position: number) =>
        fs.writeSync(fd, bytes, from, cut(length), position),
    })
    const file = written()
    const storage = await open(file, { blocking })
    const bytes = new Uint8Array(new Random('short').bytes(3500))
    await storage.writeFrom(bytes, 70)
    expect(lengths).toEqual([3500, 2500, 1500, 500])
    same(readFileSync(file).subarray(70, 3570), bytes)
    same(readFileSync(file).subarray(3570), content.subarray(3570))
    await storage.close()
  })

  it('nothing is written: write-failed, not for ever', async () => {
    const open = await withFs({ write: (...args: unknown[]) => (args.at(-1) as Done)(null, 0) })
    const storage = await open(written())
    await expect(storage.writeFrom(new Uint8Array(10), 5)).rejects.toMatchObject({
      code: 'write-failed',
      details: { offset: 5, length: 10 },
    })
    await storage.close()
  })

  it.each([
    ['ENOSPC', 'no-space'],
    ['EDQUOT', 'no-space'],
    ['EFBIG', 'no-space'],
    ['EIO', 'write-failed'],
    ['EBADF', 'write-failed'],
  ])('%s: %s, and it goes on', async (errno, code) => {
    let fails = true
    const fs = await vi.importActual<typeof import('node:fs')>('node:fs')
    const open = await withFs({
      write: (...args: Parameters<typeof fs.write>) =>
        fails ? (args.at(-1) as unknown as Done)(failing(errno)) : fs.write(...args),
    })
    const file = written()
    const storage = await open(file)
    await expect(storage.writeFrom(new Uint8Array(10), 5)).rejects.toMatchObject({
      name: 'Qcow2Error',
      code,
      cause: { code: errno },
      details: { image: file, offset: 5, length: 10 },
    })
    fails = false
    await storage.writeFrom(new Uint8Array(10), 5)
    await storage.flush()
    await storage.close()
  })

  it.each([
    ['EIO', 'write-failed'],
    ['ENOSPC', 'no-space'],
  ])(
    'a flush that fails with %s is never tried again: everything is refused but close',
    async (errno, code) => {
      let flushes = 0
      const open = await withFs({
        // The kernel tells it once.
        fdatasync: (_: number, done: Done) => done(flushes++ === 0 ? failing(errno) : null),
      })
      const storage = await open(written())
      await storage.writeFrom(Uint8Array.of(1), 0)
      const [first, beside] = await Promise.allSettled([storage.flush(), storage.flush()])
      expect(first).toMatchObject({ status: 'rejected', reason: { code } })
      expect(beside).toMatchObject({ status: 'rejected', reason: { code: 'write-failed' } })
      for (const use of [
        () => storage.flush(),
        () => storage.writeFrom(new Uint8Array(1), 0),
        () => storage.readInto(new Uint8Array(1), 0),
        () => storage.resize(5),
        () => storage.discard(0, 1),
        () => storage.storedRun!(0),
      ]) {
        await expect(use()).rejects.toMatchObject({ code: 'write-failed', cause: { cause: { code: errno } } })
      }
      expect(flushes).toBe(1)
      await storage.close()
    },
  )

  it('what is neither file nor block device is not even opened', async () => {
    const opened = vi.fn()
    const open = await withFs({ open: opened })
    await expect(open('/dev/zero')).rejects.toMatchObject({ code: 'read-failed' })
    expect(opened).not.toHaveBeenCalled()
  })

  it('a changed size is flushed with all that belongs to the file', async () => {
    const calls: string[] = []
    const sync = (name: string) => (_: number, done: Done) => {
      calls.push(name)
      done(null)
    }
    const open = await withFs({ fsync: sync('fsync'), fdatasync: sync('fdatasync') })
    const storage = await open(written())
    await storage.flush()
    await storage.resize(SIZE + 1)
    await storage.flush()
    await storage.writeFrom(Uint8Array.of(1), SIZE)
    await storage.flush()
    expect(calls).toEqual(['fdatasync', 'fsync', 'fdatasync'])
    await storage.close()
  })

  it('without koffi nothing is discarded', async () => {
    vi.resetModules()
    vi.doMock('koffi', () => {
      throw new Error("Cannot find package 'koffi'")
    })
    const { openWritableFile } = await import('../src/node/writable-file.js')
    const storage = await openWritableFile(written(), { lock: 'none' })
    await storage.discard(0, 65536)
    same(await bytesOf(storage), content)
    await storage.close()
  })
})
