// What every ImageStorage must do, whatever the bytes come from.
import { getEventListeners } from 'node:events'
import { chmodSync, mkdirSync, openAsBlob, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { Random, runSync, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { type ImageStorage, memoryStorage, readBytes, ShortReadError } from '../src/index.js'
import { openFile } from '../src/node/index.js'
import { blobStorage } from '../src/storage/blob.js'
import { openHttp } from '../src/storage/http.js'
import { rangeServer, serve } from './http-server.js'

const dir = tempDir()
const SIZE = 3 * 65536 + 512
const content = new Uint8Array(new Random('storage').bytes(SIZE))
const loops: string[] = []
const server = await serve(rangeServer(content))

afterAll(async () => {
  await server.close()
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

interface Subject {
  name: string
  open(): Promise<ImageStorage>
  skip?: boolean
  /** A read is over before its caller can abort it. */
  immediate?: boolean
}

const storages: Subject[] = [
  { name: 'memory', open: async () => memoryStorage(content.slice()), immediate: true },
  {
    name: 'memory, a part of a larger buffer',
    open: async () => memoryStorage(new Uint8Array([9, ...content, 9]).subarray(1, SIZE + 1)),
    immediate: true,
  },
  { name: 'file', open: () => openFile(written('file')) },
  {
    name: 'file, on this thread',
    open: () => openFile(written('blocking'), { blocking: true }),
    immediate: true,
  },
  { name: `block device${label}`, open: () => openFile(device!), skip: device === undefined },
  { name: 'Blob', open: async () => blobStorage(new Blob([content])) },
  { name: 'Blob of a file', open: async () => blobStorage(await openAsBlob(written('blob'))) },
  { name: 'File', open: async () => blobStorage(new File([content], 'disk.qcow2')) },
  { name: 'HTTP', open: () => openHttp(server.url) },
]

for (const { name, open, skip = false, immediate = false } of storages) {
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

    it('with a signal that is aborted: its reason, and nothing is read', () =>
      using(async storage => {
        const reason = new Error('enough')
        for (const length of [0, 10]) {
          const target = new Uint8Array(length).fill(0xee)
          await expect(storage.readInto(target, 0, { signal: AbortSignal.abort(reason) })).rejects.toBe(
            reason,
          )
          expect([...target]).toEqual(new Array(length).fill(0xee))
        }
      }))

    it('with a signal that is aborted meanwhile: its reason', () =>
      using(async storage => {
        const controller = new AbortController()
        const read = readBytes(storage, 0, SIZE, { signal: controller.signal })
        const reason = new Error('enough')
        controller.abort(reason)
        if (immediate) expect(Buffer.compare(await read, content)).toBe(0)
        else await expect(read).rejects.toBe(reason)
        // Another read is none the worse.
        expect(await readBytes(storage, 10, 20)).toEqual(content.subarray(10, 30))
      }))

    it('with a signal that is not aborted: as without, and nothing listens to it later', () =>
      using(async storage => {
        const { signal } = new AbortController()
        expect(await readBytes(storage, 5, 10, { signal })).toEqual(content.subarray(5, 15))
        await readBytes(storage, 5, 0, { signal })
        await expect(readBytes(storage, SIZE, 1, { signal })).rejects.toThrow(RangeError)
        expect(getEventListeners(signal, 'abort')).toEqual([])
      }))

    it('says what is near in whole bytes, if at all', () =>
      using(async storage => {
        expect(storage.nearBytes ?? 0).toBeGreaterThanOrEqual(0)
        expect(Number.isSafeInteger(storage.nearBytes ?? 0)).toBe(true)
      }))

    it('tells what is stored, if at all, from every offset to the end', () =>
      using(async storage => {
        if (storage.storedRun === undefined) return
        for (const from of [0, 1, 65535, SIZE - 1]) {
          let offset = from
          while (offset < SIZE) {
            const { data, end } = await storage.storedRun(offset)
            // Random bytes: a hole would be a lie.
            expect(data).toBe(true)
            expect(end).toBeGreaterThan(offset)
            offset = end
          }
          expect(offset).toBe(SIZE)
        }
        for (const offset of [SIZE, -1, 0.5, Number.NaN]) {
          await expect(storage.storedRun(offset)).rejects.toThrow(RangeError)
        }
      }))

    it('closed while it reads: the read ends, well or not, and close too', async () => {
      const storage = await open()
      const read = readBytes(storage, 0, SIZE).catch((error: Error) => error)
      await storage.close()
      const result = await read
      if (result instanceof Error) expect(result.message).toMatch(/closed/)
      else expect(Buffer.compare(result, content)).toBe(0)
      await expect(storage.readInto(new Uint8Array(1), 0)).rejects.toThrow(/closed/)
      await expect(storage.storedRun?.(0) ?? Promise.reject(new Error('closed'))).rejects.toThrow(/closed/)
    })

    it('throws once it is closed; may be closed twice', async () => {
      const storage = await open()
      await storage.close()
      await storage.close()
      await expect(storage.readInto(new Uint8Array(1), 0)).rejects.toThrow(/closed/)
    })
  })
}

describe('memory', () => {
  it('knows of no holes', () => expect(memoryStorage(content).storedRun).toBeUndefined())
})

describe('Blobs', () => {
  it('are called by the name they have', () => {
    expect(blobStorage(new File([content], 'disk.qcow2')).name).toBe('disk.qcow2')
    expect(blobStorage(new Blob([content])).name).toBe('blob')
    expect(blobStorage(new Blob([content]), 'upload').name).toBe('upload')
  })

  it('are the same if it is the same object', () => {
    const blob = new Blob([content])
    expect(blobStorage(blob).identity).toBe(blobStorage(blob, 'other').identity)
    expect(blobStorage(blob).identity).not.toBe(blobStorage(new Blob([content])).identity)
  })

  it('of a file that changed since: read-failed', async () => {
    const file = written('chosen')
    const storage = blobStorage(await openAsBlob(file))
    expect(await readBytes(storage, 0, 4)).toEqual(content.subarray(0, 4))
    truncateSync(file, 1000)
    await expect(readBytes(storage, 0, 4)).rejects.toMatchObject({
      name: 'Qcow2Error',
      code: 'read-failed',
      cause: expect.objectContaining({ name: 'NotReadableError' }),
    })
  })

  it('that give less than they should: ShortReadError, never zeros', async () => {
    const blob = new Blob([content])
    blob.slice = () => new Blob([content.subarray(0, 7)])
    await expect(readBytes(blobStorage(blob), 0, 10)).rejects.toMatchObject({
      code: 'short-read',
      details: { got: 7, length: 10, offset: 0 },
    })
  })

  it('are read in pieces, and no further once aborted', async () => {
    const long = new Uint8Array(9 * 2 ** 20 + 3)
    for (let at = 0; at < long.byteLength; at += 997) long[at] = at
    const blob = new Blob([long])
    const pieces: number[] = []
    const slice = blob.slice.bind(blob)
    blob.slice = (start, end) => {
      pieces.push(end! - start!)
      return slice(start, end)
    }
    const storage = blobStorage(blob)
    expect(Buffer.compare(await readBytes(storage, 0, long.byteLength), long)).toBe(0)
    expect(pieces).toEqual([4 * 2 ** 20, 4 * 2 ** 20, 2 ** 20 + 3])
    pieces.length = 0
    const controller = new AbortController()
    const read = readBytes(storage, 0, long.byteLength, { signal: controller.signal })
    controller.abort()
    await expect(read).rejects.toMatchObject({ name: 'AbortError' })
    expect(pieces).toEqual([4 * 2 ** 20])
  })
})

describe('files', () => {
  it.each([
    ['in the pool', false],
    ['on this thread', true],
  ])('large ones are read in pieces, so that a signal is seen: %s', async (_, blocking) => {
    const size = 40 * 2 ** 20 + 3
    const long = dir.file('long')
    writeFileSync(long, content)
    truncateSync(long, size)
    const storage = await openFile(long, { blocking })
    const whole = await readBytes(storage, 0, size)
    expect(Buffer.compare(whole.subarray(0, SIZE), content)).toBe(0)
    expect(whole.subarray(SIZE).every(byte => byte === 0)).toBe(true)
    const controller = new AbortController()
    const target = new Uint8Array(size).fill(0xee)
    const read = storage.readInto(target, 0, { signal: controller.signal })
    setImmediate(() => controller.abort())
    await expect(read).rejects.toMatchObject({ name: 'AbortError' })
    expect(target.at(-1)).toBe(0xee)
    // What the kernel had begun has ended: nothing is written from now on.
    const left = target.slice()
    await new Promise(resolve => setTimeout(resolve, 50))
    expect(Buffer.compare(target, left)).toBe(0)
    await storage.close()
  })

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
  it('do not tell of holes', async () => {
    const storage = await openFile(device!)
    expect(storage.storedRun).toBeUndefined()
    await storage.close()
  })

  it('are one by whatever node', async () => {
    const [major, minor] = runSync('stat', ['-c', '%Hr %Lr', device!]).stdout.trim().split(' ')
    const other = dir.file('node')
    runSync('mknod', [other, 'b', major!, minor!])
    // As LVM's names are: links to /dev/dm-N.
    symlinkSync(device!, dir.file('volume'))
    const [a, b, c] = await Promise.all([openFile(device!), openFile(other), openFile(dir.file('volume'))])
    expect(b.identity).toBe(a.identity)
    expect(c).toMatchObject({ identity: a.identity, size: SIZE })
    await Promise.all([a, b, c].map(storage => storage.close()))
  })
})
