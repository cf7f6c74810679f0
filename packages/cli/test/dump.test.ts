// Longer than most: the many places that one command writes to share their images and helpers.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import {
  childEnv,
  programPath,
  Random,
  run,
  runSync,
  type TempDir,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { bin, plainEnv, tidemark, tidemarkError, tidemarkJson } from './cli.js'

// Raw images are guest data as they are, so that no other program is needed to know what is right.

const MiB = 2 ** 20
const SIZE = 3 * MiB + 1536

let dir: TempDir
let file: string
let bytes: Buffer

beforeAll(() => {
  dir = tempDir()
  file = dir.file('disk.raw')
  bytes = Buffer.alloc(SIZE)
  const random = new Random('dump')
  for (const [start, end] of [
    [0, 4096],
    [512 * 1024, 2 * MiB + 77],
    [SIZE - 512, SIZE],
  ] as const) {
    for (let at = start; at < end; at += 4)
      bytes.writeUInt32LE(random.int(1, 2 ** 32 - 1), Math.min(at, SIZE - 4))
  }
  writeFileSync(file, bytes)
})
afterAll(() => dir?.remove())

/** A folder for each test: what is left in it is what the test left. */
let at: (name: string) => string
let left: () => string[]
let folders = 0
beforeEach(() => {
  const folder = dir.file(`t${folders++}`)
  mkdirSync(folder)
  at = name => `${folder}/${name}`
  left = () => readdirSync(folder).sort()
})

/** Standard output as a file. */
async function toStdout(args: readonly string[], to = at('stdout'), flags = 'w'): Promise<number> {
  const out = openSync(to, flags)
  const child = spawn(process.execPath, [bin, 'dump', ...args], {
    env: childEnv(plainEnv),
    stdio: ['ignore', out, 'pipe'],
  })
  closeSync(out)
  const [status] = (await once(child, 'close')) as [number]
  return status
}

const errorOf = async (...args: string[]): Promise<[number, string]> => {
  const { status, error } = await tidemarkError(['dump', ...args])
  return [status, error.code]
}

