import { CommandError } from '../errors.js'

/** What the system says of a place that cannot be written. */
export function writeError(out: string, cause: unknown): CommandError {
  const { code, message } = cause as NodeJS.ErrnoException
  // "ENOSPC: no space left on device, write"
  const reason = message.replace(/, [a-z]+( '.*)?$/, '')
  return new CommandError('write-failed', `cannot write ${out}: ${reason}`, { out, errno: code })
}
