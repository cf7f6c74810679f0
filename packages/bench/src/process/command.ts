import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { programPath } from '@tidemark/testkit'

const tidemarkScript = fileURLToPath(new URL('../../../cli/bin/tidemark.cjs', import.meta.url))

/** A program to measure, with its arguments. */
export interface Command {
  program: string
  args: readonly string[]
}

export const tidemark = (...args: string[]): Command => ({
  program: process.execPath,
  args: [tidemarkScript, ...args],
})
export const qemuImg = (...args: string[]): Command => ({ program: 'qemu-img', args })
export const bareNode: Command = { program: process.execPath, args: ['-e', '0'] }

/** Node parses NODE_EXTRA_CA_CERTS at every start, which takes longer than starting; NODE_OPTIONS are not ours. */
function childEnv(): NodeJS.ProcessEnv {
  const { NODE_EXTRA_CA_CERTS, NODE_OPTIONS, ...env } = process.env
  return { ...env, LC_ALL: 'C' }
}

/** Runs it with its output thrown away; milliseconds. @throws Error with what it said when it fails */
export function timeCommand({ program, args }: Command): number {
  const start = process.hrtime.bigint()
  const done = spawnSync(program, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: childEnv(),
    encoding: 'utf8',
  })
  const ms = Number(process.hrtime.bigint() - start) / 1e6
  if (done.error) throw done.error
  if (done.status !== 0) {
    throw new Error(`${program} ${args.join(' ')} ended with ${done.status ?? done.signal}: ${done.stderr}`)
  }
  return ms
}

/**
 * Time and peak resident memory, in bytes. GNU time reads the kernel's own account (wait4's rusage); a shell's
 * `time` does not. Without it, memory is not measured.
 */
export function weighCommand(command: Command, scratchFile: string): { ms: number; peakBytes?: number } {
  const time = programPath('time')
  if (time === undefined) return { ms: timeCommand(command) }
  const args = ['-f', '%M', '-o', scratchFile, command.program, ...command.args]
  const ms = timeCommand({ program: time, args })
  return { ms, peakBytes: Number(readFileSync(scratchFile, 'utf8').trim()) * 1024 }
}

/** Its standard output, into a file: maps can be longer than a string. */
export function outputTo({ program, args }: Command, file: string): void {
  const fd = openSync(file, 'w')
  try {
    const done = spawnSync(program, args, {
      stdio: ['ignore', fd, 'pipe'],
      env: childEnv(),
      encoding: 'utf8',
    })
    if (done.status !== 0) throw new Error(`${program} ${args.join(' ')} failed: ${done.stderr}`)
  } finally {
    closeSync(fd)
  }
}

/** Its standard output as JSON. */
export function jsonOf({ program, args }: Command): unknown {
  const maxBuffer = 1 << 28
  const done = spawnSync(program, args, { env: childEnv(), encoding: 'utf8', maxBuffer })
  if (done.status !== 0) throw new Error(`${program} ${args.join(' ')} failed: ${done.stderr}`)
  return JSON.parse(done.stdout)
}
