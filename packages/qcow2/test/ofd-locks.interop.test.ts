// Locks on files opened for writing: who may be beside whom, in both directions, as QEMU has it.
import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, symlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { basename } from 'node:path'
import { programPath, qcow2Blockdev, type RunResult, run, runSync, StorageDaemon } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { readBytes } from '../src/index.js'
import { openFile, readLocks } from '../src/node/index.js'
import { F_RDLCK, F_UNLCK, F_WRLCK, native } from '../src/node/native.js'
import { openWritableFile } from '../src/node/writable-file.js'
import {
  addBitmap,
  any,
  daemon,
  delay,
  dir,
  fresh,
  type Hold,
  io,
  label,
  lockedBytes,
  nbd,
  ours,
  outcome,
  overlay,
  skip,
  socket,
  startOurs,
  theirs,
  wasRefused,
  write,
  writers,
} from './lock-peers.js'

describe.skipIf(skip)(`while a QEMU has the image, ours is refused as QEMU's own writers are${label}`, () => {
  it.each<readonly [string, Hold, string]>([
    ...writers.map(([name, hold]) => [name, hold, 'image-locked written'] as const),
    ['one that reads', file => daemon(file, { 'read-only': true }), 'image-locked read'],
    [
      'one that reads whatever others do',
      file => daemon(file, { 'read-only': true, 'force-share': true }),
      'opened',
    ],
    ['one that writes to an overlay: this is its backing file', overlay, 'image-locked read'],
    ['qemu-nbd -r', nbd('-r'), 'image-locked read'],
    ['qemu-io -r', io('-r'), 'image-locked read'],
    ['qemu-io -r -U', io('-r', '-U'), 'opened'],
  ])('%s', async (_, hold, outcome) => {
    const file = await fresh()
    const release = await hold(file)
    try {
      const before = lockedBytes(file)
      expect(await theirs(file)).toBe(outcome !== 'opened')
      expect(await ours(file)).toBe(outcome)
      // A refused one leaves nothing behind.
      expect(lockedBytes(file)).toEqual(before)
      // Without taking locks nobody is overrun either.
      expect(await ours(file, { lock: 'none' })).toBe(outcome)
    } finally {
      await release()
    }
    expect(await theirs(file)).toBe(false)
    expect(await ours(file)).toBe('opened')
  })

  it('one that takes no locks is not seen, by nobody', async () => {
    const file = await fresh()
    const quiet = { driver: 'file', filename: file, locking: 'off' }
    const writer = await StorageDaemon.start([{ driver: 'qcow2', 'node-name': 'disk', file: quiet }])
    expect(await theirs(file)).toBe(false)
    expect(await ours(file)).toBe('opened')
    await writer.quit()
  })

  it('one that was killed', async () => {
    const file = await fresh()
    const writer = await StorageDaemon.start([qcow2Blockdev('disk', file)])
    expect(await ours(file)).toBe('image-locked written')
    await writer.kill()
    expect(await ours(file)).toBe('opened')
  })
})

describe.skipIf(skip)(`each of QEMU's bytes, locked by somebody, as by QEMU's own writers${label}`, () => {
  const bytes = [99, 100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 300]
  const refusals: Record<number, string> = {
    101: 'written',
    103: 'written',
    200: 'held',
    201: 'read',
    203: 'read',
  }
  it.each([
    ['read', F_RDLCK],
    ['write', F_WRLCK],
  ] as const)('by a %s lock', async (kind, type) => {
    const calls = (await native())!.ofdLocks!
    const file = await fresh()
    const fd = openSync(file, 'r+')
    const seen: Record<number, string> = {}
    for (const byte of bytes) {
      expect(calls.set(fd, type, byte, 1)).toBe(0)
      const outcome = await ours(file)
      expect({ byte, refused: outcome !== 'opened' }).toEqual({ byte, refused: await theirs(file) })
      if (outcome !== 'opened') seen[byte] = outcome
      expect(lockedBytes(file)).toEqual([byte])
      calls.set(fd, F_UNLCK, byte, 1)
    }
    closeSync(fd)
    const expected: Record<number, string> = {}
    for (const [byte, use] of Object.entries(refusals)) expected[Number(byte)] = `image-locked ${use}`
    // A write lock bears no read lock at the same place.
    if (kind === 'write') for (const byte of [100, 101, 103, 201, 203]) expected[byte] = 'image-locked held'
    expect(seen).toEqual(expected)
  })

  it('by a program that wants the whole file', async () => {
    const calls = (await native())!.ofdLocks!
    const file = await fresh()
    const fd = openSync(file, 'r+')
    // 0: to the end, however far.
    expect(calls.set(fd, F_WRLCK, 0, 0)).toBe(0)
    expect(await theirs(file)).toBe(true)
    expect(await ours(file)).toBe('image-locked held')
    closeSync(fd)
    expect(await ours(file)).toBe('opened')
  })
})