describe('what is written', () => {
  it('to a file: the disk, with holes for its zeros, and not a word', async () => {
    expect(await tidemark(['dump', file, '-o', at('out')])).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(readFileSync(at('out')).equals(bytes)).toBe(true)
    expect(statSync(at('out')).blocks * 512).toBeLessThan(2 * MiB)
    expect(left()).toEqual(['out'])
  })

  it.each([[[]], [['-o', '-']]])('to standard output: the same bytes %j', async more => {
    expect(await toStdout([file, ...more])).toBe(0)
    expect(readFileSync(at('stdout')).equals(bytes)).toBe(true)
  })

  it.each([
    [0, 1],
    [1, 4095],
    [4095, 2],
    [777, 2 * MiB],
    [512 * 1024 - 1, 3],
    [SIZE - 1, 1],
    [SIZE, 0],
    [0, SIZE],
  ])('from %i on, %i bytes: these to a pipe; in a file at their place', async (offset, length) => {
    const range = ['--offset', String(offset), '--length', String(length)]
    expect(await toStdout([file, ...range])).toBe(0)
    const part = bytes.subarray(offset, offset + length)
    expect(readFileSync(at('stdout')).equals(part)).toBe(true)
    await tidemark(['dump', file, ...range, '-o', at('out')])
    const placed = Buffer.alloc(SIZE)
    part.copy(placed, offset)
    expect(readFileSync(at('out')).equals(placed)).toBe(true)
  })

  it('a size has suffixes; without a length it goes to the end', async () => {
    await toStdout([file, '--offset', '1M'])
    expect(readFileSync(at('stdout')).equals(bytes.subarray(MiB))).toBe(true)
  })

  it.each([
    ['--offset', String(SIZE + 1)],
    ['--offset', '1G', '--length', '0'],
    ['--length', String(SIZE + 1)],
    ['--offset', String(SIZE), '--length', '1'],
  ])('past the end: never fewer bytes without a word: %s %s %s %s', async (...range) => {
    const more = range.filter(word => word !== undefined)
    expect(await errorOf(file, ...more, '-o', at('out'))).toEqual([1, 'range-past-end'])
    expect(left()).toEqual([])
  })

  it('a bitmap: what it marks, to a file; in a pipe with zeros in between', async () => {
    // The bitmap's own disk has no data of its own: they are those of the raw image below.
    const overlay = at('overlay.qcow2')
    writeQcow2(overlay, {
      virtualSize: SIZE,
      backingFile: file,
      backingFormat: 'raw',
      bitmaps: [{ name: 'b', dirty: [0, 9, 10, 48] }],
    })
    const wanted = Buffer.alloc(SIZE)
    for (const granule of [0, 9, 10, 48])
      bytes.copy(wanted, granule * 65536, granule * 65536, (granule + 1) * 65536)
    expect(await toStdout([overlay, '--bitmap', 'b'])).toBe(0)
    expect(readFileSync(at('stdout')).equals(wanted)).toBe(true)
    const done = await tidemarkJson(['dump', overlay, '--bitmap', 'b', '-o', at('out')])
    expect(readFileSync(at('out')).equals(wanted)).toBe(true)
    const dirty = 3 * 65536 + 1536
    const stored = 4096 + 2 * 65536 + 512
    expect(done).toEqual({
      filename: overlay,
      out: at('out'),
      'virtual-size': SIZE,
      offset: 0,
      length: SIZE,
      // A block of 4 KiB that has data is written whole.
      'bytes-written': expect.any(Number),
      'zero-bytes': expect.any(Number),
    })
    const { 'bytes-written': written, 'zero-bytes': zeros } = done as Record<string, number>
    expect(written! + zeros!).toBe(dirty)
    expect(written!).toBeGreaterThanOrEqual(stored)
    expect(written!).toBeLessThan(stored + 2 * 4096)
    const range = ['--offset', '600000', '--length', '100000']
    await toStdout([overlay, '--bitmap', 'b', ...range])
    expect(readFileSync(at('stdout')).equals(wanted.subarray(600000, 700000))).toBe(true)
  })

  it('nothing but the bytes with --output json and no OUT', async () => {
    expect(await toStdout([file, '--output', 'json'])).toBe(0)
    expect(readFileSync(at('stdout')).equals(bytes)).toBe(true)
  })
})

/** 315 MB, made when it is first asked for. */
function bigDisk(): string {
  const big = dir.file('big.raw')
  if (!existsSync(big)) for (let i = 0; i < 100; i++) appendFileSync(big, bytes)
  return big
}

it('memory does not grow with the disk', async () => {
  const hook = at('hook.cjs')
  writeFileSync(hook, "process.on('exit', () => console.error(process.resourceUsage().maxRSS))")
  for (const where of [['-o', at('out')], []]) {
    const args = ['-r', hook, bin, 'dump', bigDisk(), ...where].map(word => `'${word}'`).join(' ')
    const line = `'${process.execPath}' ${args} > '${at('stdout')}'`
    const { stderr } = await run('sh', ['-c', line], { env: plainEnv })
    // Node itself takes 40 to 50 MB.
    expect(Number(stderr)).toBeGreaterThan(20_000)
    expect(Number(stderr)).toBeLessThan(100_000)
  }
})

