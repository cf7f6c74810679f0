import type { BackingStore, DiskMirror, DomainDisk, DomainFacts } from '../facts.js'
import { sourceName, volumeName } from './disk-source.js'
import { parseXml, type XmlElement } from './document.js'
import { attribute, childElement, childElements, childText, elementError, printable } from './elements.js'
import { EmbeddedXml } from './embedded.js'

/**
 * Reads a `<domain>` as far as its disks go: the inactive configuration, the live one (`virsh dumpxml`), or the
 * `<domstatus>` that libvirt keeps of a running one. Extensions and all else are passed over.
 *
 * @param xml the document's text
 * @throws {XmlError} not well-formed, another document, no name, a disk without a target, or a target used twice
 * @example
 * ```ts
 * parseDomain(readFileSync('web.xml', 'utf8')).disks.map(({ target, source }) => `${target} ${source}`)
 * ```
 */
export function parseDomain(xml: string): DomainFacts {
  return readDomain(findDomain(parseXml(xml)).domain)
}

/**
 * A `<domain>` to be carried in a checkpoint's metadata as it is.
 *
 * @throws {XmlError} as `parseDomain`
 * @example
 * ```ts
 * const { facts, xml } = embedDomain(readFileSync('/etc/libvirt/qemu/web.xml', 'utf8'))
 * printCheckpoint({ ...checkpoint, domain: facts, domainXml: xml })
 * ```
 */
export function embedDomain(xml: string): { readonly facts: DomainFacts; readonly xml: EmbeddedXml } {
  const { domain, around } = findDomain(parseXml(xml))
  return { facts: readDomain(domain), xml: EmbeddedXml.of(domain, around) }
}

function findDomain(root: XmlElement): { domain: XmlElement; around: readonly XmlElement[] } {
  if (root.name === 'domain') return { domain: root, around: [] }
  const domain = root.name === 'domstatus' ? childElement(root, 'domain') : undefined
  if (domain !== undefined) return { domain, around: [root] }
  const found = `<${printable(root.name)}>`
  throw elementError(root, `this is not a domain: ${found}`, { expected: '<domain> or <domstatus>', found })
}

/** Each disk is compared with all of each checkpoint. QEMU's buses end long before. */
const MAX_DISKS = 4096

/** Reads a `<domain>` or `<inactiveDomain>` element. */
export function readDomain(domain: XmlElement): DomainFacts {
  const name = childText(domain, 'name')
  if (name === undefined) {
    throw elementError(domain, 'the domain has no name', { expected: '<name>' })
  }
  const devices = childElement(domain, 'devices')
  const disks: DomainDisk[] = []
  const targets = new Set<string>()
  for (const element of devices ? childElements(devices, 'disk') : []) {
    if (disks.length === MAX_DISKS) {
      throw elementError(element, 'the domain has too many disks', { expected: `at most ${MAX_DISKS} disks` })
    }
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
  return { name, uuid: childText(domain, 'uuid')?.trim(), disks }
}

function readDisk(disk: XmlElement): DomainDisk {
  const target = attribute(childElement(disk, 'target'), 'dev')
  if (target === undefined) {
    throw elementError(disk, 'a disk has no target', { expected: "<target dev='…'>" })
  }
  const type = attribute(disk, 'type') ?? 'file'
  const source = childElement(disk, 'source')
  const volume = type === 'volume' ? volumeName(source) : undefined
  const encryption = encryptionOf(disk) ?? encryptionOf(source)
  const mirror = childElement(disk, 'mirror')
  return {
    target,
    type,
    device: attribute(disk, 'device') ?? 'disk',
    source: sourceName(type, source),
    format: attribute(childElement(disk, 'driver'), 'type'),
    // libvirt takes every CD-ROM for read-only, whether or not it says so.
    readonly: childElement(disk, 'readonly') !== undefined || attribute(disk, 'device') === 'cdrom',
    ...readBackingStore(disk),
    ...(childElement(disk, 'transient') === undefined ? {} : { transient: true }),
    ...(isSliced(disk) ? { sliced: true } : {}),
    ...(childElement(disk, 'shareable') === undefined ? {} : { shareable: true }),
    ...(encryption === undefined ? {} : { encryption }),
    ...(volume === undefined ? {} : { volume }),
    ...(mirror === undefined ? {} : { mirror: readMirror(mirror) }),
  }
}

/** `<encryption format>`: in `<source>` since libvirt 3.9, in `<disk>` before. The secret is not looked at. */
function encryptionOf(element: XmlElement | undefined): string | undefined {
  return attribute(element && childElement(element, 'encryption'), 'format')
}

function isSliced(element: XmlElement): boolean {
  const source = childElement(element, 'source')
  return source !== undefined && childElement(source, 'slices') !== undefined
}

/** With a `<source>` since libvirt 1.2.6, by attributes of its own before. */
function readMirror(mirror: XmlElement): DiskMirror {
  const type = attribute(mirror, 'type') ?? 'file'
  return {
    job: attribute(mirror, 'job'),
    ready: attribute(mirror, 'ready'),
    type,
    source: sourceName(type, childElement(mirror, 'source')) ?? attribute(mirror, 'file'),
    format: attribute(childElement(mirror, 'format'), 'type') ?? attribute(mirror, 'format'),
  }
}

/**
 * Nested elements, flattened. One without a type is the end of the chain, known to be there; where even that is
 * missing, libvirt looks into the last image for what follows.
 */
function readBackingStore(disk: XmlElement): Pick<DomainDisk, 'backingStore' | 'backingStoreGoesOn'> {
  let element = childElement(disk, 'backingStore')
  if (element === undefined) return { backingStore: undefined }
  const stores: BackingStore[] = []
  while (element !== undefined) {
    const type = attribute(element, 'type')
    if (type === undefined) return { backingStore: stores }
    const inner = childElement(element, 'source')
    // Part of a file is no image that could be opened by its path.
    const source = isSliced(element) ? undefined : sourceName(type, inner)
    const encryption = encryptionOf(inner)
    stores.push({
      type,
      source,
      format: attribute(childElement(element, 'format'), 'type'),
      ...(encryption === undefined ? {} : { encryption }),
    })
    element = childElement(element, 'backingStore')
  }
  return { backingStore: stores, backingStoreGoesOn: true }
}
