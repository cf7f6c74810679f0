/** What a backing file's name refers to. */
export type BackingReference =
  /** A path, relative ones as written. */
  | {
      readonly kind: 'path'
      readonly path: string
      /** Said by a json: name alone. */
      readonly format?: string
    }
  /** Something that is no local file: a network protocol, or a driver that this version does not read. */
  | { readonly kind: 'other'; readonly description: string }

/**
 * Reads a backing file's name as QEMU does: a plain path, `file:PATH`, `json:{…}` with a file or host_device
 * below an optional format driver, or another protocol.
 */
export function parseBackingName(name: string): BackingReference {
  if (name.startsWith('json:')) return parseJsonName(name.slice(5))
  if (name.startsWith('file:')) return ownPath(name.slice(5), name)
  // QEMU takes what precedes the first colon for a protocol, unless a slash comes before it.
  const colon = name.indexOf(':')
  const slash = name.indexOf('/')
  if (colon >= 0 && (slash < 0 || colon < slash)) return { kind: 'other', description: name }
  return { kind: 'path', path: name }
}

/**
 * A name relative to an image's folder, put together as QEMU does (path_combine): as text. Taking `..` out would
 * lead elsewhere behind a symbolic link, to a file that may have a bitmap of that name too.
 */
export function besideImage(image: string, path: string): string {
  return image.slice(0, image.lastIndexOf('/') + 1) + path
}

/** A backing file's name as `qemu-img info` shows it in full: absolute ones and those with a protocol stay. */
export function fullBackingName(image: string, name: string): string {
  // A protocol is what precedes a colon, unless a slash comes first.
  return /^(\/|[^/]*:)/.test(name) ? name : besideImage(image, name)
}

/**
 * A path that no image's folder is put before: QEMU takes a relative one from the folder that its process runs in,
 * which nobody knows here. Another file of that name would be a wrong answer without a word.
 */
function ownPath(path: string, name: string): BackingReference {
  if (!path.startsWith('/')) {
    return { kind: 'other', description: `${name} (relative to the folder that QEMU runs in)` }
  }
  return { kind: 'path', path: path.startsWith('///') ? path.slice(2) : path }
}

function parseJsonName(json: string): BackingReference {
  // A header has no room for more; nesting is bounded with it.
  if (json.length > 1023) return { kind: 'other', description: 'json: of more than 1023 bytes' }
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return { kind: 'other', description: 'json: with what is no JSON' }
  }
  if (!isObject(value)) return { kind: 'other', description: 'json: without an object' }
  // Nested {"driver":"qcow2","file":{"driver":"file","filename":…}}, dotted {"file.filename":…}, or flat.
  const options = flatten(value)
  const below = Object.keys(options).some(key => key.startsWith('file.'))
  const driver = options[below ? 'file.driver' : 'driver'] ?? 'file'
  const path = options[below ? 'file.filename' : 'filename']
  const format = below ? options.driver : undefined
  if ((driver !== 'file' && driver !== 'host_device') || typeof path !== 'string') {
    return { kind: 'other', description: `json: with driver ${shown(driver)}` }
  }
  // An offset into the file, another backing file and the like: not the image that the path alone would be.
  const strange = Object.keys(options).find(key => !harmless.has(key.replace(/^file\./, '')))
  if (strange !== undefined) return { kind: 'other', description: `json: with option ${strange}` }
  const own = ownPath(path, `json: with ${path}`)
  return own.kind === 'path' && typeof format === 'string' ? { ...own, format } : own
}

/** Not String(): that calls what the name itself says, as in {"driver":[{"toString":1}]}. */
function shown(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** Options that say how an image is accessed, not what it holds. */
const harmless = new Set(
  (
    'driver filename node-name read-only auto-read-only discard detect-zeroes force-share locking aio aio-max-batch ' +
    'drop-cache pr-manager lazy-refcounts cache.direct cache.no-flush cache-size l2-cache-size refcount-cache-size'
  ).split(' '),
)

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** {"a":{"b":1}} → {"a.b":1}, as QEMU does. */
function flatten(value: Record<string, unknown>, prefix = ''): Record<string, unknown> {
  // Without a prototype: `__proto__` is an option like any other.
  const flat: Record<string, unknown> = Object.create(null)
  for (const [key, each] of Object.entries(value)) {
    if (isObject(each)) Object.assign(flat, flatten(each, `${prefix}${key}.`))
    else flat[prefix + key] = each
  }
  return flat
}
