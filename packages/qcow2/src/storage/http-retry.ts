import type { Qcow2Error } from '../errors.js'

/** Pauses before another attempt, in milliseconds: what has not passed in five seconds is told, not waited for. */
const PAUSES_MS = [200, 800, 3200]

/** A server that asks for a longer pause is not waited for either. */
const LONGEST_PAUSE_MS = 10_000

/** A failure that may pass: a connection that broke, a server that is busy. */
export class PassingFailure {
  constructor(
    readonly error: Qcow2Error,
    /** The pause that the server asks for. */
    readonly pauseMs?: number,
  ) {}
}

/**
 * Does `attempt` again, a few times, while it throws a PassingFailure.
 *
 * @throws the last failure's error, or the signal's reason
 */
export async function retrying<T>(signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
  for (let attempts = 0; ; attempts++) {
    try {
      return await attempt()
    } catch (failure) {
      // A request that was ended looks like a broken connection.
      signal.throwIfAborted()
      if (!(failure instanceof PassingFailure)) throw failure
      const pause = PAUSES_MS[attempts]
      if (pause === undefined) throw failure.error
      const wanted = failure.pauseMs ?? pause
      if (wanted > LONGEST_PAUSE_MS) throw failure.error
      await sleep(wanted, signal)
    }
  }
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      resolve()
    }, milliseconds)
    signal.addEventListener('abort', stop, { once: true })
  })
}

/** A Retry-After header in milliseconds (RFC 9110, 10.2.3): seconds, or a date. */
export function parseRetryAfter(header: string | null): number | undefined {
  if (header === null) return undefined
  if (/^\d+$/.test(header)) return Number(header) * 1000
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now())
}
