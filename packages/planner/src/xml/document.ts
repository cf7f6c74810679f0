import { SaxesParser, type SaxesTagNS } from 'saxes'
import { XmlError } from '../errors.js'
import { guardXml, positionAt } from './guard.js'

/**
 * An element as it was read. Its name is the plain one where it is in no namespace, as all of libvirt's are, else
 * `{namespace}local`, so that nobody's extension is taken for an element of libvirt's.
 */
export interface XmlElement {
  readonly name: string
  /** By qualified name (`dev`, `xmlns:qemu`); references are resolved. Without a prototype. */
  readonly attributes: Readonly<Record<string, string>>
  /** Elements and text (CDATA too) in their order; comments and processing instructions are left out. */
  readonly children: readonly (XmlElement | string)[]
  /** Offsets into `source` of its `<` and of what follows its end tag. */
  readonly start: number
  readonly end: number
  /** The whole document with plain line ends. Private data: never quoted. */
  readonly source: string
}

type Building = { -readonly [Key in keyof XmlElement]: XmlElement[Key] } & {
  children: (XmlElement | string)[]
}

/**
 * Parses a document strictly: the first thing that is not well-formed ends it, undeclared prefixes included.
 *
 * @returns the root element
 * @throws {XmlError} not well-formed, too long, too deep, or with a DOCTYPE
 */
export function parseXml(text: string): XmlElement {
  const source = (text.startsWith('\ufeff') ? text.slice(1) : text).replace(/\r\n?/g, '\n')
  guardXml(source)
  // saxes is a table of states: it neither recurses nor expands, whatever it is given.
  const parser = new SaxesParser({ xmlns: true, position: false })
  const open: Building[] = []
  let root: XmlElement | undefined
  const addText = (piece: string) => open.at(-1)?.children.push(piece)
  parser.on('opentag', tag => {
    // No `<` can be inside a tag.
    const start = source.lastIndexOf('<', parser.position - 1)
    const name = plainName(tag)
    const attributes = plainAttributes(tag)
    const element: Building = { name, attributes, children: [], start, end: start, source }
    open.at(-1)?.children.push(element)
    root ??= element
    open.push(element)
  })
  parser.on('closetag', () => {
    open.pop()!.end = parser.position
  })
  parser.on('text', addText)
  parser.on('cdata', addText)
  parser.on('error', ({ message }) => {
    // Its message may hold names from the source: only the kind of fault and the place go on.
    throw new XmlError(`the document is not well-formed XML: ${faultKind(message)}`, {
      structure: 'document',
      ...positionAt(source, parser.position),
      expected: 'well-formed XML',
    })
  })
  parser.write(source).close()
  return root!
}

function plainName({ name, local, uri }: SaxesTagNS): string {
  return uri === '' ? name : `{${uri}}${local}`
}

function plainAttributes({ attributes }: SaxesTagNS): Record<string, string> {
  const plain: Record<string, string> = Object.create(null)
  for (const name in attributes) plain[name] = attributes[name]!.value
  return plain
}

const FAULTS: readonly (readonly [pattern: RegExp, kind: string])[] = [
  [/^unclosed tag|^unexpected end/, 'it ends inside an element'],
  [/^unexpected close|^unmatched closing|empty close/, 'an end tag does not match its start tag'],
  [/must contain a root/, 'there is no element in it'],
  [/outside of root|only one root|inappropriately located/, 'there is something outside its root element'],
  [/entity/, 'it uses an entity that XML does not define'],
  [/^duplicate attribute/, 'an attribute is there twice'],
  [/^unbound namespace|xmlns|namespace/, 'a namespace prefix is not declared'],
  [/attribute/, 'an attribute is malformed'],
  [/closing tag/, 'an end tag is malformed'],
  [/comment/, 'a comment is malformed'],
  [/"]]>"/, 'text holds the end of a CDATA section'],
  [/processing instruction|XML declaration/i, 'a processing instruction is malformed'],
  [/disallowed character\.$/, 'a character is not allowed where it is'],
]

function faultKind(message: string): string {
  return FAULTS.find(([pattern]) => pattern.test(message))?.[1] ?? 'an element is malformed'
}
