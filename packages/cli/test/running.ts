import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { constants } from 'node:os'
import { writeQcow2 } from '@tidemark/testkit'
import { bin, plainEnv } from './cli.js'

/** A merge of `source` into `target` writes 6 MiB, in 96 clusters. */
export function largeImage(file: string): void {
  const clusters = 128
  const bits = clusters * 65536 * 8
  const every = (step: number, from: number) =>
    Array.from({ length: 96 }, (_, i) => i * step + from).filter(bit => bit < bits)
  writeQcow2(file, {
    virtualSize: bits * 4096,
    bitmaps: [
      { name: 'target', granularityBits: 12, dirty: every(65536 * 8, 70) },
      { name: 'bystander', dirty: [1, 5] },
      { name: 'source', granularityBits: 12, dirty: every(65536 * 8, 7000) },
    ],
  })
}

/** The command, started, and its end. */
export function start(args: readonly string[]): {
  child: ChildProcess
  ended: Promise<number>
  stderr(): string
} {
  const env: NodeJS.ProcessEnv = { ...process.env, ...plainEnv }
  const child = spawn(process.execPath, [bin, ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr!.on('data', piece => (stderr += piece))
  const ended = once(child, 'close').then(
    ([code, signal]) => code ?? 128 + constants.signals[signal as 'SIGINT'],
  )
  return { child, ended, stderr: () => stderr }
}

/** Until it has begun to write: the file is longer. */
export async function writing(file: string, size: number, child: ChildProcess): Promise<boolean> {
  while (child.exitCode === null && child.signalCode === null) {
    if (statSync(file).size !== size) return true
    await new Promise(resolve => setImmediate(resolve))
  }
  return false
}