describe('OUT', () => {
  it('that is there is replaced, and keeps its mode', async () => {
    writeFileSync(at('out'), 'old', { mode: 0o640 })
    chmodSync(at('out'), 0o640)
    await tidemark(['dump', file, '-o', at('out')])
    expect(readFileSync(at('out')).equals(bytes)).toBe(true)
    expect(statSync(at('out')).mode & 0o777).toBe(0o640)
  })

  it.each(['there', 'not there yet'])('a symbolic link stays one, to a file that is %s', async which => {
    mkdirSync(at('folder'))
    if (which === 'there') writeFileSync(at('folder/target'), 'old')
    symlinkSync('folder/target', at('link'))
    expect((await tidemark(['dump', file, '-o', at('link')])).status).toBe(0)
    expect(lstatSync(at('link')).isSymbolicLink()).toBe(true)
    expect(readFileSync(at('folder/target')).equals(bytes)).toBe(true)
    expect(left()).toEqual(['folder', 'link'])
  })

  it.each(['no/such/folder', 'folder', 'file/below'])('that cannot be: %s', async name => {
    mkdirSync(at('folder'))
    writeFileSync(at('file'), 'x')
    expect(await errorOf(file, '-o', at(name))).toEqual([1, 'write-failed'])
    expect(left()).toEqual(['file', 'folder'])
  })

  describe('that is an image of the chain, under any name', () => {
    const cases: readonly (readonly [string, () => string])[] = [
      ['the image', () => at('top.qcow2')],
      ['its backing file', () => at('base.raw')],
      ['a hard link', () => at('hard')],
      ['a symbolic link', () => at('sym')],
      ['another path', () => `${at('')}../${at('').split('/').at(-2)}/top.qcow2`],
      ['the image of a bitmap', () => at('other.qcow2')],
      ['a hard link to the data file', () => at('hard-data')],
    ]
    it.each(cases)('%s: nothing is written', async (_, out) => {
      writeFileSync(at('base.raw'), bytes)
      writeQcow2(at('top.qcow2'), { virtualSize: SIZE, backingFile: 'base.raw', backingFormat: 'raw' })
      writeQcow2(at('other.qcow2'), { virtualSize: SIZE, bitmaps: [{ name: 'b', dirty: [1] }] })
      writeFileSync(at('data'), bytes)
      writeQcow2(at('with-data.qcow2'), { virtualSize: SIZE, dataFile: { name: at('data') } })
      linkSync(at('base.raw'), at('hard'))
      linkSync(at('data'), at('hard-data'))
      symlinkSync('top.qcow2', at('sym'))
      const names = left()
      const before = names.map(name => readFileSync(at(name)))
      const args = out().endsWith('hard-data')
        ? [at('with-data.qcow2')]
        : [at('top.qcow2'), '--bitmap', `b@${at('other.qcow2')}`]
      expect(await errorOf(...args, '-o', out())).toEqual([1, 'write-failed'])
      expect(left()).toEqual(names)
      for (const [i, name] of names.entries()) expect(readFileSync(at(name)).equals(before[i]!)).toBe(true)
    })

    it('standard output: nothing is appended to it', async () => {
      writeFileSync(at('base.raw'), bytes)
      expect(await toStdout([at('base.raw')], at('base.raw'), 'a')).toBe(1)
      expect(readFileSync(at('base.raw')).equals(bytes)).toBe(true)
    })
  })

  it('a pipe gets all bytes in order', async () => {
    await run('mkfifo', [at('pipe')])
    const reader = run('sh', ['-c', `cmp '${at('pipe')}' '${file}'`], { accept: 'any' })
    expect((await tidemark(['dump', file, '-o', at('pipe')])).status).toBe(0)
    expect(await reader).toMatchObject({ status: 0, stdout: '' })
    expect(left()).toEqual(['pipe'])
  })

  it('a pipe whose reader goes away is an error', async () => {
    await run('mkfifo', [at('pipe')])
    const reader = run('sh', ['-c', `head -c 10 '${at('pipe')}' > /dev/null`])
    expect(await errorOf(file, '-o', at('pipe'))).toEqual([1, 'write-failed'])
    await reader
  })
})

