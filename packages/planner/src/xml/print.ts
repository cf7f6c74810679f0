/** Printing XML as libvirt does: two spaces a level, single quotes, nothing where there is nothing. */
import { XmlError } from '../errors.js'
import type { EmbeddedXml } from './embedded.js'

/** An element to print: attributes in their order, those that are undefined left out; text or children. */
export interface XmlNode {
  readonly name: string
  readonly attributes?: Readonly<Record<string, string | undefined>> | undefined
  readonly text?: string | undefined
  /** Undefined ones are left out. Without children and text the element is `<name/>`. */
  readonly children?: readonly (XmlNode | EmbeddedXml | undefined)[] | undefined
}

/** The indentation of a level. */
export function indentation(level: number): string {
  return '  '.repeat(level)
}

/**
 * An element and what is in it, each line ended.
 *
 * @throws {XmlError} a name or text holds a character that XML cannot express; it is not quoted
 */
export function printXml(node: XmlNode, level = 0): string {
  const { name, attributes = {}, text, children = [] } = node
  const indent = indentation(level)
  let tag = `${indent}<${name}`
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) tag += ` ${key}='${escapeAttribute(value, `<${name}> @${key}`)}'`
  }
  if (text !== undefined) return `${tag}>${escapeText(text, `<${name}>`)}</${name}>\n`
  const inner = children.map(child => {
    if (child === undefined) return ''
    return 'name' in child ? printXml(child, level + 1) : child.print(level + 1)
  })
  if (inner.every(part => part === '')) return `${tag}/>\n`
  return `${tag}>\n${inner.join('')}${indent}</${name}>\n`
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&apos;',
  '"': '&quot;',
  // Plain, a reader would make a line feed of it.
  '\r': '&#13;',
}

/** libvirt escapes both quotes everywhere. */
function escapeText(text: string, where: string): string {
  requireXmlCharacters(text, where)
  return text.replace(/[&<>'"\r]/g, character => ENTITIES[character]!)
}

/** libvirt leaves tabs and line feeds plain, which a reader then takes for spaces: written as references they last. */
function escapeAttribute(text: string, where: string): string {
  return escapeText(text, where).replaceAll('\t', '&#9;').replaceAll('\n', '&#10;')
}

/** XML has no way at all to write these: control characters, lone surrogates, U+FFFE and U+FFFF. */
const UNWRITABLE = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u

/** Whether XML can express a text at all. */
export function isXmlText(text: string): boolean {
  return !UNWRITABLE.test(text)
}

function requireXmlCharacters(text: string, structure: string): void {
  const found = UNWRITABLE.exec(text)?.[0]
  if (found === undefined) return
  const code = `U+${found.codePointAt(0)!.toString(16).padStart(4, '0')}`
  throw new XmlError(`${structure} cannot be written: XML has no way to express ${code}`, {
    ...{ structure, expected: 'XML characters', found: code },
  })
}
