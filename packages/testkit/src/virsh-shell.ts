import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { RunError, type RunResult } from './run.js'

/** A text that the shell's line editor would change on its way: control characters, and what is not ASCII. */
const UNFIT = /[^\x20-\x7e]/

/** True where a shell can be given these arguments; else virsh must be started for them alone. */
export function fitsShell(args: readonly string[]): boolean {
  return !args.some(arg => UNFIT.test(arg))
}

const PROMPT = 'virsh # '

const quoted = (arg: string): string =>
  /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", `'"'"'`)}'`

/**
 * A running virsh that is told one command after the other: a quarter of a millisecond each, where a start takes
 * fifty. Output and errors are those of virsh; its exit status is told by whether it printed an error.
 */
export class VirshShell {
  readonly #child: ChildProcessWithoutNullStreams
  #stdout = ''
  #stderr = ''
  #serial = 0
  #ended: string | undefined
  #look: (() => void) | undefined

  /** @param child virsh, started without a command, its three streams piped */
  constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child
    const end = (how: string): void => {
      this.#ended ??= how
      this.#look?.()
    }
    child.stdin.on('error', () => {})
    child.stdout.setEncoding('utf8').on('data', (piece: string) => {
      this.#stdout += piece
      this.#look?.()
    })
    child.stderr.setEncoding('utf8').on('data', (piece: string) => {
      this.#stderr += piece
      this.#look?.()
    })
    child.on('error', cause => end(cause.message))
    child.on('close', (code, signal) => end(`it ended with ${signal ?? code}`))
  }

  /** False once virsh has ended: the shell is then of no more use. */
  get alive(): boolean {
    return this.#ended === undefined
  }

  /**
   * Runs one command; only one at a time.
   *
   * @returns status 0, or 1 where virsh printed an error
   * @throws RunError when virsh ends meanwhile or has not answered in time; it is then killed
   */
  async run(args: readonly string[], timeout: number): Promise<RunResult> {
    const bare = args.map(quoted).join(' ')
    // The editor draws a line anew that ends just at the edge of its 80 columns.
    const line = (PROMPT.length + bare.length) % 80 === 0 ? `${bare} ` : bare
    const mark = `tidemark-${++this.#serial}`
    this.#stdout = ''
    this.#stderr = ''
    this.#child.stdin.write(`${line}\necho ${mark}\necho --err ${mark}\n`)
    // The editor writes each line out again, behind its prompt; the first prompt comes before or after the command.
    const end = `${PROMPT}echo ${mark}\n${mark}${PROMPT}echo --err ${mark}\n${PROMPT}`
    await this.#until(timeout, line, () => {
      return this.#stderr.endsWith(`error: ${mark}\n`) && this.#stdout.endsWith(end)
    })
    const told = this.#stdout.startsWith(PROMPT) ? this.#stdout.slice(PROMPT.length) : this.#stdout
    if (!told.startsWith(`${line}\n`)) throw new Error(`virsh did not repeat: ${line}\n${told}`)
    const stdout = told.slice(line.length + 1, -end.length)
    const stderr = this.#stderr.slice(0, -`error: ${mark}\n`.length)
    return { stdout, stderr, status: /^error:/m.test(stderr) ? 1 : 0, signal: null }
  }

  #until(timeout: number, line: string, done: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (why?: string): void => {
        this.#look = undefined
        clearTimeout(timer)
        if (why === undefined) {
          resolve()
          return
        }
        const result = { stdout: this.#stdout, stderr: this.#stderr, status: 1, signal: null }
        reject(new RunError(`virsh ${line}`, result, why))
      }
      const timer = setTimeout(() => {
        this.kill()
        settle(`no answer after ${timeout} ms`)
      }, timeout)
      this.#look = () => {
        if (done()) settle()
        else if (this.#ended !== undefined) settle(this.#ended)
      }
      this.#look()
    })
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}
