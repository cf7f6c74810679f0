import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { programPath } from './peers.js'
import { withReaper } from './reaper.js'
import { childEnv, type RunOptions, type RunResult, run, runSync } from './run.js'
import { type TempDir, tempDir } from './tmp.js'

/** libvirt's session mode refuses root; as root the lab runs as this user, who owns nothing else. */
export const labUser = 'tidemark-lab'

const settings = `security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`

interface User {
  uid: number
  gid: number
}

/** The user that runs the lab, made if need be; undefined when we are not root and run it ourselves. */
function unprivileged(): User | undefined {
  if (process.getuid?.() !== 0) return undefined
  const look = (): User | undefined => {
    const fields = runSync('getent', ['passwd', labUser], { accept: 'any' }).stdout.split(':')
    return fields.length > 3 ? { uid: Number(fields[2]), gid: Number(fields[3]) } : undefined
  }
  const known = look()
  if (known) return known
  const args = ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', labUser]
  // Two test files may both find it missing; the later one's failure is no failure.
  const { stderr } = runSync('useradd', args, { accept: 'any' })
  const made = look()
  if (!made) throw new Error(`the lab's user ${labUser} can't be made: ${stderr}`)
  return made
}

/**
 * A libvirt of its own: session mode, all its folders below one temporary folder with a short path (a unix
 * socket's path has 107 bytes), its daemon our child.
 */
export class LibvirtHome {
  readonly #dir: TempDir
  readonly #user: User | undefined
  readonly #env: Record<string, string>
  #daemon: ChildProcess | undefined
  #stderr = ''
  readonly #onExit = (): void => this.#killAll()
  /** Where libvirt keeps `qemu/DOM.xml` and `qemu/checkpoint/DOM/`: $XDG_CONFIG_HOME/libvirt. */
  readonly libvirtRoot: string
  readonly root: string

  private constructor() {
    this.#user = unprivileged()
    // The user must get through to it; what is private in it has its own mode.
    this.#dir = tempDir(0o711)
    this.root = this.#dir.path
    this.#env = { HOME: this.root, USER: this.#user ? labUser : (process.env.USER ?? labUser) }
    this.#env.LOGNAME = this.#env.USER as string
    const folders = { XDG_CONFIG_HOME: 'c', XDG_RUNTIME_DIR: 'r', XDG_CACHE_HOME: 'k', XDG_DATA_HOME: 'd' }
    for (const [name, folder] of Object.entries(folders)) this.#env[name] = this.makeFolder(folder)
    chmodSync(join(this.root, 'r'), 0o700)
    this.libvirtRoot = this.makeFolder('c/libvirt')
    writeFileSync(join(this.libvirtRoot, 'qemu.conf'), settings)
  }

  /** Starts the daemon. @throws Error with its words; nothing is left behind. */
  static async start(): Promise<LibvirtHome> {
    const home = new LibvirtHome()
    try {
      await home.#startDaemon()
      return home
    } catch (error) {
      await home.stop()
      throw error
    }
  }

  /** A folder in the lab that its user owns. */
  makeFolder(name: string): string {
    const path = join(this.root, name)
    mkdirSync(path, { recursive: true })
    this.own(path)
    return path
  }

  /** Gives a file to the lab's user. */
  own(path: string): void {
    if (this.#user) chownSync(path, this.#user.uid, this.#user.gid)
  }

  /** Runs a program as the lab's user, in its environment. */
  async run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const user = this.#user ? { user: this.#user } : {}
    return await run(command, args, {
      cwd: this.root,
      ...options,
      ...user,
      env: { ...this.#env, ...options.env },
    })
  }

  /** Starts a program as the lab's user, to be talked with; `stop` ends it. */
  spawn(command: string, args: readonly string[]): ChildProcessWithoutNullStreams {
    return spawn(command, args, { cwd: this.root, env: childEnv(this.#env), ...this.#user })
  }

  async #startDaemon(): Promise<void> {
    const user = this.#user ?? {}
    const [program, ...args] = withReaper(programPath('libvirtd') ?? 'libvirtd')
    const daemon = spawn(program, args, {
      env: childEnv(this.#env),
      cwd: this.root,
      stdio: ['ignore', 'ignore', 'pipe'],
      ...user,
    })
    this.#daemon = daemon
    process.on('exit', this.#onExit)
    let ended: string | undefined
    daemon.on('error', cause => (ended = cause.message))
    daemon.on('exit', (code, signal) => (ended = `it ended with ${signal ?? code}`))
    daemon.stderr?.on('data', piece => (this.#stderr += piece))
    for (let tries = 0; tries < 3000 && !ended; tries++) {
      if (await answers(join(this.root, 'r/libvirt/libvirt-sock'))) return
      await sleep(10)
    }
    throw new Error(`libvirtd does not answer: ${ended ?? 'no socket after 30 s'}\n${this.#stderr}`)
  }

  /**
   * Ends the daemon as the system does, calls `meanwhile`, and starts it again: it then loads its files anew.
   * Running domains go on.
   */
  async restart(meanwhile: () => void): Promise<void> {
    const daemon = this.#daemon
    if (daemon === undefined) throw new Error('the lab has no daemon')
    const gone = new Promise<void>(resolve => daemon.once('exit', () => resolve()))
    daemon.kill('SIGTERM')
    await gone
    process.off('exit', this.#onExit)
    // A socket that is still there would look like an answer.
    rmSync(join(this.root, 'r/libvirt/libvirt-sock'), { force: true })
    meanwhile()
    await this.#startDaemon()
  }

  /** False once the daemon has died: libvirt 9.0 does now and then, in the thread of a domain's events. */
  get alive(): boolean {
    const daemon = this.#daemon
    return daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null
  }

  /** Ends every process of the lab and removes its folders. Safe to call twice. */
  async stop(): Promise<void> {
    const daemon = this.#daemon
    this.#daemon = undefined
    const gone = new Promise<void>(resolve => {
      if (!daemon || daemon.exitCode !== null || daemon.signalCode !== null) resolve()
      daemon?.once('exit', () => resolve())
    })
    this.#killAll()
    if (daemon?.pid !== undefined) await gone
    // The domains are not our children: wait until they are out of /proc, so that no file is written any more.
    for (let tries = 0; tries < 500 && this.#processes().length > 0; tries++) await sleep(10)
    process.off('exit', this.#onExit)
    this.#dir.remove()
  }

  #killAll(): void {
    for (const pid of this.#processes()) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // it ended by itself
      }
    }
  }

  /** Whatever runs with this lab's folder in its environment: the daemon, its helpers, its QEMUs. */
  #processes(): number[] {
    const mark = `=${this.root}/`
    return readdirSync('/proc').flatMap(name => {
      const pid = Number(name)
      if (!Number.isInteger(pid) || pid === process.pid) return []
      try {
        return readFileSync(`/proc/${name}/environ`, 'latin1').includes(mark) ? [pid] : []
      } catch {
        return []
      }
    })
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}
