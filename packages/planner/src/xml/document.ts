import {
  type XmlElement as Node,
  XmlError as ParseFault,
  parseXml as parse,
  XmlText,
} from '@rgrove/parse-xml'
import { XmlError } from '../errors.js'
import { guardXml } from './guard.js'

/**
 * An element as it was read. Its name is as written where no default namespace holds, as everywhere in libvirt's own
 * XML, else `{namespace}name`: so that nobody's extension is taken for an element of libvirt's.
 */
export interface XmlElement {
  readonly name: string
  /** By name as written (`dev`, `xmlns:qemu`); references are resolved. Without a prototype. */
  readonly attributes: Readonly<Record<string, string>>
  /** Elements and text (CDATA too) in their order; comments and processing instructions are left out. */
  readonly children: readonly (XmlElement | string)[]
  /** Offsets into `source` of its `<` and of what follows its end tag. */
  readonly start: number
  readonly end: number
  /** The whole document with plain line ends. Private data: never quoted. */
  readonly source: string
}

/** A document's text as the parser takes it, and as offsets in it count: without a byte order mark, plain line ends. */
export function plainSource(text: string): string {
  return (text.startsWith('\ufeff') ? text.slice(1) : text).replace(/\r\n?/g, '\n')
}

/**
 * Parses a document strictly: the first thing that is not well-formed ends it, undeclared prefixes included.
 *
 * @returns the root element
 * @throws {XmlError} not well-formed, too long, too deep, or with a DOCTYPE
 */
export function parseXml(text: string): XmlElement {
  const source = plainSource(text)
  guardXml(source)
  try {
    return convert(parse(source, { includeOffsets: true }).root!, source, '', new Map())
  } catch (error) {
    if (!(error instanceof ParseFault)) throw error
    // Its message quotes the source, where passwords may be: only the kind of fault and the place go on.
    throw notWellFormed(faultKind(error.message), { line: error.line, column: error.column })
  }
}

function notWellFormed(kind: string, place: { line?: number; column?: number } = {}): XmlError {
  return new XmlError(`the document is not well-formed XML: ${kind}`, {
    ...{ structure: 'document', ...place, expected: 'well-formed XML' },
  })
}

/** Prefixes that are declared where the walk is, and how often, one in another. */
type Prefixes = Map<string, number>

/** Depth is bounded before (MAX_XML_DEPTH). */
function convert(node: Node, source: string, outerNamespace: string, prefixes: Prefixes): XmlElement {
  const { name, attributes, start, end } = node
  const odd = Object.keys(attributes).filter(key => key === 'xmlns' || key.includes(':'))
  const namespace = odd.includes('xmlns') ? attributes.xmlns! : outerNamespace
  const declared = odd.filter(key => key.startsWith('xmlns:')).map(key => key.slice('xmlns:'.length))
  for (const prefix of declared) prefixes.set(prefix, (prefixes.get(prefix) ?? 0) + 1)
  requireDeclared(name, prefixes)
  for (const key of odd) requireDeclared(key, prefixes)

  const children: (XmlElement | string)[] = []
  for (const child of node.children) {
    if (child instanceof XmlText) children.push(child.text)
    else if ('attributes' in child) children.push(convert(child as Node, source, namespace, prefixes))
  }
  for (const prefix of declared) prefixes.set(prefix, prefixes.get(prefix)! - 1)
  const plain = namespace === '' || name.includes(':') ? name : `{${namespace}}${name}`
  return { name: plain, attributes, children, start, end, source }
}

function requireDeclared(name: string, prefixes: Prefixes): void {
  const colon = name.indexOf(':')
  if (colon < 0) return
  const prefix = name.slice(0, colon)
  if (prefix === 'xml' || prefix === 'xmlns' || (prefixes.get(prefix) ?? 0) > 0) return
  throw notWellFormed('a namespace prefix is not declared')
}

const FAULTS: readonly (readonly [pattern: RegExp, kind: string])[] = [
  [/^Unclosed start tag|^Missing end tag/, 'an element is not closed, or by the end tag of another'],
  [/^Root element/, 'there is no element in it'],
  [/^Extra content/, 'there is something outside its root element'],
  [/reference|^Named entity/, 'it uses an entity that XML does not define'],
  [/^Duplicate attribute/, 'an attribute is there twice'],
  [/attribute/i, 'an attribute is malformed'],
  [/end tag/, 'an end tag is malformed'],
  [/comment/, 'a comment is malformed'],
  [/CDATA/, 'a CDATA section is malformed'],
  [
    /processing instruction|XML declaration|XML version|version number|encoding|standalone/i,
    'a processing instruction is malformed',
  ],
  [/^Invalid character/, 'a character is not allowed where it is'],
]

function faultKind(message: string): string {
  return FAULTS.find(([pattern]) => pattern.test(message))?.[1] ?? 'an element is malformed'
}