const loop = runSync('sh', ['-c', 'command -v losetup && losetup -f'], { accept: 'any' })
const canLoop = process.getuid?.() === 0 && loop.status === 0
describe.skipIf(!canLoop)(
  `OUT is a block device${canLoop ? '' : ' [skipped: needs root and a loop device]'}`,
  () => {
    const withDevice = async (size: number, work: (device: string) => Promise<void>): Promise<void> => {
      writeFileSync(at('backend'), Buffer.alloc(size, 0xee))
      const device = (await run('losetup', ['-f', '--show', at('backend')])).stdout.trim()
      try {
        await work(device)
      } finally {
        await run('losetup', ['-d', device])
      }
    }

    it('it is written in place, zeros too; what is behind the disk stays', async () =>
      withDevice(4 * MiB, async device => {
        expect((await tidemark(['dump', file, '-o', device])).status).toBe(0)
        await run('sync', [])
        const now = readFileSync(at('backend'))
        expect(now.subarray(0, SIZE).equals(bytes)).toBe(true)
        expect(now.subarray(SIZE).every(byte => byte === 0xee)).toBe(true)
      }))

    it('one that is too small, or is read, is left alone', async () =>
      withDevice(2 * MiB, async device => {
        expect(await errorOf(file, '-o', device)).toEqual([1, 'write-failed'])
        expect(await errorOf(device, '-o', device)).toEqual([1, 'write-failed'])
        await run('sync', [])
        expect(readFileSync(at('backend')).every(byte => byte === 0xee)).toBe(true)
      }))

    it('there are no holes for what is left out', async () =>
      withDevice(4 * MiB, async device => {
        expect(await errorOf(file, '--length', '1M', '-o', device)).toEqual([64, 'usage'])
        expect(readFileSync(at('backend')).every(byte => byte === 0xee)).toBe(true)
      }))
  },
)

describe('a dump that fails leaves OUT as it was, and nothing beside it', () => {
  beforeEach(() => writeFileSync(at('out'), 'old'))
  const asBefore = () => {
    expect(left()).toEqual(['out'])
    expect(readFileSync(at('out'), 'utf8')).toBe('old')
  }

  it('a limit on the size of files', async () => {
    const line = `ulimit -f 2048; exec "${process.execPath}" "${bin}" dump "${file}" -o "${at('out')}"`
    const { status, stderr } = await run('sh', ['-c', line], { accept: 'any', env: plainEnv })
    expect(status).toBe(1)
    expect(stderr).toMatch(/^error: cannot write .*out: EFBIG: file too large\n$/)
    asBefore()
  })

  it('data that cannot be read', async () => {
    const cut = dir.file('cut.qcow2')
    writeQcow2(cut, { virtualSize: SIZE, backingFile: 'gone.raw', backingFormat: 'raw' })
    expect(await errorOf(cut, '-o', at('out'))).toEqual([1, 'image-missing'])
    asBefore()
  })

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('%s', async (signal, wanted) => {
    const child = spawn(process.execPath, [bin, 'dump', bigDisk(), '-o', at('out')], {
      env: childEnv(plainEnv),
    })
    const ended = once(child, 'close')
    // As soon as there is something to take away.
    while (left().length === 1) await new Promise(resolve => setTimeout(resolve, 1))
    expect(left()[0]).toMatch(/^\.out\.[0-9a-f]{12}\.part$/)
    child.kill(signal)
    expect((await ended)[0]).toBe(wanted)
    asBefore()
  })
})

const canMount = process.getuid?.() === 0 && programPath('mount') !== undefined
describe.skipIf(!canMount)(`a full disk${canMount ? '' : ' [skipped: needs root, to mount one]'}`, () => {
  it('is an error, and what was written is taken away again', async context => {
    mkdirSync(at('small'))
    const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=1M', 'none', at('small')], {
      accept: 'any',
    })
    // A container may not mount though its user is root.
    if (mounted.status !== 0) return context.skip()
    try {
      const { status, error } = await tidemarkError(['dump', file, '-o', at('small/out')])
      expect(status).toBe(1)
      expect(error).toMatchObject({ code: 'write-failed', errno: 'ENOSPC', out: at('small/out') })
      expect(error.message).toBe(`cannot write ${at('small/out')}: ENOSPC: no space left on device`)
      expect(readdirSync(at('small'))).toEqual([])
    } finally {
      await run('umount', [at('small')])
    }
  })
})

describe('standard output', () => {
  it('a full disk is an error', async () => {
    const line = `"${process.execPath}" "${bin}" dump "${file}" > /dev/full`
    const { status, stderr } = await run('sh', ['-c', line], { accept: 'any', env: plainEnv })
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'error: cannot write the output: ENOSPC: no space left on device, write\n',
    })
  })

  it('a reader that goes away ends it, quietly', async () => {
    const line = `("${process.execPath}" "${bin}" dump "${file}"; echo $? >&2) | head -c 5`
    const { stdout, stderr } = await run('sh', ['-c', line], { env: plainEnv })
    expect(stderr).toBe('141\n')
    expect(stdout).toHaveLength(Buffer.from(bytes.subarray(0, 5)).toString().length)
  })
})

