import { DOMParser, type Element, MIME_TYPE, ParseError } from '@xmldom/xmldom'
import { XmlError } from '../errors.js'
import { guardXml } from './guard.js'

/**
 * Parses a document strictly: the first thing that is not well-formed ends it, warnings included.
 *
 * @returns the root element
 * @throws {XmlError} not well-formed, too long, too deep, or with a DOCTYPE
 */
export function parseXml(text: string): Element {
  const source = text.startsWith('\ufeff') ? text.slice(1) : text
  guardXml(source)
  const parser = new DOMParser({
    // XML 1.0's line ends. The library's default is XML 1.1's, which would turn U+2028 in a path into a newline.
    normalizeLineEndings: input => input.replace(/\r\n?/g, '\n'),
    onError: (_level, message) => {
      // A replacement character is a legal one, if an odd one; every other warning is an error in XML.
      if (!message.startsWith('Unicode replacement character')) throw new Error(message)
    },
  })
  try {
    return parser.parseFromString(source, MIME_TYPE.XML_TEXT).documentElement!
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
    // Its message quotes the source, where passwords may be: only the kind of fault and the place go on.
    throw new XmlError(`the document is not well-formed XML: ${faultKind(error.message)}`, {
      structure: 'document',
      ...position(error.locator),
      expected: 'well-formed XML',
    })
  }
}

const FAULTS: readonly (readonly [pattern: RegExp, kind: string])[] = [
  [/unclosed xml tag|unexpected end of input/i, 'it ends inside an element'],
  [/tag mismatch/i, 'an end tag does not match its start tag'],
  [/missing root element/i, 'there is no element in it'],
  [/outside root element|extra content|Hierarchy/i, 'there is something outside its root element'],
  [/entity/i, 'it uses an entity that XML does not define'],
  [/redefined/i, 'an attribute is there twice'],
  [/attribute|AttValue/i, 'an attribute is malformed'],
  [/end tag/i, 'an end tag is malformed'],
  [/comment/i, 'a comment is malformed'],
  [/CDATA/i, 'a CDATA section is malformed'],
  [/processing instruction|xml declaration/i, 'a processing instruction is malformed'],
  [/NamespaceError|namespace/i, 'a namespace prefix is not declared'],
]

function faultKind(message: string): string {
  return FAULTS.find(([pattern]) => pattern.test(message))?.[1] ?? 'an element is malformed'
}

function position(locator: unknown): { line?: number; column?: number } {
  const { lineNumber, columnNumber } = (locator ?? {}) as { lineNumber?: number; columnNumber?: number }
  return lineNumber ? { line: lineNumber, column: columnNumber ?? 1 } : {}
}
