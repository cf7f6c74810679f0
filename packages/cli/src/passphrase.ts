import { closeSync, open, read } from 'node:fs'
import { isatty } from 'node:tty'
import { promisify } from 'node:util'
import { CommandError } from './errors.js'

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
  let fd: number
  try {
    // In the thread pool: a pipe waits for its writer.
    fd = file === '-' ? 0 : await promisify(open)(file, 'r')
  } catch (error) {
    throw failed((error as Error).message)
  }
  try {
    const bytes = Buffer.alloc(MOST_BYTES + 1)
    let length = 0
    while (length <= MOST_BYTES) {
      // A pipe gives what there is, and nothing at its end.
      const got = await readSome(fd, bytes.subarray(length))
      if (got === 0) break
      length += got
    }
    if (length > MOST_BYTES) throw failed(`it is larger than ${MOST_BYTES} bytes`)
    if (length === 0) throw failed('it is empty')
    return bytes.subarray(0, length)
  } catch (error) {
    throw error instanceof CommandError ? error : failed((error as Error).message)
  } finally {
    if (fd !== 0) closeSync(fd)
  }
}

async function readSome(fd: number, target: Buffer): Promise<number> {
  for (;;) {
    try {
      return (await promisify(read)(fd, target, 0, target.length, null)).bytesRead
    } catch (error) {
      // Another process has made the pipe one that does not wait.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
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
  process.stderr.write('Passphrase: ')
  // What is typed is echoed to nowhere.
  const nowhere = new Writable({ write: (_piece, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true })
  return new Promise((resolve, reject) => {
    lines.once('line', line => resolve(Buffer.from(line)))
    lines.once('SIGINT', () => process.kill(process.pid, 'SIGINT'))
    lines.once('close', () => reject(new CommandError('passphrase-unreadable', 'no passphrase was typed')))
  }).finally(() => {
    lines.close()
    process.stderr.write('\n')
  }) as Promise<Buffer>
}