describe('what an image may refer to', () => {
  let folder: string
  beforeEach(() => {
    folder = at('allowed')
    mkdirSync(folder)
    mkdirSync(at('allowed-not'))
    writeFileSync(at('allowed/base.raw'), bytes)
    writeFileSync(at('allowed-not/base.raw'), bytes)
    symlinkSync('../allowed-not/base.raw', at('allowed/link.raw'))
    const spec = { virtualSize: SIZE, backingFormat: 'raw' }
    writeQcow2(at('good.qcow2'), { ...spec, backingFile: 'allowed/base.raw' })
    writeQcow2(at('beside.qcow2'), { ...spec, backingFile: 'allowed-not/base.raw' })
    writeQcow2(at('link.qcow2'), { ...spec, backingFile: 'allowed/link.raw' })
    writeQcow2(at('up.qcow2'), { ...spec, backingFile: 'allowed/../allowed-not/base.raw' })
    writeQcow2(at('unsaid.qcow2'), { virtualSize: SIZE, backingFile: 'allowed/base.raw' })
    writeQcow2(at('alone.qcow2'), { virtualSize: SIZE })
  })

  it.each(['dump', 'map'])('%s --no-backing opens nothing but the image', async command => {
    const out = command === 'dump' ? ['-o', at('out')] : []
    const status = async (name: string) =>
      (await tidemark([command, at(name), '--no-backing', '--output', 'json', ...out])).status
    expect(await status('alone.qcow2')).toBe(0)
    expect(await status('good.qcow2')).toBe(1)
    const { error } = await tidemarkError([command, at('good.qcow2'), '--no-backing', ...out])
    expect(error.code).toBe('reference-denied')
  })

  it.each(['dump', 'map'])('%s --allow DIR: what is below it, symbolic links followed', async command => {
    const out = command === 'dump' ? ['-o', at('out')] : []
    const told = async (name: string, ...more: string[]) => {
      const args = [command, at(name), ...more, ...out, '--output', 'json']
      const { status, stderr } = await tidemark(args)
      return status === 0 ? 'ok' : JSON.parse(stderr).error.code
    }
    expect(await told('good.qcow2', '--allow', folder)).toBe('ok')
    for (const name of ['beside', 'link', 'up']) {
      expect(await told(`${name}.qcow2`), name).toBe('ok')
      expect(await told(`${name}.qcow2`, '--allow', folder), name).toBe('reference-denied')
      expect(await told(`${name}.qcow2`, '--allow', folder, '--allow', at('allowed-not')), name).toBe('ok')
    }
  })

  it.each(['dump', 'map'])('%s looks for a format that is not said only with --probe', async command => {
    const out = command === 'dump' ? ['-o', at('out')] : []
    const { status, error } = await tidemarkError([command, at('unsaid.qcow2'), ...out])
    expect([status, error.code]).toEqual([1, 'reference-denied'])
    expect(error.message).toMatch(/does not say which format .*; --probe looks all the same$/)
    expect((await tidemark([command, at('unsaid.qcow2'), '--probe', ...out])).status).toBe(0)
    if (command === 'dump') expect(readFileSync(at('out')).equals(bytes)).toBe(true)
  })

  it('info --backing-chain has the same gate, and looks for formats', async () => {
    const infoOf = (name: string, ...more: string[]) =>
      tidemark(['info', at(name), '--backing-chain', ...more])
    expect(await infoOf('unsaid.qcow2')).toMatchObject({ status: 0, stderr: '' })
    const denied = await infoOf('beside.qcow2', '--allow', folder)
    expect(denied.status).toBe(1)
    expect(denied.stdout).toMatch(/problem +backing file .* is not below/)
    expect((await infoOf('good.qcow2', '--allow', folder)).status).toBe(0)
  })
})
