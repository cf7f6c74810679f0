/** What a backing file's name refers to. */
export type BackingReference =
  /** A path, relative ones as written. */
  | { readonly kind: 'path'; readonly path: string }
  /** Something that is no local file: a network protocol, or a driver that this version does not read. */
  | { readonly kind: 'other'; readonly description: string }

/**
 * Reads a backing file's name as QEMU does: a plain path, `file:PATH`, `json:{…}` with a file or host_device
 * below an optional format driver, or another protocol.
 */
export function parseBackingName(name: string): BackingReference {
  if (name.startsWith('json:')) return parseJsonName(name.slice(5))
  if (name.startsWith('file:')) return { kind: 'path', path: stripFileUrl(name.slice(5)) }
  // QEMU takes what precedes the first colon for a protocol, unless a slash comes before it.
  const colon = name.indexOf(':')
  const slash = name.indexOf('/')
  if (colon >= 0 && (slash < 0 || colon < slash)) return { kind: 'other', description: name }
  return { kind: 'path', path: name }
}

function stripFileUrl(path: string): string {
  return path.startsWith('///') ? path.slice(2) : path
}

function parseJsonName(json: string): BackingReference {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return { kind: 'other', description: 'json: with what is no JSON' }
  }
  if (typeof value !== 'object' || value === null)
    return { kind: 'other', description: 'json: without an object' }
  const top = value as Record<string, unknown>
  // Nested {"driver":"qcow2","file":{"driver":"file","filename":…}}, dotted {"file.filename":…}, or flat.
  const below = top.file
  const file = typeof below === 'object' && below !== null ? (below as Record<string, unknown>) : undefined
  const driver = file?.driver ?? top['file.driver'] ?? (file === undefined ? top.driver : undefined) ?? 'file'
  const filename = file?.filename ?? top['file.filename'] ?? top.filename
  if (
    (driver === 'file' || driver === 'host_device' || top['file.filename'] !== undefined) &&
    typeof filename === 'string'
  ) {
    return { kind: 'path', path: filename }
  }
  return { kind: 'other', description: `json: with driver ${String(driver)}` }
}
