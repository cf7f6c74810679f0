// What every ImageStorage must do, whatever the bytes come from.
import { chmodSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { Random, runSync, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { type ImageStorage, memoryStorage, readBytes, ShortReadError } from '../src/index.js'
import { openFile } from '../src/node/index.js'

const dir = tempDir()
const SIZE = 3 * 65536 + 512
const content = new Random('storage').bytes(SIZE)
const loops: string[] = []

afterAll(() => {
  for (const device of loops) runSync('losetup', ['-d', device], { accept: 'any' })
  dir.remove()
})

function written(name: string): string {
  const file = dir.file(name)
  writeFileSync(file, content)
  return file
}

/** A loop device over a file: only root can, and not in every container. */
function blockDevice(name: string): string | undefined {
  try {
    const done = runSync('losetup', ['-f', '--show', '-r', written(name)], { accept: 'any' })
    if (done.status !== 0) return undefined
    const device = done.stdout.trim()
    loops.push(device)
    return device
  } catch {
    return undefined
  }
}

const device = blockDevice('device')
const label = device === undefined ? ' [skipped: needs losetup and the right to use it]' : ''

const storages: { name: string; open(): Promise<ImageStorage>; skip?: boolean }[] = [
  { name: 'memory', open: async () => memoryStorage(content.slice()) },
  {
    name: 'memory, a part of a larger buffer',
    open: async () => memoryStorage(new Uint8Array([9, ...content, 9]).subarray(1, SIZE + 1)),
  },
  { name: 'file', open: () => openFile(written('file')) },
  { name: 'file, on this thread', open: () => openFile(written('blocking'), { blocking: true }) },
  { name: `block device${label}`, open: () => openFile(device!), skip: device === undefined },
]

for (const { name, open, skip = false } of storages) {
  describe.skipIf(skip)(name, () => {
    const using = async (use: (storage: ImageStorage) => Promise<void>): Promise<void> => {
      const storage = await open()
      try {
        await use(storage)
      } finally {
        await storage.close()
      }
    }

    it('knows its size, has a name and an identity of its own', () =>
      using(async storage => {
        expect(storage.size).toBe(SIZE)
        expect(storage.name).not.toBe('')
        expect(storage.identity).not.toBe('')
        expect(storage.identity).not.toBe(memoryStorage(content).identity)
      }))

    it('fills the whole target, at any offset', () =>
      using(async storage => {
        for (const [offset, length] of [
          [0, SIZE],
          [0, 1],
          [1, 511],
          [511, 2],
          [SIZE - 1, 1],
          [65535, 65538],
        ] as const) {
          const read = await readBytes(storage, offset, length)
          expect(Buffer.compare(read, content.subarray(offset, offset + length))).toBe(0)
        }
      }))

    it('writes into the target and nowhere else', () =>
      using(async storage => {
        const around = new Uint8Array(30).fill(0xee)
        await storage.readInto(around.subarray(10, 20), 100)
        expect(around.subarray(10, 20)).toEqual(content.subarray(100, 110))
        expect([...around.subarray(0, 10), ...around.subarray(20)]).toEqual(new Array(20).fill(0xee))
      }))

    it('reads nothing where nothing is asked, at the very end too', () =>
      using(async storage => {
        await storage.readInto(new Uint8Array(0), 0)
        await storage.readInto(new Uint8Array(0), SIZE)
      }))

    it.each([
      ['one byte past the end', SIZE - 3, 4],
      ['all past the end', SIZE, 1],
      ['nothing, but past the end', SIZE + 1, 0],
      ['far away', 2 ** 53, 1],
      ['before the start', -1, 1],
      ['a fraction', 0.5, 1],
      ['no number', Number.NaN, 1],
    ])('%s: RangeError, and nothing is read', (_, offset, length) =>
      using(async storage => {
        const target = new Uint8Array(length).fill(0xee)
        await expect(storage.readInto(target, offset)).rejects.toThrow(RangeError)
        expect([...target]).toEqual(new Array(length).fill(0xee))
      }),
    )

    it('reads may overlap, in time and in place', () =>
      using(async storage => {
        const random = new Random('overlap')
        const reads = Array.from({ length: 50 }, async () => {
          const offset = random.int(0, SIZE - 1)
          const length = random.int(0, SIZE - offset)
          expect(
            Buffer.compare(
              await readBytes(storage, offset, length),
              content.subarray(offset, offset + length),
            ),
          ).toBe(0)
        })
        await Promise.all(reads)
      }))

    it('throws once it is closed; may be closed twice', async () => {
      const storage = await open()
      await storage.close()
      await storage.close()
      await expect(storage.readInto(new Uint8Array(1), 0)).rejects.toThrow(/closed/)
    })
  })
}

describe('files', () => {
  it('that became shorter: ShortReadError, never zeros', async () => {
    const file = written('shrinks')
    const storage = await openFile(file)
    truncateSync(file, 1000)
    const failure = await readBytes(storage, 900, 200).catch(error => error)
    expect(failure).toBeInstanceOf(ShortReadError)
    expect(failure).toMatchObject({ code: 'short-read', details: { offset: 900, length: 200, got: 100 } })
    await expect(readBytes(storage, 2000, 10)).rejects.toMatchObject({ details: { got: 0 } })
    expect(await readBytes(storage, 990, 10)).toEqual(content.subarray(990, 1000))
    await storage.close()
  })

  it('are one by whatever name', async () => {
    const file = written('one')
    symlinkSync(file, dir.file('link'))
    const [a, b, c] = await Promise.all([
      openFile(file),
      openFile(dir.file('link')),
      openFile(written('two')),
    ])
    expect(a.identity).toBe(b.identity)
    expect(a.identity).not.toBe(c.identity)
    await Promise.all([a, b, c].map(storage => storage.close()))
  })

  const made = (name: string, make: (path: string) => void): string => {
    make(dir.file(name))
    return dir.file(name)
  }
  it.each([
    ['a name that is not there', () => dir.file('missing'), 'image-missing'],
    ['a folder that is not there', () => dir.file('no/such'), 'image-missing'],
    ['below a file', () => `${written('plain')}/x`, 'image-missing'],
    ['an empty name', () => '', 'image-missing'],
    ['a directory', () => made('folder', mkdirSync), 'read-failed'],
    ['a FIFO, without waiting', () => made('fifo', path => runSync('mkfifo', [path])), 'read-failed'],
    ['a character device', () => '/dev/zero', 'read-failed'],
    ['a symlink to itself', () => made('self', path => symlinkSync('self', path)), 'read-failed'],
    ['a name with a NUL', () => 'a\0b', 'read-failed'],
  ])('%s', async (_, path, code) => {
    await expect(openFile(path())).rejects.toMatchObject({ name: 'Qcow2Error', code })
  })

  it('without permission', async () => {
    const file = written('secret')
    chmodSync(file, 0)
    // Root may read everything: as nobody, then.
    const root = process.geteuid?.() === 0
    if (root) process.seteuid!(65534)
    try {
      await expect(openFile(file)).rejects.toMatchObject({
        code: 'read-failed',
        message: expect.stringContaining('permission denied'),
      })
    } finally {
      if (root) process.seteuid!(0)
    }
  })
})

describe.skipIf(device === undefined)(`block devices${label}`, () => {
  it('are one by whatever node', async () => {
    const [major, minor] = runSync('stat', ['-c', '%Hr %Lr', device!]).stdout.trim().split(' ')
    const other = dir.file('node')
    runSync('mknod', [other, 'b', major!, minor!])
    const [a, b] = await Promise.all([openFile(device!), openFile(other)])
    expect(b.identity).toBe(a.identity)
    await Promise.all([a.close(), b.close()])
  })
})
