import { type RunResult, run } from './run.js'

/** How `qemuIo` opens the image. */
export interface QemuIoOptions {
  readOnly?: boolean
  /** Default qcow2. */
  format?: string
  /** `-U`. */
  forceShare?: boolean
  timeout?: number
}

/**
 * Runs qemu-io's commands one after the other in one open of the image.
 *
 * qemu-io exits 0 after many a failed command, so its words are looked at as well.
 *
 * @throws RunError, or Error with the words of the command that failed.
 * @example
 * await qemuIo(file, ['write -P 7 1M 200k', 'discard 0 64k'])
 */
export async function qemuIo(
  file: string,
  commands: readonly string[],
  options: QemuIoOptions = {},
): Promise<RunResult> {
  return judged(await run('qemu-io', qemuIoArgs(file, commands, options), timeoutOf(options)), file, commands)
}

/** The same for an image that is named by arguments of its own (`--object`, `--image-opts`), as LUKS needs it. */
export async function runQemuIo(
  openArgs: readonly string[],
  commands: readonly string[],
): Promise<RunResult> {
  const args = [...commands.flatMap(command => ['-c', command]), ...openArgs]
  return judged(await run('qemu-io', args), openArgs.join(' '), commands)
}

function judged(result: RunResult, what: string, commands: readonly string[]): RunResult {
  const words =
    /(.*(?:failed|Pattern verification|command ".*" not found|bad argument|non-numeric|not a valid|invalid|out of range).*)/i
  const failure = words.exec(result.stdout + result.stderr)
  if (failure) throw new Error(`qemu-io ${what} ${JSON.stringify(commands)}: ${failure[1]}`)
  return result
}

/**
 * The same, and then the program kills itself with no clean end (`abort`): its bitmaps stay in-use on disk,
 * as after a crash of a machine.
 */
export async function qemuIoCrash(
  file: string,
  commands: readonly string[],
  options: QemuIoOptions = {},
): Promise<void> {
  const args = qemuIoArgs(file, [...commands, 'abort'], options)
  const result = await run('qemu-io', args, { ...timeoutOf(options), accept: 'any' })
  if (result.signal !== 'SIGABRT' && result.status !== 134) {
    throw new Error(`qemu-io ${file} was to abort, but ended with ${result.status}: ${result.stderr}`)
  }
}

function qemuIoArgs(file: string, commands: readonly string[], options: QemuIoOptions): string[] {
  return [
    '-f',
    options.format ?? 'qcow2',
    ...(options.readOnly ? ['-r'] : []),
    ...(options.forceShare ? ['-U'] : []),
    ...commands.flatMap(command => ['-c', command]),
    file,
  ]
}

const timeoutOf = (options: QemuIoOptions): { timeout?: number } =>
  options.timeout === undefined ? {} : { timeout: options.timeout }
