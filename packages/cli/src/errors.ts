import { type ExitStatus, exitStatus } from './exit-status.js'

/** A call that cannot be understood: exit status 64. */
export class UsageError extends Error {
  readonly code = 'usage'
}

/** Something that a command found, with a code of its own for `--output json`. */
export class CommandError extends Error {
  readonly code: string
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: string, message: string, details: Readonly<Record<string, unknown>> = {}) {
    super(message)
    this.code = code
    this.details = details
  }
}

/** An error as it is shown: on stderr, as a line or as JSON. */
export interface ShownError {
  readonly code: string
  readonly message: string
  readonly details: Readonly<Record<string, unknown>>
  readonly status: ExitStatus
}

/**
 * The one place where errors become exit statuses. The packages below throw errors with a literal `code`; what has
 * none is a fault in tidemark itself, and says so.
 */
export function describeError(error: unknown): ShownError {
  if (!(error instanceof Error))
    return { code: 'internal', message: String(error), details: {}, status: exitStatus.error }
  if (error.name === 'AbortError') {
    return { code: 'interrupted', message: 'interrupted', details: {}, status: exitStatus.interrupted }
  }
  const { code, details, evidence } = error as { code?: unknown; details?: object; evidence?: object }
  const known = { message: error.message, details: { ...details, ...evidence } }
  if (code === 'usage') {
    return { ...known, code: 'usage', status: exitStatus.usage }
  }
  if (typeof code !== 'string') {
    const message = `${error.stack ?? error.message}\nThis is a fault in tidemark: please report it.`
    return { code: 'internal', message, details: {}, status: exitStatus.error }
  }
  const hint = hints[code] ?? hints[String((details as { reason?: unknown } | undefined)?.reason)]
  const message = hint === undefined ? known.message : `${known.message} (${hint})`
  return { ...known, message, code, status: statusOf(code) }
}

/** Options, and other programs, that the packages below know nothing of; by the error's code, or its reason. */
const hints: Readonly<Record<string, string>> = {
  'passphrase-missing': 'give --passphrase-file FILE, or - for standard input',
  'stale-bitmaps': 'qemu-img check -r leaks FILE drops them',
}

function statusOf(code: string): ExitStatus {
  if (code === 'unsupported-feature') return exitStatus.unsupported
  return code === 'plan-unknown' ? exitStatus.cannotTell : exitStatus.error
}
