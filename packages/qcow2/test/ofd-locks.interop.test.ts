// Locks on files opened for writing: who may be beside whom, in both directions, as QEMU has it.
import { type ChildProcess, spawn } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { constants } from 'node:os'
import {
  needs,
  programPath,
  qcow2Blockdev,
  qemuImg,
  type RunResult,
  run,
  runSync,
  StorageDaemon,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import { readBytes } from '../src/index.js'
import { openFile, openHeldFile, readLocks } from '../src/node/index.js'
import { WRITER } from '../src/node/lock-bytes.js'
import { F_RDLCK, F_UNLCK, F_WRLCK, type NativeCalls, native } from '../src/node/native.js'
import { isLocked } from '../src/node/ofd-locks.js'
import { openWritableFile } from '../src/node/writable-file.js'

const dir = tempDir()
const cleanUp: (() => void)[] = []
afterAll(() => {
  for (const undo of cleanUp.reverse()) undo()
  dir.remove()
})

const linux = process.platform === 'linux'
const peers = needs('qemu-img', 'qemu-nbd', 'qemu-io', 'qemu-storage-daemon')
const skip = peers.skip || !linux
const label = linux ? peers.label : ' [skipped: needs Linux]'

let serial = 0
async function fresh(): Promise<string> {
  const file = dir.file(`l${serial++}`)
  await qemuImg.create(file, 2 ** 20)
  return file
}

const delay = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

/** The bytes of a file that are locked, by whomever, as the kernel shows them. */
function lockedBytes(file: string): number[] {
  const { ino } = statSync(file)
  const bytes: number[] = []
  for (const line of readFileSync('/proc/locks', 'ascii').split('\n')) {
    const match = /OFDLCK .*:(\d+) (\d+) (\d+)$/.exec(line)
    if (match === null || Number(match[1]) !== ino) continue
    for (let byte = Number(match[2]); byte <= Number(match[3]); byte++) bytes.push(byte)
  }
  return bytes.sort((a, b) => a - b)
}

/** What our open says: nothing, or the error's code and the use that it names. */
async function ours(file: string, options?: Parameters<typeof openWritableFile>[1]): Promise<string> {
  try {
    await (await openWritableFile(file, options)).close()
    return 'opened'
  } catch (error) {
    const { code, details } = error as { code: string; details: { use?: string } }
    return [code, details.use ?? ''].join(' ').trim()
  }
}

/** Whether a program was refused a lock; any other failure is the test's. */
function wasRefused({ status, stderr }: RunResult): boolean {
  if (status !== 0) expect(stderr).toMatch(/Failed to (get (shared )?"[\w ]+" lock|lock byte)/)
  return status !== 0
}

const any = { accept: 'any' } as const
const addBitmap = (file: string) =>
  run('qemu-img', ['bitmap', '--add', '-f', 'qcow2', file, `b${serial++}`], any)
const write = (file: string) => run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', file], any)

/** Whether QEMU's own writers are refused: all or none. */
async function theirs(file: string): Promise<boolean> {
  const refused = await Promise.all([addBitmap(file).then(wasRefused)])
  refused.push(wasRefused(await write(file)))
  expect(new Set(refused).size).toBe(1)
  return refused[0]!
}

/** Starts a program and waits until it holds locks on a file. */
async function start(command: string, args: string[], file: string): Promise<() => Promise<void>> {
  const child = spawn(programPath(command) ?? command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  return await untilLocked(child, file)
}

async function untilLocked(child: ChildProcess, file: string): Promise<() => Promise<void>> {
  let said = ''
  child.stdout?.resume()
  child.stderr?.on('data', piece => (said += piece))
  const ended = new Promise<void>(resolve => child.on('close', () => resolve()))
  const stop = async () => {
    child.kill('SIGKILL')
    await ended
  }
  // They are taken one by one, and at first perhaps not those that are kept.
  let last = ''
  for (let tries = 0, steady = 0; steady < 4; tries++) {
    const held = lockedBytes(file).join()
    steady = held !== '' && held === last ? steady + 1 : 0
    last = held
    if (tries > 800 || child.exitCode !== null) {
      await stop()
      throw new Error(`${child.spawnfile} did not lock ${file}: ${said}`)
    }
    await delay(25)
  }
  return stop
}

async function daemon(file: string, more: Record<string, unknown> = {}): Promise<() => Promise<void>> {
  const started = await StorageDaemon.start([qcow2Blockdev('disk', file, more)])
  return () => started.quit()
}

const socket = () => dir.file(`s${serial++}`)
const io = (...flags: string[]) => {
  return (file: string) => start('qemu-io', ['-f', 'qcow2', ...flags, '-c', 'sleep 60000', file], file)
}
const nbd = (...flags: string[]) => {
  return (file: string) => start('qemu-nbd', ['-f', 'qcow2', '-t', '-k', socket(), ...flags, file], file)
}
const machine = (share: string) => (file: string) => {
  const args = ['-S', '-machine', 'q35,accel=tcg', '-display', 'none', '-nodefaults', '-monitor', 'none']
  args.push('-blockdev', `driver=qcow2,node-name=d,file.driver=file,file.filename=${file}`)
  args.push('-device', `virtio-blk-pci,drive=d,share-rw=${share}`)
  return start('qemu-system-x86_64', args, file)
}
const overlay = async (file: string) => {
  const top = `${file}-top`
  await qemuImg.create(top, undefined, { backing: file })
  return await daemon(top)
}

describe.skipIf(skip)(`while a QEMU has the image, ours is refused as QEMU's own writers are${label}`, () => {
  const system = needs('qemu-system-x86_64')
  it.each<[string, (file: string) => Promise<() => Promise<void>>, string]>([
    ['a storage daemon that writes', daemon, 'image-locked written'],
    ['one that reads', file => daemon(file, { 'read-only': true }), 'image-locked read'],
    [
      'one that reads whatever others do',
      file => daemon(file, { 'read-only': true, 'force-share': true }),
      'opened',
    ],
    ['one that writes to an overlay: this is its backing file', overlay, 'image-locked read'],
    ['qemu-nbd', nbd(), 'image-locked written'],
    ['qemu-nbd -r', nbd('-r'), 'image-locked read'],
    ['qemu-io', io(), 'image-locked written'],
    ['qemu-io -r', io('-r'), 'image-locked read'],
    ['qemu-io -r -U', io('-r', '-U'), 'opened'],
    ...(system.skip
      ? []
      : [
          ['a machine', machine('off'), 'image-locked written'] as const,
          ['a machine, share-rw=on', machine('on'), 'image-locked written'] as const,
        ].map(([name, hold, outcome]) => [name, hold, outcome] as [string, typeof hold, string])),
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
function outcome({ status, stderr }: RunResult): string {
  const lock = /Failed to get (?:shared )?"[\w ]+" lock/.exec(stderr)?.[0]
  if (status !== 0 && lock === undefined) throw new Error(stderr)
  return lock ?? 'ran'
}

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
        const top = dir.file(`t${serial++}`)
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

describe.skipIf(skip)(`an image that we read and hold, as QEMU's readers do${label}`, () => {
  /** What our open says, and whether QEMU's own readers are refused. */
  const both = async (file: string) => {
    const said = await openHeldFile(file).then(
      storage => storage.close().then(() => 'opened'),
      error => `${error.code} ${error.details.use}`,
    )
    const qemu = await run('qemu-img', ['check', '-f', 'qcow2', file], any)
    return { said, refused: wasRefused(qemu) }
  }
  const system = needs('qemu-system-x86_64')
  it.each<[string, (file: string) => Promise<() => Promise<void>>, string]>([
    ['a storage daemon that writes', daemon, 'image-locked written'],
    ['one that reads', file => daemon(file, { 'read-only': true }), 'opened'],
    ['one that writes to an overlay', overlay, 'opened'],
    ['qemu-nbd', nbd(), 'image-locked written'],
    ['qemu-nbd -r', nbd('-r'), 'opened'],
    ['qemu-io', io(), 'image-locked written'],
    ['qemu-io -r -U', io('-r', '-U'), 'opened'],
    ...(system.skip
      ? []
      : [
          ['a machine', machine('off'), 'image-locked written'] as const,
          ['a machine, share-rw=on', machine('on'), 'image-locked written'] as const,
        ].map(([name, hold, said]) => [name, hold, said] as [string, typeof hold, string])),
  ])('beside %s', async (_, hold, said) => {
    const file = await fresh()
    const release = await hold(file)
    try {
      const before = lockedBytes(file)
      expect(await both(file)).toEqual({ said, refused: said !== 'opened' })
      expect(lockedBytes(file)).toEqual(before)
    } finally {
      await release()
    }
    expect(await both(file)).toEqual({ said: 'opened', refused: false })
  })

  it.each([
    ['read', F_RDLCK],
    ['write', F_WRLCK],
  ] as const)('each byte, by a %s lock: refused where QEMU is', async (kind, type) => {
    const calls = (await native())!.ofdLocks!
    const file = await fresh()
    const fd = openSync(file, 'r+')
    const refused: number[] = []
    for (const byte of [99, 100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 300]) {
      expect(calls.set(fd, type, byte, 1)).toBe(0)
      const found = await both(file)
      expect({ byte, ...found }).toMatchObject({ refused: found.said !== 'opened' })
      if (found.refused) refused.push(byte)
      calls.set(fd, F_UNLCK, byte, 1)
    }
    closeSync(fd)
    expect(refused).toEqual(kind === 'read' ? [101, 103, 200] : [100, 101, 103, 200, 201, 203])
  })

  it.each<[string, (file: string) => Promise<RunResult>, string]>([
    ['qemu-io write', write, 'Failed to get "write" lock'],
    ['qemu-img bitmap', addBitmap, 'Failed to get "write" lock'],
    [
      'qemu-img resize',
      file => run('qemu-img', ['resize', '-f', 'qcow2', file, '2M'], any),
      'Failed to get "write" lock',
    ],
    ['qemu-img info', file => run('qemu-img', ['info', file], any), 'ran'],
    ['qemu-img check', file => run('qemu-img', ['check', file], any), 'ran'],
    ['qemu-io -r', file => run('qemu-io', ['-r', '-c', 'read 0 512', file], any), 'ran'],
  ])('%s beside it', async (_, use, expected) => {
    const file = await fresh()
    const release = await daemon(file, { 'read-only': true })
    const theirs = lockedBytes(file)
    const besideTheirs = outcome(await use(file))
    await release()
    const storage = await openHeldFile(file)
    const held = lockedBytes(file)
    const besideOurs = outcome(await use(file))
    // A storage daemon that would write.
    await expect(StorageDaemon.start([qcow2Blockdev('disk', file)])).rejects.toThrow(
      /Failed to get "write" lock/,
    )
    await storage.close()
    expect({ besideTheirs, besideOurs }).toEqual({ besideTheirs: expected, besideOurs: expected })
    expect([theirs, held, lockedBytes(file)]).toEqual([[100, 201, 203], [100, 201, 203], []])
    expect(outcome(await use(file))).toBe('ran')
  })

  it('others of ours: who reads is let be, who writes is refused', async () => {
    const file = await fresh()
    const [a, b] = [await openHeldFile(file), await openHeldFile(file)]
    expect(await ours(file)).toBe('image-locked read')
    expect(await readLocks(file)).toEqual({ known: true, writer: false })
    await a.close()
    expect(await ours(file)).toBe('image-locked read')
    await b.close()
    const writer = await openWritableFile(file)
    expect(await both(file)).toEqual({ said: 'image-locked written', refused: true })
    await writer.close()
  })

  it('a file that may only be read', async () => {
    const file = await fresh()
    chmodSync(file, 0o444)
    const storage = await openHeldFile(file)
    expect(lockedBytes(file)).toEqual([100, 201, 203])
    await storage.close()
  })
})

/** Runs a script beside our module as built. */
const scriptArgs = (script: string): string[] => {
  const module = new URL('../dist/node/writable-file.js', import.meta.url).href
  const start = `const { openWritableFile } = await import(${JSON.stringify(module)})\n`
  return ['--input-type=module', '-e', start + script]
}
const startOurs = (script: string, file: string) => start(process.execPath, scriptArgs(script), file)

describe.skipIf(!linux)('several of ours', () => {
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

/** A loop device over an image: only root can, and not in every container. */
function imageDevice(): string | undefined {
  if (skip) return undefined
  const file = dir.file('device')
  try {
    runSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'preallocation=full', file, '1M'])
    const done = runSync('losetup', ['-f', '--show', file], any)
    if (done.status !== 0) return undefined
    const device = done.stdout.trim()
    cleanUp.push(() => runSync('losetup', ['-d', device], any))
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
