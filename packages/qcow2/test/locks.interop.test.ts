import { spawn } from 'node:child_process'
import { linkSync, symlinkSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { needs, programPath, qcow2Blockdev, qemuImg, run, StorageDaemon, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { readLocks } from '../src/node/index.js'
import { holdsWriter } from '../src/node/locks.js'

describe('holdsWriter', () => {
  const line = (
    range: string,
    more: { device?: string; inode?: number; kind?: string; type?: string } = {},
  ) =>
    `7: ${more.kind ?? 'OFDLCK'} ADVISORY  ${more.type ?? 'READ'}  -1 ${more.device ?? 'fe:00'}:${more.inode ?? 42} ${range}\n`
  const holds = (text: string) => holdsWriter(text, 'fe:00', 42)

  it.each([
    ['a writer', line('100 101') + line('103 103') + line('201 201') + line('203 203')],
    ['write alone', line('101 101')],
    ['resize alone', line('103 103')],
    ['others must not read', line('200 200')],
    ['everything', line('0 EOF')],
    ['a range around', line('99 300', { type: 'WRITE' })],
    [
      'after others’ lines',
      line('101 101', { inode: 43 }) + line('101 101', { device: 'fe:01' }) + line('101 101'),
    ],
  ])('%s', (_, text) => expect(holds(text)).toBe(true))

  it.each([
    ['nobody', ''],
    ['a reader', line('100 100') + line('201 201') + line('203 203')],
    ['consistent read and unchanged write', line('100 100') + line('102 102')],
    ['bytes beside', line('99 100') + line('102 102') + line('104 199') + line('201 300')],
    ['another inode', line('101 101', { inode: 421 })],
    ['another device', line('101 101', { device: '0fe:00' })],
    ['a POSIX lock, which is not QEMU’s', line('101 101', { kind: 'POSIX' })],
    ['one who waits', `7: -> OFDLCK ADVISORY  READ  -1 fe:00:42 101 101\n`],
    ['a lease', '7: LEASE  ACTIVE    READ  -1 fe:00:42 0 EOF\n'],
    ['nonsense', 'x\n\n1: OFDLCK\n'],
  ])('not %s', (_, text) => expect(holds(text)).toBe(false))
})

const dir = tempDir()
afterAll(() => dir.remove())

const peers = needs('qemu-img', 'qemu-nbd', 'qemu-io', 'qemu-storage-daemon')
describe.skipIf(peers.skip)(`readLocks says what qemu-img says${peers.label}`, () => {
  let serial = 0
  const fresh = async (format = 'qcow2'): Promise<string> => {
    const file = dir.file(`l${serial++}`)
    await qemuImg.create(file, 2 ** 20, { format })
    return file
  }
  const refused = async (file: string, format = 'qcow2'): Promise<boolean> => {
    const { status, stderr } = await run('qemu-img', ['info', '-f', format, file], { accept: 'any' })
    if (status !== 0) expect(stderr).toMatch(/Failed to get shared/)
    return status !== 0
  }
  const agree = async (file: string, writer: boolean, format = 'qcow2'): Promise<void> => {
    const theirs = await refused(file, format)
    expect({ theirs, ...(await readLocks(file)) }).toEqual({ theirs: writer, known: true, writer })
  }

  it('nobody', async () => agree(await fresh(), false))

  it('a storage daemon that writes, and one that reads', async () => {
    const file = await fresh()
    const writer = await StorageDaemon.start([qcow2Blockdev('disk', file)])
    await agree(file, true)
    linkSync(file, `${file}-hard`)
    symlinkSync(file, `${file}-soft`)
    await agree(`${file}-hard`, true)
    await agree(`${file}-soft`, true)
    await writer.quit()
    await agree(file, false)
    const reader = await StorageDaemon.start([qcow2Blockdev('disk', file, { 'read-only': true })])
    await agree(file, false)
    await reader.quit()
  })

  it('a storage daemon that was killed leaves no lock', async () => {
    const file = await fresh()
    const writer = await StorageDaemon.start([qcow2Blockdev('disk', file)])
    await writer.kill()
    await agree(file, false)
  })

  it('a writer that took no locks is not seen by either', async () => {
    const file = await fresh()
    const quiet = { driver: 'file', filename: file, locking: 'off' }
    const writer = await StorageDaemon.start([{ driver: 'qcow2', 'node-name': 'disk', file: quiet }])
    await agree(file, false)
    await writer.quit()
  })

  /** Runs a program until it has the image open: it holds some lock then. */
  async function whileRuns(
    command: string,
    args: string[],
    file: string,
    use: () => Promise<void>,
  ): Promise<void> {
    const child = spawn(programPath(command)!, args, { stdio: ['pipe', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', piece => (said += piece))
    const ended = new Promise(resolve => child.on('close', resolve))
    try {
      const { ino } = await stat(file)
      for (let tries = 0; ; tries++) {
        const { stdout } = await run('cat', ['/proc/locks'])
        if (stdout.includes(`:${ino} `)) break
        if (tries > 200 || child.exitCode !== null)
          throw new Error(`${command} did not open ${file}: ${said}`)
        await new Promise(resolve => setTimeout(resolve, 25))
      }
      await use()
    } finally {
      child.kill('SIGKILL')
      await ended
    }
  }

  it.each([
    ['-r', false],
    ['-w', true],
  ])('qemu-nbd %s', async (flag, writer) => {
    const file = await fresh()
    const args = ['-f', 'qcow2', '-k', dir.file(`s${serial++}`), '-t', ...(flag === '-r' ? ['-r'] : []), file]
    await whileRuns('qemu-nbd', args, file, () => agree(file, writer))
  })

  it.each([
    ['-r', false],
    ['-w', true],
  ])('qemu-io %s', async (flag, writer) => {
    const file = await fresh()
    const args = ['-f', 'qcow2', ...(flag === '-r' ? ['-r'] : []), '-c', 'sleep 20000', file]
    await whileRuns('qemu-io', args, file, () => agree(file, writer))
  })

  it('a raw file that is written: of these qemu-img tells the size all the same', async () => {
    const file = await fresh('raw')
    await whileRuns('qemu-nbd', ['-f', 'raw', '-k', dir.file(`s${serial++}`), '-t', file], file, async () => {
      expect(await refused(file, 'raw')).toBe(false)
      expect(await readLocks(file)).toEqual({ known: true, writer: true })
    })
  })

  const system = needs('qemu-system-x86_64')
  it.skipIf(system.skip).each([
    ['qcow2', 'off'],
    ['qcow2', 'on'],
    ['raw', 'off'],
    ['raw', 'on'],
  ])(`a machine with a %s disk, share-rw=%s${system.label}`, async (format, share) => {
    const file = await fresh(format)
    const args = ['-S', '-machine', 'q35,accel=tcg', '-display', 'none', '-nodefaults', '-monitor', 'none']
    args.push('-blockdev', `driver=${format},node-name=d,file.driver=file,file.filename=${file}`)
    args.push('-device', `virtio-blk-pci,drive=d,share-rw=${share}`)
    await whileRuns('qemu-system-x86_64', args, file, async () => {
      expect(await refused(file, format)).toBe(format === 'qcow2')
      expect(await readLocks(file)).toEqual({ known: true, writer: true })
    })
  })

  it('an image in between: backing files are read, not written', async () => {
    const base = await fresh()
    const top = dir.file(`l${serial++}`)
    await qemuImg.create(top, undefined, { backing: base })
    const writer = await StorageDaemon.start([qcow2Blockdev('disk', top)])
    await agree(top, true)
    await agree(base, false)
    await writer.quit()
  })

  it('a file that is not there', async () => {
    await expect(readLocks(dir.file('missing'))).rejects.toMatchObject({ code: 'image-missing' })
  })
})
