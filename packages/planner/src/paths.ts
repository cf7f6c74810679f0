/**
 * Host paths as text. The planner runs without a file system, also in a browser, so it can only compare names:
 * symbolic links and mounts are for the caller to resolve.
 */

/** True of `/a/b`; false of relative names and of `nbd://…`, `json:{…}`. */
export function isAbsolutePath(name: string): boolean {
  return name.startsWith('/')
}

/** Drops `//`, `.` and trailing slashes. `..` is kept: with symbolic links `a/../b` need not be `b`. */
export function normalizePath(path: string): string {
  if (!isAbsolutePath(path)) return path
  const parts = path.split('/').filter(part => part !== '' && part !== '.')
  return `/${parts.join('/')}`
}

/** The folder of an absolute path, without a trailing slash except for `/`. */
export function dirname(path: string): string {
  const cut = normalizePath(path).lastIndexOf('/')
  return cut <= 0 ? '/' : normalizePath(path).slice(0, cut)
}

/** `name` as the image `from` means it: a backing file's relative name starts at its overlay's folder. */
export function resolveFrom(from: string, name: string): string {
  if (isAbsolutePath(name) || !isAbsolutePath(from) || hasScheme(name)) return normalizePath(name)
  return normalizePath(`${dirname(from)}/${name}`)
}

/** QEMU's rule: a colon before any slash makes it a protocol (`nbd://…`, `json:{…}`), not a file. */
function hasScheme(name: string): boolean {
  return /^[^/]*:/.test(name)
}

/** A path quoted for `sh`: always in single quotes, so that nothing in it is special. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
