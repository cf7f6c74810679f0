import type { Element } from '@xmldom/xmldom'
import type { CheckpointDisk, CheckpointFacts } from '../facts.js'
import { parseXml } from './document.js'
import { readDomain } from './domain.js'
import { attribute, childElement, childElements, childText, elementError, printable } from './elements.js'

export interface ParseCheckpointOptions {
  /**
   * The name of a checkpoint whose XML has none. libvirt takes the creation time in Unix seconds when it makes one;
   * metadata on disk always has a name, so none is invented here. Undefined: a missing name is an error.
   */
  readonly defaultName?: string | undefined
}

/**
 * Reads a `<domaincheckpoint>`: what libvirt stores for each checkpoint (after its "AUTO-GENERATED FILE" comment),
 * or what a user hands to `virsh checkpoint-create`.
 *
 * @param xml the document's text
 * @throws {XmlError} not well-formed, another document, or something that libvirt would refuse too: a missing or
 *   unusable name, a disk without a name or listed twice, an unknown `checkpoint` value, a malformed creation time
 * @example
 * ```ts
 * const { name, parent, disks } = parseCheckpoint(readFileSync('cp2.xml', 'utf8'))
 * ```
 */
export function parseCheckpoint(xml: string, options: ParseCheckpointOptions = {}): CheckpointFacts {
  const root = parseXml(xml)
  if (root.nodeName !== 'domaincheckpoint') {
    const found = `<${printable(root.nodeName)}>`
    throw elementError(root, `this is not a checkpoint: ${found}`, { expected: '<domaincheckpoint>', found })
  }
  const name = checkpointName(root) ?? options.defaultName
  if (name === undefined) {
    throw elementError(root, 'the checkpoint has no name', { expected: '<name>' })
  }
  const parent = childElement(root, 'parent')
  // <domain> is the domain as it ran; where both are there, <inactiveDomain> is its stored configuration.
  const domain = childElement(root, 'domain') ?? childElement(root, 'inactiveDomain')
  return {
    name,
    description: childText(root, 'description'),
    parent: parent && checkpointName(parent),
    creationTime: creationTime(root),
    disks: readDisks(root),
    domain: domain && readDomain(domain),
  }
}

/** libvirt's pattern: names become file names, so no slash and no leading dot. */
const CHECKPOINT_NAME = /^[a-zA-Z0-9_-][a-zA-Z0-9_.-]*$/

function checkpointName(parent: Element): string | undefined {
  const name = childText(parent, 'name')
  if (name === undefined || CHECKPOINT_NAME.test(name)) return name
  const found = printable(name)
  throw elementError(childElement(parent, 'name')!, `a checkpoint cannot be named '${found}'`, {
    expected: 'letters, digits, - _ and . (no dot first)',
    found,
  })
}

function creationTime(root: Element): number | undefined {
  const text = childText(root, 'creationTime')
  if (text === undefined) return undefined
  const seconds = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(seconds)) return seconds
  throw elementError(childElement(root, 'creationTime')!, 'the creation time is not a number of seconds', {
    expected: 'Unix seconds',
  })
}

/** Undefined without disks, also for an empty `<disks/>`: libvirt then takes every disk. */
function readDisks(root: Element): readonly CheckpointDisk[] | undefined {
  const container = childElement(root, 'disks')
  const elements = container ? childElements(container, 'disk') : []
  if (elements.length === 0) return undefined
  const names = new Set<string>()
  return elements.map(element => {
    const disk = readDisk(element)
    const found = printable(disk.name)
    if (names.has(disk.name)) {
      throw elementError(element, `disk '${found}' is listed twice`, { expected: 'each disk once', found })
    }
    names.add(disk.name)
    return disk
  })
}

function readDisk(element: Element): CheckpointDisk {
  const name = attribute(element, 'name')
  if (name === undefined) {
    throw elementError(element, 'a disk of the checkpoint has no name', { expected: "name='…'" })
  }
  const checkpoint = attribute(element, 'checkpoint') ?? 'bitmap'
  if (checkpoint !== 'no' && checkpoint !== 'bitmap') {
    const found = printable(checkpoint)
    throw elementError(element, `a disk's checkpoint cannot be '${found}'`, {
      expected: 'no or bitmap',
      found,
    })
  }
  return { name, checkpoint, bitmap: attribute(element, 'bitmap') }
}
