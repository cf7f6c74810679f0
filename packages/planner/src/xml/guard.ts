/**
 * A look at the source before the XML library sees it: what could exhaust it or make it expand anything is refused
 * here, in one pass and without building anything.
 */
import { XmlError } from '../errors.js'

/** Characters. libvirt itself stops at 1 MiB for a checkpoint's file and 10 MiB for a domain's. */
export const MAX_XML_LENGTH = 16 * 1024 * 1024
/** A domain's XML is some 8 deep, plus one level for each image of a backing chain; libvirt's chains end at 200. */
export const MAX_XML_DEPTH = 512
/** Tags, comments and the like. A domain with a hundred disks has some thousands; each costs a kilobyte parsed. */
const MAX_XML_MARKUP = 200_000
/** Attributes of one tag. The parser looks for duplicates in a list, so their cost grows with the square. */
const MAX_XML_ATTRIBUTES = 1000

/** What XML 1.0 allows as a character, negated: NUL and most control characters, lone U+FFFE and U+FFFF. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/

/**
 * Refuses a source that is too long or too deep, has a DOCTYPE or any other declaration (so no entities of its own,
 * internal or external), or holds characters that XML forbids, plain or as a reference.
 *
 * @throws {XmlError} with the position of the first such thing
 */
export function guardXml(source: string): void {
  if (source.length > MAX_XML_LENGTH) {
    const found = `${source.length} characters`
    throw new XmlError(`the document is too long: ${found}`, {
      ...{ structure: 'document', expected: `at most ${MAX_XML_LENGTH} characters`, found },
    })
  }
  const forbidden = source.search(NOT_XML)
  if (forbidden >= 0) {
    const found = `U+${source.charCodeAt(forbidden).toString(16).padStart(4, '0')}`
    fail(source, forbidden, `the document holds ${found}, which XML forbids`, 'an XML character', found)
  }
  for (const { 1: hex, 2: decimal, index } of source.matchAll(/&#(?:x([0-9a-fA-F]+)|([0-9]+));/g)) {
    if (isXmlCodePoint(hex === undefined ? Number(decimal) : Number.parseInt(hex, 16))) continue
    fail(source, index, 'a character reference stands for a character that XML forbids', 'an XML character')
  }
  walk(source)
}

function isXmlCodePoint(code: number): boolean {
  if (code === 9 || code === 10 || code === 13) return true
  return (
    (code >= 0x20 && code <= 0xd7ff) ||
    (code >= 0xe000 && code <= 0xfffd) ||
    (code >= 0x10000 && code <= 0x10ffff)
  )
}

/** Counts depth and meets every `<!`. Anything malformed is left to the parser, which names it better. */
function walk(source: string): void {
  let depth = 0
  let count = 0
  let at = source.indexOf('<')
  while (at >= 0) {
    if (++count > MAX_XML_MARKUP) {
      const expected = `at most ${MAX_XML_MARKUP} tags and comments`
      fail(source, at, 'the document has too many tags and comments', expected)
    }
    const next = skipMarkup(source, at)
    if (next.opens) depth++
    else if (next.closes) depth--
    if (depth > MAX_XML_DEPTH) {
      fail(
        source,
        at,
        `elements are nested more than ${MAX_XML_DEPTH} deep`,
        `at most ${MAX_XML_DEPTH} levels`,
      )
    }
    if (next.end < 0) return
    at = source.indexOf('<', next.end)
  }
}

interface Markup {
  readonly opens?: boolean
  readonly closes?: boolean
  /** Where the source goes on; -1: this never ends. */
  readonly end: number
}

/** What begins at a `<`: a comment, CDATA, an instruction or a tag. Declarations are refused. */
export function skipMarkup(source: string, at: number): Markup {
  if (source.startsWith('<!--', at)) return { end: after(source, '-->', at + 4) }
  if (source.startsWith('<![CDATA[', at)) return { end: after(source, ']]>', at + 9) }
  if (source.startsWith('<?', at)) return { end: after(source, '?>', at + 2) }
  if (source.startsWith('<!', at)) {
    const name = /^<!\s*([A-Za-z]*)/.exec(source.slice(at, at + 16))?.[1]?.toUpperCase() ?? ''
    const what = ['DOCTYPE', 'ENTITY', 'ELEMENT', 'ATTLIST', 'NOTATION'].includes(name) ? name : 'markup'
    fail(source, at, `a ${what} declaration is refused: libvirt writes none`, 'no declarations', `<!${what}`)
  }
  const end = tagEnd(source, at + 1)
  if (source.startsWith('</', at)) return { closes: true, end }
  return { opens: source[end - 2] !== '/', end }
}

function after(source: string, terminator: string, from: number): number {
  const found = source.indexOf(terminator, from)
  return found < 0 ? -1 : found + terminator.length
}

/** The index after the `>` of a tag; a `>` inside quotes does not count. */
function tagEnd(source: string, from: number): number {
  const pattern = /[>"']/g
  let values = 0
  pattern.lastIndex = from
  for (let match = pattern.exec(source); match; match = pattern.exec(source)) {
    if (match[0] === '>') return match.index + 1
    if (++values > MAX_XML_ATTRIBUTES) {
      fail(source, match.index, 'a tag has too many attributes', `at most ${MAX_XML_ATTRIBUTES} attributes`)
    }
    const close = source.indexOf(match[0], match.index + 1)
    if (close < 0) return -1
    pattern.lastIndex = close + 1
  }
  return -1
}

function fail(source: string, at: number, problem: string, expected: string, found?: string): never {
  throw new XmlError(problem, { structure: 'document', ...positionAt(source, at), expected, found })
}

/** The place of an offset: 1-based, columns in UTF-16 units. */
export function positionAt(source: string, at: number): { readonly line: number; readonly column: number } {
  let line = 1
  let start = 0
  for (let next = source.indexOf('\n'); next >= 0 && next < at; next = source.indexOf('\n', start)) {
    line++
    start = next + 1
  }
  return { line, column: at - start + 1 }
}