/** What a program said of locks, and how it ended. */

describe.skipIf(skip)(`while we have the image, QEMU is refused as beside its own writers${label}`, () => {
  /** qemu-nbd stays where it is not refused: it greets a client then. It listens before it opens the image. */
  const serves = (flag: string) => async (file: string) => {
    const path = socket()
    const child = spawn(programPath('qemu-nbd')!, ['-f', 'qcow2', '-t', '-k', path, flag, file])
    let stderr = ''
    child.stderr.on('data', piece => (stderr += piece))
    const ended = new Promise<number | null>(resolve => child.on('close', resolve))
    let greeted = false
    while (child.exitCode === null && !greeted) {
      greeted = await new Promise(resolve => {
        const client = connect(path)
        client.on('data', () => resolve(true)).on('error', () => resolve(false))
        client.on('close', () => resolve(false))
        ended.then(() => client.destroy())
      })
      await delay(10)
    }
    child.kill('SIGKILL')
    const status = await ended
    return { status: greeted ? 0 : status!, stderr, stdout: '', signal: null }
  }

  const WRITE = 'Failed to get "write" lock'
  const SHARED_WRITE = 'Failed to get shared "write" lock'
  const uses: [string, (file: string) => Promise<RunResult>, string][] = [
    ['qemu-io write', write, WRITE],
    ['qemu-img bitmap', addBitmap, WRITE],
    ['qemu-img resize', file => run('qemu-img', ['resize', '-f', 'qcow2', file, '2M'], any), WRITE],
    ['qemu-img check -r', file => run('qemu-img', ['check', '-r', 'all', '-f', 'qcow2', file], any), WRITE],
    ['qemu-nbd', serves('--discard=unmap'), WRITE],
    ['qemu-nbd -r', serves('-r'), SHARED_WRITE],
    ['qemu-img info', file => run('qemu-img', ['info', file], any), SHARED_WRITE],
    ['qemu-img check', file => run('qemu-img', ['check', file], any), SHARED_WRITE],
    ['qemu-img map', file => run('qemu-img', ['map', file], any), SHARED_WRITE],
    [
      'qemu-img convert',
      file => run('qemu-img', ['convert', '-O', 'raw', file, `${file}.raw`], any),
      SHARED_WRITE,
    ],
    [
      'qemu-io -r of an overlay',
      async file => {
        const top = dir.file(`${basename(file)}-top`)
        await run('qemu-img', ['create', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', file, top, '1M'])
        return await run('qemu-io', ['-r', '-c', 'read 0 512', top], any)
      },
      SHARED_WRITE,
    ],
    ['qemu-img info -U', file => run('qemu-img', ['info', '-U', file], any), 'ran'],
    ['qemu-img map -U', file => run('qemu-img', ['map', '-U', file], any), 'ran'],
    ['qemu-io -r -U', file => run('qemu-io', ['-r', '-U', '-c', 'read 0 512', file], any), 'ran'],
  ]

  it.each(uses)('%s', async (_, use, expected) => {
    const file = await fresh()
    const release = await daemon(file)
    const besideTheirs = outcome(await use(file))
    await release()
    const storage = await openWritableFile(file)
    const besideOurs = outcome(await use(file))
    await storage.close()
    expect({ besideTheirs, besideOurs }).toEqual({ besideTheirs: expected, besideOurs: expected })
    // Closed: it runs.
    expect(outcome(await use(file))).toBe('ran')
  })

  it('the kernel shows the same locks, and readLocks a writer', async () => {
    const file = await fresh()
    const release = await io()(file)
    const held = lockedBytes(file)
    await release()
    const storage = await openWritableFile(file)
    expect(lockedBytes(file)).toEqual(held)
    expect(held).toEqual([100, 101, 103, 201, 203])
    expect(await readLocks(file)).toEqual({ known: true, writer: true })
    await storage.close()
    expect(lockedBytes(file)).toEqual([])
    expect(await readLocks(file)).toEqual({ known: true, writer: false })
  })

  it('through a link too', async () => {
    const file = await fresh()
    symlinkSync(file, `${file}-link`)
    const storage = await openWritableFile(`${file}-link`)
    expect(await theirs(file)).toBe(true)
    await storage.close()
  })

  it('what else this process does with the file does not take the lock away', async () => {
    const file = await fresh()
    const storage = await openWritableFile(file)
    closeSync(openSync(file, 'r+'))
    readFileSync(file)
    await (await openFile(file)).close()
    expect(await ours(file)).toBe('image-locked written')
    await storage.writeFrom(await readBytes(storage, 0, 512), 0)
    await storage.resize(storage.size + 65536)
    await storage.flush()
    expect(await theirs(file)).toBe(true)
    await storage.close()
    expect(await theirs(file)).toBe(false)
  })

  it('no child takes it over', async () => {
    const file = await fresh()
    const storage = await openWritableFile(file)
    const child = spawn('sleep', ['60'])
    await new Promise(resolve => child.on('spawn', resolve))
    expect(await theirs(file)).toBe(true)
    await storage.close()
    expect(await theirs(file)).toBe(false)
    child.kill()
  })

  it('once opened without locks, anybody may write', async () => {
    const file = await fresh()
    const storage = await openWritableFile(file, { lock: 'none' })
    expect(lockedBytes(file)).toEqual([])
    expect(await theirs(file)).toBe(false)
    await storage.close()
  })

  it('a process that held it and was killed leaves nothing', async () => {
    const file = await fresh()
    const kill = await startOurs(
      `await openWritableFile(${JSON.stringify(file)}); setInterval(() => {}, 1000)`,
      file,
    )
    expect(lockedBytes(file)).toEqual([100, 101, 103, 201, 203])
    expect(await theirs(file)).toBe(true)
    expect(await ours(file)).toBe('image-locked written')
    await kill()
    expect(await theirs(file)).toBe(false)
    expect(await ours(file)).toBe('opened')
  })
})

/** A loop device over an image: only root can, and not in every container. */
function imageDevice(): string | undefined {
  if (skip) return undefined
  const file = dir.file('device')
  try {
    runSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'preallocation=full', file, '1M'])
    const done = runSync('losetup', ['-f', '--show', file], any)
    if (done.status !== 0) return undefined
    const device = done.stdout.trim()
    afterAll(() => runSync('losetup', ['-d', device], any))
    return device
  } catch {
    return undefined
  }
}
const device = imageDevice()
const deviceLabel = device === undefined ? ' [skipped: needs losetup and the right to use it]' : ''

describe.skipIf(device === undefined)(`an image on a block device${deviceLabel}`, () => {
  it('is refused while QEMU has it, and to QEMU while we have it', async () => {
    expect(await ours(device!)).toBe('opened')
    const release = await io()(device!)
    expect(wasRefused(await write(device!))).toBe(true)
    expect(await ours(device!)).toBe('image-locked written')
    await release()
    const reader = await io('-r')(device!)
    expect(await ours(device!)).toBe('image-locked read')
    await reader()
    const storage = await openWritableFile(device!)
    expect(wasRefused(await write(device!))).toBe(true)
    expect(wasRefused(await run('qemu-img', ['info', device!], any))).toBe(true)
    expect((await run('qemu-img', ['info', '-U', device!])).stdout).toContain('qcow2')
    expect(await ours(device!)).toMatch(/^image-locked/)
    await storage.close()
    expect(wasRefused(await write(device!))).toBe(false)
  })
})
