import { isatty } from 'node:tty'
import { CommandError } from './errors.js'
import { readInput } from './read-input.js'
import { stderr } from './stderr.js'

/** As much as cryptsetup takes of a key file. */
const MOST_BYTES = 8 * 1024 * 1024

/**
 * The bytes of a file, a pipe or (`-`) standard input; typed where that is a terminal, without showing it.
 *
 * @throws {CommandError} `passphrase-unreadable` when it cannot be read
 */
export async function readPassphrase(file: string): Promise<Buffer> {
  // Not process.stdin: whoever looks at it makes a pipe of it that does not wait.
  if (file === '-' && isatty(0)) return typedPassphrase()
  const what = file === '-' ? 'standard input' : file
  const failed = (why: string) =>
    new CommandError('passphrase-unreadable', `cannot read the passphrase from ${what}: ${why}`, { file })
  return readInput(file, MOST_BYTES, failed)
}

/**
 * What the passphrase may be. QEMU takes a secret's file as it is; but a file that an editor or `echo` made ends with
 * a newline that is not part of it.
 */
export function candidates(bytes: Buffer): Buffer[] {
  const newline = bytes.at(-1) === 0x0a
  return newline && bytes.length > 1 ? [bytes, bytes.subarray(0, -1)] : [bytes]
}

async function typedPassphrase(): Promise<Buffer> {
  const { createInterface } = await import('node:readline')
  const { Writable } = await import('node:stream')
  stderr().write('Passphrase: ')
  // What is typed is echoed to nowhere.
  const nowhere = new Writable({ write: (_piece, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true })
  return new Promise((resolve, reject) => {
    lines.once('line', line => resolve(Buffer.from(line)))
    lines.once('SIGINT', () => process.kill(process.pid, 'SIGINT'))
    lines.once('close', () => reject(new CommandError('passphrase-unreadable', 'no passphrase was typed')))
  }).finally(() => {
    lines.close()
    stderr().write('\n')
  }) as Promise<Buffer>
}
