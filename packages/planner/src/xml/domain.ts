import type { Element } from '@xmldom/xmldom'
import type { BackingStore, DomainDisk, DomainFacts } from '../facts.js'
import { sourceName } from './disk-source.js'
import { parseXml } from './document.js'
import { attribute, childElement, childElements, childText, elementError, printable } from './elements.js'

/**
 * Reads a `<domain>` as far as its disks go: the inactive configuration, the live one (`virsh dumpxml`), or the
 * `<domstatus>` that libvirt keeps of a running one. Extensions, `<mirror>` and all else are passed over.
 *
 * @param xml the document's text
 * @throws {XmlError} not well-formed, another document, no name, a disk without a target, or a target used twice
 * @example
 * ```ts
 * parseDomain(readFileSync('web.xml', 'utf8')).disks.map(({ target, source }) => `${target} ${source}`)
 * ```
 */
export function parseDomain(xml: string): DomainFacts {
  const root = parseXml(xml)
  const domain = root.nodeName === 'domstatus' ? childElement(root, 'domain') : root
  if (domain?.nodeName !== 'domain') {
    const found = `<${printable(root.nodeName)}>`
    throw elementError(root, `this is not a domain: ${found}`, { expected: '<domain> or <domstatus>', found })
  }
  return readDomain(domain)
}

/** Reads a `<domain>` or `<inactiveDomain>` element. */
export function readDomain(domain: Element): DomainFacts {
  const name = childText(domain, 'name')
  if (name === undefined) {
    throw elementError(domain, 'the domain has no name', { expected: '<name>' })
  }
  const devices = childElement(domain, 'devices')
  const disks: DomainDisk[] = []
  const targets = new Set<string>()
  for (const element of devices ? childElements(devices, 'disk') : []) {
    const disk = readDisk(element)
    if (targets.has(disk.target)) {
      const found = printable(disk.target)
      throw elementError(element, `two disks have the target '${found}'`, {
        expected: 'a target of its own',
        found,
      })
    }
    targets.add(disk.target)
    disks.push(disk)
  }
  return { name, uuid: childText(domain, 'uuid'), disks }
}

function readDisk(disk: Element): DomainDisk {
  const target = attribute(childElement(disk, 'target'), 'dev')
  if (target === undefined) {
    throw elementError(disk, 'a disk has no target', { expected: "<target dev='…'>" })
  }
  const type = attribute(disk, 'type') ?? 'file'
  return {
    target,
    type,
    device: attribute(disk, 'device') ?? 'disk',
    source: sourceName(type, childElement(disk, 'source')),
    format: attribute(childElement(disk, 'driver'), 'type'),
    // libvirt takes every CD-ROM for read-only, whether or not it says so.
    readonly: childElement(disk, 'readonly') !== undefined || attribute(disk, 'device') === 'cdrom',
    ...readBackingStore(disk),
    ...(childElement(disk, 'transient') === undefined ? {} : { transient: true }),
    ...(isSliced(disk) ? { sliced: true } : {}),
  }
}

function isSliced(element: Element): boolean {
  const source = childElement(element, 'source')
  return source !== undefined && childElement(source, 'slices') !== undefined
}

/**
 * Nested elements, flattened. One without a type is the end of the chain, known to be there; where even that is
 * missing, libvirt looks into the last image for what follows.
 */
function readBackingStore(disk: Element): Pick<DomainDisk, 'backingStore' | 'backingStoreGoesOn'> {
  let element = childElement(disk, 'backingStore')
  if (element === undefined) return { backingStore: undefined }
  const stores: BackingStore[] = []
  while (element !== undefined) {
    const type = attribute(element, 'type')
    if (type === undefined) return { backingStore: stores }
    // Part of a file is no image that could be opened by its path.
    const source = isSliced(element) ? undefined : sourceName(type, childElement(element, 'source'))
    stores.push({ type, source, format: attribute(childElement(element, 'format'), 'type') })
    element = childElement(element, 'backingStore')
  }
  return { backingStore: stores, backingStoreGoesOn: true }
}
