import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { childEnv } from './run.js'
import { type TempDir, tempDir } from './tmp.js'

/** What to open: blockdev-add's arguments, nested or flat. */
export type Blockdev = { driver: string; 'node-name'?: string; [key: string]: unknown }

/** A QMP command that the daemon answered with an error. */
export class QmpError extends Error {
  readonly class: string

  constructor(command: string, error: { class: string; desc: string }) {
    super(`${command}: ${error.desc}`)
    this.name = 'QmpError'
    this.class = error.class
  }
}

/** A QMP event. */
export interface QmpEvent {
  event: string
  data?: Record<string, unknown>
}

interface Waiting {
  command: string
  resolve(value: unknown): void
  reject(error: Error): void
}

/** The usual stack of a qcow2 file, its node named `name`. */
export function qcow2Blockdev(name: string, filename: string, more: Record<string, unknown> = {}): Blockdev {
  return { driver: 'qcow2', 'node-name': name, file: { driver: 'file', filename }, ...more }
}

/**
 * A running qemu-storage-daemon. QMP goes through its standard input and output: no socket to wait for, no
 * path to be too long, and the daemon can't outlive the conversation unnoticed.
 *
 * @example
 * const daemon = await StorageDaemon.start([qcow2Blockdev('disk', file)])
 * await daemon.qmp('block-dirty-bitmap-add', { node: 'disk', name: 'b0', persistent: true })
 * await daemon.quit()
 */
export class StorageDaemon {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #dir: TempDir
  readonly #waiting = new Map<number, Waiting>()
  readonly #ended: Promise<string>
  #serial = 0
  #stderr = ''
  #nbdRuns = false
  #greeted: (() => void) | undefined
  /** All events so far, oldest first. */
  readonly events: QmpEvent[] = []

  private constructor() {
    this.#dir = tempDir()
    const args = ['--chardev', 'stdio,id=qmp', '--monitor', 'chardev=qmp']
    this.#child = spawn('qemu-storage-daemon', args, { env: childEnv() })
    this.#child.stderr.on('data', piece => (this.#stderr += piece))
    this.#child.stdin.on('error', () => {})
    createInterface({ input: this.#child.stdout }).on('line', line => this.#hear(line))
    this.#ended = new Promise(resolve => {
      const end = (how: string): void => {
        for (const { command, reject } of this.#waiting.values()) {
          reject(new Error(`qemu-storage-daemon ${how} during ${command}\n${this.#stderr}`))
        }
        this.#waiting.clear()
        this.#dir.remove()
        resolve(how)
      }
      this.#child.on('error', cause => end(`could not be started: ${cause.message}`))
      this.#child.on('close', (code, signal) => end(`ended with ${signal ?? code}`))
    })
  }

  /**
   * Starts the daemon and opens these nodes, in this order.
   *
   * @throws Error when it does not start; QmpError when a node can't be opened. Nothing is left running.
   */
  static async start(blockdevs: readonly Blockdev[] = []): Promise<StorageDaemon> {
    const daemon = new StorageDaemon()
    try {
      const greeting = new Promise<void>(resolve => (daemon.#greeted = resolve))
      const early = daemon.#ended.then(how => {
        throw new Error(`qemu-storage-daemon ${how}\n${daemon.#stderr}`)
      })
      early.catch(() => {})
      await Promise.race([greeting, early])
      await daemon.qmp('qmp_capabilities')
      for (const blockdev of blockdevs) await daemon.qmp('blockdev-add', blockdev)
      return daemon
    } catch (error) {
      await daemon.kill()
      throw error
    }
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  #hear(line: string): void {
    const message = JSON.parse(line)
    if (message.QMP) this.#greeted?.()
    if (message.event) this.events.push(message)
    const waiting = this.#waiting.get(message.id)
    this.#waiting.delete(message.id)
    if (message.error) waiting?.reject(new QmpError(waiting.command, message.error))
    else waiting?.resolve(message.return)
  }

  /** Sends a command and gives its answer. @throws QmpError with the daemon's words. */
  async qmp<T = unknown>(execute: string, args?: Record<string, unknown>): Promise<T> {
    const id = ++this.#serial
    return await new Promise<T>((resolve, reject) => {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
        return reject(new Error(`qemu-storage-daemon has ended: ${execute} can't be sent`))
      }
      this.#waiting.set(id, { command: execute, resolve: value => resolve(value as T), reject })
      this.#child.stdin.write(`${JSON.stringify({ execute, id, ...(args ? { arguments: args } : {}) })}\n`)
    })
  }

  /**
   * Exports a node by NBD and gives the URI, for nbdinfo, nbdcopy or qemu-io (`format: 'raw'`).
   *
   * @param bitmaps names that clients can ask for as `qemu:dirty-bitmap:NAME`.
   */
  async exportNbd(node: string, options: { writable?: boolean; bitmaps?: string[] } = {}): Promise<string> {
    const path = this.#dir.file('nbd')
    if (!this.#nbdRuns) {
      await this.qmp('nbd-server-start', { addr: { type: 'unix', data: { path } } })
      this.#nbdRuns = true
    }
    const bitmaps = options.bitmaps ? { bitmaps: options.bitmaps } : {}
    const what = { type: 'nbd', id: `nbd-${node}`, 'node-name': node, name: node }
    await this.qmp('block-export-add', { ...what, writable: options.writable ?? false, ...bitmaps })
    return `nbd+unix:///${node}?socket=${path}`
  }

  /** A clean end: QEMU writes its bitmaps. @throws Error when it does not end with status 0. */
  async quit(): Promise<void> {
    // The answer may be lost as the daemon goes; how it ended is what counts.
    this.qmp('quit').catch(() => {})
    const how = await this.#ended
    if (how !== 'ended with 0') throw new Error(`qemu-storage-daemon ${how}\n${this.#stderr}`)
  }

  /** kill -9: the bitmaps of its images stay in-use on disk. Safe on one that has ended. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }
}
