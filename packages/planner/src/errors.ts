/**
 * What the planner throws. Things that are wrong with a disk are reasons in a plan, never errors; an error means
 * that there is no plan at all: the question cannot be asked, or a document cannot be read.
 */

/** Plain data that says what an error or a reason was judged from. Keys are camelCase; JSON output has kebab-case. */
export type Evidence = Readonly<Record<string, EvidenceValue | undefined>>
export type EvidenceValue =
  | string
  | number
  | boolean
  | null
  | readonly EvidenceValue[]
  | { readonly [key: string]: EvidenceValue }

/** The base of every error of this package: `code` is a literal, `evidence` is plain data. */
export abstract class PlannerError extends Error {
  // A literal: a bundler that makes names short would show its own.
  abstract override readonly name: string
  abstract readonly code: string
  readonly evidence: Evidence

  constructor(message: string, evidence: Evidence = {}, options?: ErrorOptions) {
    super(message, options)
    this.evidence = evidence
  }
}

/** Where and how an XML document fails. */
export interface XmlFault {
  /** The element or attribute at fault: `<domain>`, `<disk> @type`, `document`. */
  readonly structure: string
  /** 1-based; undefined where no position is known. */
  readonly line?: number | undefined
  /** 1-based, in UTF-16 units. */
  readonly column?: number | undefined
  readonly expected?: string | undefined
  /** What is there instead. Only names and enumerated values: never text that could be a secret. */
  readonly found?: string | undefined
}

/**
 * A document that is not well-formed XML, is refused for safety, or is not the document asked for.
 *
 * It never quotes the source: `<domain>` as libvirt stores it may hold passwords. For the same reason it has no
 * `cause`: the XML library's own messages quote what they stumble over.
 */
export class XmlError extends PlannerError {
  override readonly name = 'XmlError'
  readonly code = 'invalid-xml'
  readonly structure: string
  readonly line: number | undefined
  readonly column: number | undefined
  readonly expected: string | undefined
  readonly found: string | undefined

  constructor(problem: string, fault: XmlFault) {
    const where = fault.line === undefined ? '' : ` (line ${fault.line}, column ${fault.column ?? 1})`
    super(`${problem}${where}`, { ...fault })
    this.structure = fault.structure
    this.line = fault.line
    this.column = fault.column
    this.expected = fault.expected
    this.found = fault.found
  }
}

export type PlanErrorCode =
  /** The asked checkpoint is not among the facts. */
  | 'checkpoint-missing'
  /** A disk asked for is not one of the domain's disks that can be backed up. */
  | 'disk-unknown'
  /** The domain has no writable, non-empty disk. */
  | 'domain-without-disks'
  /** A plan with a disk of mode `unknown` cannot be turned into commands. */
  | 'plan-unknown'
  /** A disk has no folder of its own for the backup's target or scratch file: name one. */
  | 'target-dir-needed'
  /** A target or path that libvirt's XML cannot hold, or its schema does not take. */
  | 'name-unfit'
  /** No such layer in a disk's chain. */
  | 'layer-unknown'
  /** Layers that cannot be united so: the base is not below the top, or nothing lies between. */
  | 'layer-order'
  /** A snapshot's overlay that is in the chain already. */
  | 'overlay-unfit'
  /** Operations that cannot be carried out as a whole. */
  | 'operation-blocked'

/** A question that has no plan for an answer. */
export class PlanError extends PlannerError {
  override readonly name = 'PlanError'
  readonly code: PlanErrorCode

  constructor(code: PlanErrorCode, message: string, evidence: Evidence = {}) {
    super(message, evidence)
    this.code = code
  }
}

export type DefinitionErrorCode =
  /** The domain has no disk at all. */
  | 'domain-without-disks'
  /** More disks are listed than the domain has. */
  | 'too-many-disks'
  /** No disk of the domain has that target or path, or several have that path. */
  | 'disk-unknown'
  | 'disk-twice'
  /** An empty disk, or for a checkpoint a read-only one. */
  | 'disk-not-writable'
  /** A new checkpoint of a disk that cannot hold bitmaps. */
  | 'disk-not-qcow2'
  /** A new checkpoint's bitmap must have its name. */
  | 'bitmap-name'
  /** What is told anew must have a name and a creation time. */
  | 'name-missing'
  | 'creation-time-missing'
  /** The embedded `<domain>` has another UUID. */
  | 'domain-differs'
  /** A backup of nothing. */
  | 'no-disk-selected'
  /** An incremental backup of a disk, with no checkpoint named. */
  | 'incremental-missing'
  /** libvirt makes up a file's name beside a disk only where the disk is a file. */
  | 'disk-not-a-file'

/** A `<domaincheckpoint>` or `<domainbackup>` that does not go with its domain: libvirt refuses it too. */
export class DefinitionError extends PlannerError {
  override readonly name = 'DefinitionError'
  readonly code: DefinitionErrorCode

  constructor(code: DefinitionErrorCode, message: string, evidence: Evidence = {}) {
    super(message, evidence)
    this.code = code
  }
}
