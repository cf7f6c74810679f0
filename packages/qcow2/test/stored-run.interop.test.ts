// Holes in files, as lseek tells of them: against files whose holes are known, and against qemu-img map.
import { closeSync, ftruncateSync, openSync, readFileSync, statSync, truncateSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { needs, qemuImg, Random, run, runSync, tempDir } from '@tidemark/testkit'
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import { type ImageStorage, readBytes } from '../src/index.js'
import { openFile } from '../src/node/index.js'
import { native, SEEK_DATA, SEEK_HOLE } from '../src/node/native.js'

const dir = tempDir()
afterAll(() => dir.remove())

const MiB = 2 ** 20
const skip = process.platform !== 'linux'
const label = skip ? ' [skipped: needs Linux]' : ''

let serial = 0
/** A file that is a hole but for the named stretches. */
function sparse(size: number, ...data: readonly (readonly [start: number, end: number])[]): string {
  const file = dir.file(`s${serial++}`)
  const fd = openSync(file, 'w')
  ftruncateSync(fd, size)
  for (const [start, end] of data)
    writeSync(fd, new Uint8Array(end - start).fill(0x5a), 0, end - start, start)
  closeSync(fd)
  return file
}

type Run = readonly [start: number, end: number, data: boolean]

/** All runs, neighbours of one kind put together. */
async function runsOf(storage: ImageStorage): Promise<Run[]> {
  const runs: Run[] = []
  for (let start = 0; start < storage.size; ) {
    const { data, end } = await storage.storedRun!(start)
    expect(end).toBeGreaterThan(start)
    expect(end).toBeLessThanOrEqual(storage.size)
    const last = runs.at(-1)
    if (last?.[2] === data) runs[runs.length - 1] = [last[0], end, data]
    else runs.push([start, end, data])
    start = end
  }
  return runs
}

async function using<T>(file: string, use: (storage: ImageStorage) => Promise<T>): Promise<T> {
  const storage = await openFile(file)
  try {
    return await use(storage)
  } finally {
    await storage.close()
  }
}

describe.skipIf(skip)(`storedRun${label}`, () => {
  it.each<[string, number, [number, number][]]>([
    ['nothing but a hole', 4 * MiB, []],
    ['no hole', MiB, [[0, MiB]]],
    ['a hole before', 4 * MiB, [[2 * MiB, 4 * MiB]]],
    ['a hole after', 4 * MiB, [[0, 2 * MiB]]],
    [
      'several',
      9 * MiB,
      [
        [MiB, 2 * MiB],
        [4 * MiB, 5 * MiB],
      ],
    ],
    ['far behind 2^32, and 2^42', 2 ** 42 + MiB, [[2 ** 42, 2 ** 42 + MiB]]],
  ])('%s', async (_, size, data) => {
    const expected: Run[] = []
    let at = 0
    for (const [start, end] of data) {
      if (start > at) expected.push([at, start, false])
      expected.push([start, end, true])
      at = end
    }
    if (at < size) expected.push([at, size, false])
    await using(sparse(size, ...data), async storage => expect(await runsOf(storage)).toEqual(expected))
  })

  it('from the middle of a run, to its end', async () => {
    const file = sparse(4 * MiB, [MiB, 2 * MiB])
    await using(file, async storage => {
      expect(await storage.storedRun!(5)).toEqual({ data: false, end: MiB })
      expect(await storage.storedRun!(MiB - 1)).toEqual({ data: false, end: MiB })
      expect(await storage.storedRun!(MiB)).toEqual({ data: true, end: 2 * MiB })
      expect(await storage.storedRun!(2 * MiB - 1)).toEqual({ data: true, end: 2 * MiB })
      expect(await storage.storedRun!(4 * MiB - 1)).toEqual({ data: false, end: 4 * MiB })
    })
  })

  it('an empty file has none', () =>
    using(sparse(0), async storage => {
      await expect(storage.storedRun!(0)).rejects.toThrow(RangeError)
    }))

  it('a file that was cut since has no hole where it was: reading it is an error', async () => {
    const file = sparse(8 * MiB, [0, MiB])
    await using(file, async storage => {
      truncateSync(file, 4 * MiB)
      expect(await storage.storedRun!(0)).toEqual({ data: true, end: MiB })
      expect(await storage.storedRun!(2 * MiB)).toEqual({ data: true, end: 8 * MiB })
      expect(await storage.storedRun!(6 * MiB)).toEqual({ data: true, end: 8 * MiB })
      await expect(readBytes(storage, 6 * MiB, 1)).rejects.toMatchObject({ code: 'short-read' })
    })
  })

  it('a file that grew since ends where it did', async () => {
    for (const data of [[MiB, 4 * MiB] as const, [0, MiB] as const]) {
      const file = sparse(4 * MiB, data)
      await using(file, async storage => {
        truncateSync(file, 8 * MiB)
        const fd = openSync(file, 'r+')
        const more = data[1] === 4 * MiB ? 4 * MiB : 6 * MiB
        writeSync(fd, new Uint8Array(MiB).fill(1), 0, MiB, more)
        closeSync(fd)
        expect((await runsOf(storage)).at(-1)).toEqual([MiB, 4 * MiB, data[1] === 4 * MiB])
      })
    }
  })

  it('reads go on beside it: nobody needs the position that it moves', async () => {
    const file = sparse(4 * MiB, [MiB, 2 * MiB])
    await using(file, async storage => {
      const bytes = readFileSync(file)
      const reads = Array.from({ length: 40 }, async (_, at) => {
        const offset = at * 100_000
        await storage.storedRun!(offset)
        expect(
          Buffer.compare(await readBytes(storage, offset, 1000), bytes.subarray(offset, offset + 1000)),
        ).toBe(0)
      })
      await Promise.all(reads)
    })
  })
})

const peers = needs('qemu-img')
describe.skipIf(skip || peers.skip)(`storedRun says what qemu-img map says${label}${peers.label}`, () => {
  const agree = async (file: string): Promise<Run[]> => {
    const { stdout } = await run('qemu-img', ['map', '--output=json', '-f', 'raw', file])
    const expected: Run[] = []
    await using(file, async storage => {
      for (const { start, length, data } of JSON.parse(stdout) as qemuImg.MapExtent[]) {
        // QEMU counts whole sectors.
        const end = Math.min(start + length, storage.size)
        const last = expected.at(-1)
        if (last?.[2] === data) expected[expected.length - 1] = [last[0], end, data]
        else expected.push([start, end, data])
      }
      expect(await runsOf(storage)).toEqual(expected)
    })
    return expected
  }

  it('of random files', async () => {
    const random = new Random('holes')
    let holes = 0
    for (let round = 0; round < 20; round++) {
      const pages = random.int(1, 200)
      const data = Array.from({ length: random.int(0, 20) }, () => {
        const start = random.int(0, pages - 1)
        return [start * 4096, random.int(start + 1, Math.min(pages, start + 20)) * 4096] as const
      })
      // The last page is not always whole.
      const runs = await agree(sparse(pages * 4096 - random.int(0, 1) * random.int(1, 4095), ...data))
      holes += runs.filter(([, , stored]) => !stored).length
    }
    expect(holes).toBeGreaterThan(40)
  })

  it('of what was set aside, written in part, and given back', async () => {
    const file = sparse(0)
    runSync('fallocate', ['-l', '8M', file])
    expect(statSync(file).blocks * 512).toBeGreaterThanOrEqual(8 * MiB)
    const fd = openSync(file, 'r+')
    writeSync(fd, new Uint8Array(MiB).fill(1), 0, MiB, 2 * MiB)
    closeSync(fd)
    const before = await agree(file)
    runSync('fallocate', ['-p', '-o', String(2 * MiB + 65536), '-l', '65536', file])
    const after = await agree(file)
    expect(after.filter(([, , data]) => !data).length).toBe(before.filter(([, , data]) => !data).length + 1)
  })

  it('of a qcow2 image as a file', async () => {
    const file = dir.file('image.qcow2')
    await qemuImg.create(file, '1G', { preallocation: 'metadata' })
    const runs = await agree(file)
    expect(runs.some(([, , data]) => !data)).toBe(true)
  })
})

describe.skipIf(skip)(`native calls${label}`, () => {
  it('give errnos as negative numbers', async () => {
    const { lseek } = (await native())!
    const fd = openSync(sparse(MiB), 'r')
    expect(lseek(fd, 0, SEEK_DATA)).toBe(-constants.errno.ENXIO)
    expect(lseek(fd, 10, SEEK_HOLE)).toBe(10)
    expect(lseek(fd, 2 ** 53 - 1, SEEK_DATA)).toBe(-constants.errno.ENXIO)
    expect(lseek(fd, 0, 99)).toBe(-constants.errno.EINVAL)
    closeSync(fd)
    expect(lseek(-1, 0, SEEK_DATA)).toBe(-constants.errno.EBADF)
  })

  it('are loaded when somebody asks, not before', async () => {
    const script = `
      const { openFile } = await import(${JSON.stringify(new URL('../dist/node/index.js', import.meta.url).href)})
      const { readFileSync } = await import('node:fs')
      const loaded = () => readFileSync('/proc/self/maps', 'utf8').includes('koffi')
      const storage = await openFile(${JSON.stringify(sparse(MiB, [0, 4096]))})
      await storage.readInto(new Uint8Array(10), 0)
      const before = loaded()
      const run = await storage.storedRun(4096)
      console.log(JSON.stringify([before, run, loaded()]))`
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script])
    expect(JSON.parse(stdout)).toEqual([false, { data: false, end: MiB }, true])
  })
})

describe('without koffi', () => {
  afterEach(() => {
    vi.doUnmock('koffi')
    vi.resetModules()
  })
  it.each<[string, () => unknown]>([
    [
      'it is not installed',
      () => {
        throw new Error("Cannot find package 'koffi'")
      },
    ],
    ['it has no such function', () => ({ default: {} })],
    [
      'the C library has no lseek',
      () => ({
        default: {
          load: () => ({
            func: () => {
              throw new Error('Cannot find function')
            },
          }),
        },
      }),
    ],
  ])('all is data: %s', async (_, koffi) => {
    vi.resetModules()
    vi.doMock('koffi', koffi as () => Promise<unknown>)
    const { openFile } = await import('../src/node/file-storage.js')
    const { native } = await import('../src/node/native.js')
    expect(await native()).toBeUndefined()
    const storage = await openFile(sparse(MiB))
    expect(await storage.storedRun!(5)).toEqual({ data: true, end: MiB })
    await storage.close()
  })
})
