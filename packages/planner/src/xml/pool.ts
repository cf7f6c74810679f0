import { isAbsolutePath, normalizePath } from '../paths.js'
import { parseXml } from './document.js'
import { attribute, childElement, childText, elementError, printable } from './elements.js'

/** A storage pool of libvirt, as far as it tells where its volumes are. */
export interface PoolFacts {
  readonly name: string
  /** `dir`, `fs`, `netfs`, `logical`, `rbd`, … */
  readonly type: string
  /** The folder that holds its volumes as files; undefined for pools of other kinds. */
  readonly folder: string | undefined
}

/** Pools whose volumes are files in one folder, named after themselves. */
const FOLDERS = ['dir', 'fs', 'netfs']

/**
 * Reads a `<pool>` as libvirt stores it.
 *
 * @throws {XmlError} not well-formed, another document, or no name
 */
export function parsePool(xml: string): PoolFacts {
  const root = parseXml(xml)
  if (root.name !== 'pool') {
    const found = `<${printable(root.name)}>`
    throw elementError(root, `this is not a storage pool: ${found}`, { expected: '<pool>', found })
  }
  const name = childText(root, 'name')
  if (name === undefined) throw elementError(root, 'the pool has no name', { expected: '<name>' })
  const type = attribute(root, 'type') ?? ''
  const target = childElement(root, 'target')
  const path = target && childText(target, 'path')
  const holdsFiles = FOLDERS.includes(type) && path !== undefined && isAbsolutePath(path)
  return { name, type, folder: holdsFiles ? normalizePath(path) : undefined }
}
