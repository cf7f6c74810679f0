import { type Stats, statSync } from 'node:fs'

/** As a storage's identity; undefined for what cannot be looked at, which opening it tells. */
export function identityOf(filename: string): string | undefined {
  const found = statOf(filename)
  if (found === undefined) return undefined
  return found.isBlockDevice() ? `device ${found.rdev}` : `${found.dev}:${found.ino}`
}

/** Undefined for what is not there, cannot be reached, or has no name that can be. */
export function statOf(filename: string): Stats | undefined {
  try {
    return statSync(filename)
  } catch {
    return undefined
  }
}
