import { realpathSync } from 'node:fs'
import { resolve } from 'node:path'
import { identityOf } from './identity.js'

/** Where a name is this process's own, or one of a process that may end before. */
const PASSING = /^\/(?:proc|dev\/fd|dev\/std(?:in|out|err)$)(?:\/|$)/

/**
 * An image's absolute name, by which it is found again when this process has ended: not `/dev/fd/3`, which is another
 * file in each. Links are not followed otherwise: those to devices outlast the names of what they lead to.
 *
 * @returns undefined where there is no such name: of a file that was removed, of another mount namespace
 */
export function lastingName(filename: string): string | undefined {
  const name = resolve(filename)
  const identity = PASSING.test(name) ? identityOf(name) : undefined
  // What is not there is told when it is opened.
  if (identity === undefined) return name
  try {
    const real = realpathSync(name)
    return identityOf(real) === identity && !PASSING.test(real) ? real : undefined
  } catch {
    return undefined
  }
}
