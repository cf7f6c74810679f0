// Locks on files that are read and held: who may be beside them, as beside QEMU's readers.
import { chmodSync, closeSync, openSync } from 'node:fs'
import { qcow2Blockdev, type RunResult, run, StorageDaemon } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { openHeldFile, readLocks } from '../src/node/index.js'
import { F_RDLCK, F_UNLCK, F_WRLCK, native } from '../src/node/native.js'
import { openWritableFile } from '../src/node/writable-file.js'
import {
  addBitmap,
  any,
  daemon,
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
  wasRefused,
  write,
  writers,
} from './lock-peers.js'

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
  it.each<readonly [string, Hold, string]>([
    ...writers.map(([name, hold]) => [name, hold, 'image-locked written'] as const),
    ['one that reads', file => daemon(file, { 'read-only': true }), 'opened'],
    ['one that writes to an overlay', overlay, 'opened'],
    ['qemu-nbd -r', nbd('-r'), 'opened'],
    ['qemu-io -r -U', io('-r', '-U'), 'opened'],
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
