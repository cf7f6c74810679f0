import type { XmlElement } from './document.js'
import { isXmlSpace } from './elements.js'
import { skipMarkup } from './guard.js'
import { indentation } from './print.js'

/**
 * An element carried as it was read, to be printed again: a checkpoint's `<domain>`, which may hold passwords.
 * Its text shows nowhere else: not in JSON, not where an object is inspected, not as a string.
 */
export class EmbeddedXml {
  readonly #source: string

  private constructor(source: string) {
    this.#source = source
  }

  /** The element's own text, with the prefixes that are declared around it. */
  static of(element: XmlElement, around: readonly XmlElement[] = []): EmbeddedXml {
    const declarations = new Map<string, string>()
    for (const { attributes } of around) {
      for (const [name, uri] of Object.entries(attributes)) {
        if (name.startsWith('xmlns:') && !(name in element.attributes)) declarations.set(name, uri)
      }
    }
    const source = element.source.slice(element.start, element.end)
    const nameEnd = 1 + element.name.length
    const added = [...declarations].map(([name, uri]) => ` ${name}='${escapeUri(uri)}'`).join('')
    // The indentation of its last line tells how far the others are from where they would stand alone.
    const lineStart = element.source.lastIndexOf('\n', element.start) + 1
    const before = element.source.slice(lineStart, element.start)
    const indented = isXmlSpace(before) ? before : ''
    return new EmbeddedXml(indented + source.slice(0, nameEnd) + added + source.slice(nameEnd))
  }

  /**
   * The element, each line ended. Lines that begin between two tags are moved to the level; text, comments and
   * attributes stay as they are to the letter.
   */
  print(level: number): string {
    const source = this.#source
    const begin = source.search(/\S/)
    const wanted = indentation(level)
    const had = source.slice(0, begin)
    const body = source.slice(begin)
    if (had === wanted) return `${wanted}${body}\n`
    return `${wanted}${shiftLines(body, had, wanted)}\n`
  }

  toJSON(): undefined {
    return undefined
  }
}

function escapeUri(uri: string): string {
  return uri.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll("'", '&apos;')
}

/** Takes `had` from the start of each line that begins between tags, and puts `wanted` there. */
function shiftLines(body: string, had: string, wanted: string): string {
  let result = ''
  let end = 0
  let opened = false
  for (let at = body.indexOf('<'); at >= 0; at = body.indexOf('<', end)) {
    const markup = skipMarkup(body, at)
    const space = body.slice(end, at)
    // Between a start tag and its own end tag, spaces are the element's text.
    const isText = !isXmlSpace(space) || !space.includes('\n') || (opened && markup.closes === true)
    result += (isText ? space : shifted(space, had, wanted)) + body.slice(at, markup.end)
    opened = markup.opens === true
    end = markup.end
  }
  return result + body.slice(end)
}

function shifted(space: string, had: string, wanted: string): string {
  const lineStart = space.lastIndexOf('\n') + 1
  const indent = space.slice(lineStart)
  return space.slice(0, lineStart) + wanted + (indent.startsWith(had) ? indent.slice(had.length) : indent)
}
