import type { WriteStream } from 'node:tty'

let stream: WriteStream | undefined

/**
 * Standard error, of which a closed one does not end the work. Made when it is first asked for: that takes 2 ms, and
 * most commands have nothing to say there.
 */
export function stderr(): WriteStream {
  stream ??= process.stderr.on('error', () => {})
  return stream
}
