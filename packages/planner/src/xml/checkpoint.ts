import type { CheckpointDisk, CheckpointDraft, CheckpointFacts, DomainFacts } from '../facts.js'
import { checkpointSchemaFault } from './checkpoint-schema.js'
import { parseXml, type XmlElement } from './document.js'
import { readDomain } from './domain.js'
import {
  attribute,
  childElement,
  childElements,
  childText,
  elementError,
  enumAttribute,
  printable,
} from './elements.js'
import { EmbeddedXml } from './embedded.js'
import { isCheckpointName, isDiskTarget, isSchemaPath } from './names.js'

export interface ParseCheckpointOptions {
  /**
   * The name of a checkpoint whose XML has none. libvirt takes the creation time in Unix seconds when it makes one;
   * metadata on disk always has a name, so none is invented here. Undefined: a missing name is an error.
   */
  readonly defaultName?: string | undefined
}

/** A `<domain>` that was read before. */
export interface CheckpointDomain {
  readonly facts: DomainFacts
  readonly xml: EmbeddedXml
}

/**
 * Reads a `<domaincheckpoint>` as libvirt stores it for each checkpoint (after its "AUTO-GENERATED FILE" comment).
 *
 * Elements that libvirt's schema does not have, and a missing creation time, make libvirt leave such a file out; here
 * it is read all the same, and `libvirtSkips` says why.
 *
 * @param xml the document's text
 * @throws {XmlError} not well-formed, another document, or something that libvirt would refuse too: a missing or
 *   unusable name, a disk without a name, with one that is none or listed twice, an unknown `checkpoint` value, a
 *   bitmap or size of a disk that is left out, a malformed creation time
 * @example
 * ```ts
 * const { name, parent, disks } = parseCheckpoint(readFileSync('cp2.xml', 'utf8'))
 * ```
 */
export function parseCheckpoint(xml: string, options: ParseCheckpointOptions = {}): CheckpointFacts {
  return checkpointOf(parseCheckpointRoot(xml), options)
}

/**
 * What a root element that `parseCheckpointRoot` gave stands for.
 *
 * @param known taken for its `<domain>`, whatever that holds
 * @throws {XmlError} as `parseCheckpoint`, but for what is not well-formed
 */
export function checkpointOf(
  root: XmlElement,
  options: ParseCheckpointOptions = {},
  known?: CheckpointDomain,
): CheckpointFacts {
  const draft = readCheckpoint(root, known)
  const name = draft.name ?? options.defaultName
  if (name === undefined) {
    throw elementError(root, 'the checkpoint has no name', { expected: '<name>' })
  }
  const fault = checkpointSchemaFault(root)?.problem
  const skips = fault ?? (draft.creationTime === undefined ? 'it has no <creationTime>' : undefined)
  return { ...draft, name, ...(skips === undefined ? {} : { libvirtSkips: skips }) }
}

/**
 * Reads a `<domaincheckpoint>` as a user hands it to `virsh checkpoint-create`: as strictly as libvirt's schema, and
 * the name may be missing (see `completeCheckpoint`, `redefineCheckpoint`). The `<domain>` is not held against a schema.
 *
 * @throws {XmlError} as `parseCheckpoint`, and for what libvirt's schema does not have
 */
export function parseCheckpointDraft(xml: string): CheckpointDraft {
  const root = parseCheckpointRoot(xml)
  const fault = checkpointSchemaFault(root)
  if (fault !== undefined) {
    throw elementError(fault.element, `libvirt refuses this checkpoint: ${fault.problem}`, {
      expected: "what libvirt's schema has",
    })
  }
  return readCheckpoint(root)
}

/** @throws {XmlError} not well-formed, or another document */
export function parseCheckpointRoot(xml: string): XmlElement {
  const root = parseXml(xml)
  if (root.name === 'domaincheckpoint') return root
  const found = `<${printable(root.name)}>`
  throw elementError(root, `this is not a checkpoint: ${found}`, { expected: '<domaincheckpoint>', found })
}

function readCheckpoint(root: XmlElement, known?: CheckpointDomain): CheckpointDraft {
  const parent = childElement(root, 'parent')
  const domain = childElement(root, 'domain')
  // Snapshots, which checkpoints are modelled on, have the stored configuration beside the running one.
  const described = domain ?? childElement(root, 'inactiveDomain')
  return {
    name: checkpointName(root),
    description: childText(root, 'description'),
    parent: parent && checkpointName(parent),
    creationTime: creationTime(root),
    disks: readDisks(root),
    domain: known?.facts ?? (described && readDomain(described)),
    ...(domain === undefined ? {} : { domainXml: known?.xml ?? EmbeddedXml.of(domain, [root]) }),
  }
}

function checkpointName(parent: XmlElement): string | undefined {
  const name = childText(parent, 'name')
  if (name === undefined || isCheckpointName(name)) return name
  const found = printable(name)
  throw elementError(childElement(parent, 'name')!, `a checkpoint cannot be named '${found}'`, {
    expected: 'letters, digits, - _ and . (no dot first)',
    found,
  })
}

function creationTime(root: XmlElement): number | undefined {
  const text = childText(root, 'creationTime')
  if (text === undefined) return undefined
  const seconds = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(seconds)) return seconds
  throw elementError(childElement(root, 'creationTime')!, 'the creation time is not a number of seconds', {
    expected: 'Unix seconds',
  })
}

/** Undefined without disks, also for an empty `<disks/>`, which the schema does not have. */
function readDisks(root: XmlElement): readonly CheckpointDisk[] | undefined {
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

function readDisk(element: XmlElement): CheckpointDisk {
  const name = attribute(element, 'name')
  if (name === undefined) {
    throw elementError(element, 'a disk of the checkpoint has no name', { expected: "name='…'" })
  }
  if (!isDiskTarget(name) && !isSchemaPath(name)) {
    const found = printable(name)
    throw elementError(element, `a disk cannot be named '${found}'`, {
      expected: 'a target such as vda, or an absolute path',
      found,
    })
  }
  const what = "a disk's checkpoint"
  const checkpoint = enumAttribute(element, 'checkpoint', ['no', 'bitmap'], what) ?? 'bitmap'
  const { bitmap, size } = element.attributes
  if (checkpoint === 'no' && (bitmap !== undefined || size !== undefined)) {
    throw elementError(element, "a disk with checkpoint='no' has neither bitmap nor size", {
      expected: "checkpoint='bitmap'",
      found: bitmap === undefined ? 'size' : 'bitmap',
    })
  }
  if (size !== undefined && !/^[0-9]+$/.test(size)) {
    throw elementError(element, "a disk's size is not a number of bytes", { expected: 'bytes' })
  }
  // The size is libvirt's to tell: what is written there it does not read either.
  return { name, checkpoint, bitmap }
}
