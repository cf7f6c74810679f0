import { fstatSync } from 'node:fs'
import type { Writable } from 'node:stream'
import { toKebab } from '@tidemark/planner'
import pc from 'picocolors'

import { CommandError, describeError } from './errors.js'
import { printable, printableJson } from './printable.js'
import { stderr } from './stderr.js'

/** picocolors' functions, on or off. */
export type Colors = ReturnType<typeof pc.createColors>

export type OutputFormat = 'human' | 'json'

/** Where a command's words go: results to stdout, everything else to stderr. */
export class Output {
  readonly format: OutputFormat
  readonly #held: string[] = []
  #out: Writable | undefined
  #failed: NodeJS.ErrnoException | undefined

  constructor(format: OutputFormat) {
    this.format = format
  }

  /** Made when it is first asked for: that takes Node 2 ms. */
  get stdout(): Writable {
    this.#out ??= process.stdout.on('error', error => {
      this.#failed ??= error
    })
    return this.#out
  }

  /**
   * Writes a piece of the result and waits while the reader is slow, so that memory stays bounded.
   *
   * @throws {CommandError} `broken-pipe` when the reader has gone, `write-failed` on a full disk
   */
  async write(text: string): Promise<void> {
    this.#check()
    if (!this.stdout.write(text)) await this.#drained()
    this.#check()
  }

  /** The same for bytes; they have left when it returns, so that the caller can use their buffer again. */
  async writeBytes(bytes: Uint8Array): Promise<void> {
    this.#check()
    await new Promise<void>(resolve => {
      this.stdout.write(bytes, error => {
        this.#failed ??= error ?? undefined
        resolve()
      })
    })
    this.#check()
  }

  /** Room again, or no one there to read any more: both end the wait, and leave no listener behind. */
  async #drained(): Promise<void> {
    const { stdout } = this
    if (stdout.destroyed || !stdout.writableNeedDrain) return
    await new Promise<void>(resolve => {
      const done = (): void => {
        for (const event of ['drain', 'error', 'close']) stdout.off(event, done)
        resolve()
      }
      for (const event of ['drain', 'error', 'close']) stdout.on(event, done)
    })
  }

  /** Waits until all that was written has left. For a command that did what it was to do. */
  async flush(): Promise<void> {
    for (const message of this.#held.splice(0)) this.#warnNow(message)
    if (this.#out !== undefined) await new Promise<void>(resolve => this.stdout.write('', () => resolve()))
    this.#check()
  }

  async json(value: unknown): Promise<void> {
    await this.write(`${printableJson(JSON.stringify(value, undefined, 2))}\n`)
  }

  /** With `--output json` it waits: should an error follow, that one object on stderr tells it. */
  warn(message: string): void {
    if (this.format === 'json') this.#held.push(message)
    else this.#warnNow(message)
  }

  /** One line about what was done, for who sits in front of it. */
  note(message: string): void {
    // A terminal is a character device: that is quicker to ask.
    if (this.format === 'human' && fstatSync(2).isCharacterDevice() && stderr().isTTY) {
      stderr().write(`${printable(message)}\n`)
    }
  }

  #warnNow(message: string): void {
    stderr().write(`${this.#color(stderr()).yellow('warning:')} ${printable(message)}\n`)
  }

  error(error: unknown): void {
    const { code, message, details } = describeError(error)
    if (this.format === 'json') {
      const warnings = this.#held.length === 0 ? {} : { warnings: this.#held.splice(0) }
      const evidence = toKebab(details) as Record<string, unknown>
      const json = JSON.stringify({ error: { ...evidence, ...warnings, code, message } }, jsonValue)
      stderr().write(`${printableJson(json)}\n`)
      return
    }
    const lines = message.split('\n').map(printable).join('\n')
    stderr().write(`${this.#color(stderr()).red('error:')} ${lines}\n`)
  }

  /**
   * Columns for text: the terminal's, else COLUMNS, else 100; but no longer lines than are easy to read, and none so short
   * that each word stands alone.
   */
  get width(): number {
    // A terminal that does not know its width says 0.
    const wanted = process.stdout.columns || Number(process.env.COLUMNS) || 100
    return Math.max(40, Math.min(wanted, 110))
  }

  /** Colours for stdout; none where it is no terminal or NO_COLOR is set. */
  get colors(): Colors {
    return this.#color(process.stdout)
  }

  #color(stream: { isTTY?: boolean }): Colors {
    return pc.createColors(pc.isColorSupported && stream.isTTY === true)
  }

  #check(): void {
    const failed = this.#failed
    if (failed === undefined) return
    if (failed.code === 'EPIPE') throw new CommandError('broken-pipe', 'the reader of the output has gone')
    throw new CommandError('write-failed', `cannot write the output: ${failed.message}`)
  }
}

function jsonValue(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : value
}
