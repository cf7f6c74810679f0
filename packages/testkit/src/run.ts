import { type SpawnOptions, spawn, spawnSync } from 'node:child_process'

/** How to run a program. */
export interface RunOptions {
  cwd?: string
  /** Laid over the environment of this process; `undefined` removes a variable. */
  env?: Record<string, string | undefined>
  /** What the program reads on its standard input; default: nothing. */
  input?: string | Uint8Array
  /** Milliseconds after which the program is killed and the call fails. Default 60 s. */
  timeout?: number
  /** Runs it as this user; only root can. */
  user?: { uid: number; gid: number }
  /** Exit statuses that are no failure: a list, or any at all. Default `[0]`. */
  accept?: readonly number[] | 'any'
}

/** What a program left behind. A signal's death is reported as a shell does: 128 + its number. */
export interface RunResult {
  stdout: string
  stderr: string
  status: number
  signal: NodeJS.Signals | null
}

/** A program that failed. The message holds the command line and all of its stderr. */
export class RunError extends Error {
  readonly command: string
  readonly result: RunResult

  constructor(command: string, result: RunResult, why: string) {
    super(`${command}\n${why}\n${result.stderr.trim() || result.stdout.trim() || '(it said nothing)'}`)
    this.name = 'RunError'
    this.command = command
    this.result = result
  }
}

const signalNumbers: Partial<Record<NodeJS.Signals, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
}

const shown = (command: string, args: readonly string[]): string =>
  [command, ...args].map(word => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`)).join(' ')

/** The environment of a child: ours with `overlay` on it, and messages in English, since tests read them. */
export function childEnv(overlay: RunOptions['env'] = {}): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, LC_ALL: 'C.UTF-8', ...overlay }
  for (const name of Object.keys(env)) if (env[name] === undefined) delete env[name]
  return env
}

function spawnOptions({ cwd, env, user }: RunOptions): Pick<SpawnOptions, 'cwd' | 'env' | 'uid' | 'gid'> {
  return { env: childEnv(env), ...(cwd === undefined ? {} : { cwd }), ...user }
}

function judged(command: string, result: RunResult, options: RunOptions, timedOut: boolean): RunResult {
  if (timedOut) throw new RunError(command, result, `killed after ${options.timeout ?? 60_000} ms`)
  const accept = options.accept ?? [0]
  if (accept === 'any' || accept.includes(result.status)) return result
  throw new RunError(
    command,
    result,
    result.signal ? `died of ${result.signal}` : `exit status ${result.status}`,
  )
}

const statusOf = (code: number | null, signal: NodeJS.Signals | null): number =>
  code ?? 128 + ((signal && signalNumbers[signal]) ?? 0)

/**
 * Runs a program to its end, without a shell.
 *
 * @throws RunError when it can't be started, is not finished in time, or its status is not accepted.
 * @example
 * const { stdout } = await run('qemu-img', ['info', '--output=json', file])
 */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const line = shown(command, args)
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...spawnOptions(options), stdio: 'pipe' })
    const out: Buffer[] = []
    const err: Buffer[] = []
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      child.kill('SIGKILL')
      // A daemon the program left may hold the pipes open for ever; without them 'close' comes at once.
      child.stdout.destroy()
      child.stderr.destroy()
    }, options.timeout ?? 60_000)
    child.stdout.on('data', (piece: Buffer) => out.push(piece))
    child.stderr.on('data', (piece: Buffer) => err.push(piece))
    // A program that ends without reading its input is no failure by itself (EPIPE).
    child.stdin.on('error', () => {})
    child.stdin.end(options.input)
    const result = (status: number, signal: NodeJS.Signals | null): RunResult => ({
      stdout: Buffer.concat(out).toString(),
      stderr: Buffer.concat(err).toString(),
      status,
      signal,
    })
    child.on('error', cause => {
      clearTimeout(timer)
      reject(new RunError(line, result(127, null), `could not be started: ${cause.message}`))
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      try {
        resolve(judged(line, result(statusOf(code, signal), signal), options, timedOut))
      } catch (error) {
        reject(error)
      }
    })
  })
}

/** `run`, but it blocks: for probes at a module's top level and for clean-up as a process ends. */
export function runSync(command: string, args: readonly string[], options: RunOptions = {}): RunResult {
  const done = spawnSync(command, args, {
    ...spawnOptions(options),
    ...(options.input === undefined ? {} : { input: options.input }),
    timeout: options.timeout ?? 60_000,
    killSignal: 'SIGKILL',
    maxBuffer: 1 << 30,
  })
  const result: RunResult = {
    stdout: done.stdout?.toString() ?? '',
    stderr: done.stderr?.toString() ?? '',
    status: statusOf(done.status, done.signal),
    signal: done.signal,
  }
  const line = shown(command, args)
  const timedOut = (done.error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT'
  if (done.error && !timedOut) throw new RunError(line, result, `could not be started: ${done.error.message}`)
  return judged(line, result, options, timedOut)
}
