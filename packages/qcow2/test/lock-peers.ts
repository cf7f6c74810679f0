// A file's locks, and who takes some of them: QEMU's programs, and what they say when they are refused.
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import {
  needs,
  programPath,
  qcow2Blockdev,
  qemuImg,
  type RunResult,
  run,
  StorageDaemon,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, expect } from 'vitest'
import { openWritableFile } from '../src/node/writable-file.js'

export const dir = tempDir()
afterAll(() => dir.remove())

export const linux = process.platform === 'linux'
const peers = needs('qemu-img', 'qemu-nbd', 'qemu-io', 'qemu-storage-daemon')
export const skip = peers.skip || !linux
export const label = linux ? peers.label : ' [skipped: needs Linux]'

let serial = 0
export async function fresh(): Promise<string> {
  const file = dir.file(`l${serial++}`)
  await qemuImg.create(file, 2 ** 20)
  return file
}

export const delay = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

/** The bytes of a file that are locked, by whomever, as the kernel shows them. */
export function lockedBytes(file: string): number[] {
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
export async function ours(file: string, options?: Parameters<typeof openWritableFile>[1]): Promise<string> {
  try {
    await (await openWritableFile(file, options)).close()
    return 'opened'
  } catch (error) {
    const { code, details } = error as { code: string; details: { use?: string } }
    return [code, details.use ?? ''].join(' ').trim()
  }
}

/** Whether a program was refused a lock; any other failure is the test's. */
export function wasRefused({ status, stderr }: RunResult): boolean {
  if (status !== 0) expect(stderr).toMatch(/Failed to (get (shared )?"[\w ]+" lock|lock byte)/)
  return status !== 0
}

export const any = { accept: 'any' } as const
export const addBitmap = (file: string) =>
  run('qemu-img', ['bitmap', '--add', '-f', 'qcow2', file, `b${serial++}`], any)
export const write = (file: string) => run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', file], any)

/** Whether QEMU's own writers are refused: all or none. */
export async function theirs(file: string): Promise<boolean> {
  const refused = await Promise.all([addBitmap(file).then(wasRefused)])
  refused.push(wasRefused(await write(file)))
  expect(new Set(refused).size).toBe(1)
  return refused[0]!
}

/** Starts a program and waits until it holds locks on a file. */
export async function start(command: string, args: string[], file: string): Promise<() => Promise<void>> {
  const child = spawn(programPath(command) ?? command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  return await untilLocked(child, file)
}

export async function untilLocked(child: ChildProcess, file: string): Promise<() => Promise<void>> {
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

export async function daemon(file: string, more: Record<string, unknown> = {}): Promise<() => Promise<void>> {
  const started = await StorageDaemon.start([qcow2Blockdev('disk', file, more)])
  return () => started.quit()
}

export const socket = () => dir.file(`s${serial++}`)
export const io = (...flags: string[]) => {
  return (file: string) => start('qemu-io', ['-f', 'qcow2', ...flags, '-c', 'sleep 60000', file], file)
}
export const nbd = (...flags: string[]) => {
  return (file: string) => start('qemu-nbd', ['-f', 'qcow2', '-t', '-k', socket(), ...flags, file], file)
}
const machine = (share: string) => (file: string) => {
  const args = ['-S', '-machine', 'q35,accel=tcg', '-display', 'none', '-nodefaults', '-monitor', 'none']
  args.push('-blockdev', `driver=qcow2,node-name=d,file.driver=file,file.filename=${file}`)
  args.push('-device', `virtio-blk-pci,drive=d,share-rw=${share}`)
  return start('qemu-system-x86_64', args, file)
}

/** Takes a file, and gives it back when what it returns is called. */
export type Hold = (file: string) => Promise<() => Promise<void>>

/** Each program of QEMU's that writes to what it has. */
export const writers: readonly (readonly [name: string, hold: Hold])[] = [
  ['a storage daemon that writes', daemon],
  ['qemu-nbd', nbd()],
  ['qemu-io', io()],
  ...(needs('qemu-system-x86_64').skip
    ? []
    : ([
        ['a machine', machine('off')],
        ['a machine, share-rw=on', machine('on')],
      ] as const)),
]

export const overlay = async (file: string) => {
  const top = `${file}-top`
  await qemuImg.create(top, undefined, { backing: file })
  return await daemon(top)
}

export function outcome({ status, stderr }: RunResult): string {
  const lock = /Failed to get (?:shared )?"[\w ]+" lock/.exec(stderr)?.[0]
  if (status !== 0 && lock === undefined) throw new Error(stderr)
  return lock ?? 'ran'
}

/** Runs a script beside our module as built. */
export const scriptArgs = (script: string): string[] => {
  const module = new URL('../dist/node/writable-file.js', import.meta.url).href
  const start = `const { openWritableFile } = await import(${JSON.stringify(module)})\n`
  return ['--input-type=module', '-e', start + script]
}
export const startOurs = (script: string, file: string) => start(process.execPath, scriptArgs(script), file)
