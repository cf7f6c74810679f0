/** Reading a parsed document: elements by name, attributes, text, and errors that know their place. */
import { XmlError } from '../errors.js'
import type { XmlElement } from './document.js'
import { positionAt } from './guard.js'

/** Direct children of that name without a namespace. libvirt's own elements have none; extensions (`qemu:…`) do. */
export function childElements(parent: XmlElement, name: string): XmlElement[] {
  return parent.children.filter(child => typeof child !== 'string' && child.name === name) as XmlElement[]
}

/** The first direct child of that name. */
export function childElement(parent: XmlElement, name: string): XmlElement | undefined {
  return parent.children.find(child => typeof child !== 'string' && child.name === name) as
    | XmlElement
    | undefined
}

/** All direct child elements, whatever their names. */
export function allChildElements(parent: XmlElement): XmlElement[] {
  return parent.children.filter(child => typeof child !== 'string') as XmlElement[]
}

/** An attribute's value; undefined where it is absent or empty. */
export function attribute(element: XmlElement | undefined, name: string): string | undefined {
  return element?.attributes[name] || undefined
}

/** The text of a child element as it is, spaces and all, as libvirt takes it; undefined where absent or empty. */
export function childText(parent: XmlElement, name: string): string | undefined {
  const child = childElement(parent, name)
  return (child && textOf(child)) || undefined
}

/** All text in an element, its children's too. Depth is bounded before (MAX_XML_DEPTH). */
export function textOf(element: XmlElement): string {
  return element.children.map(child => (typeof child === 'string' ? child : textOf(child))).join('')
}

/** Whether a text is nothing but what XML takes for space. */
export function isXmlSpace(text: string): boolean {
  return text.search(/[^ \t\n\r]/) < 0
}

/** An error at an element. `found` must be a name or an enumerated value, never free text. */
export function elementError(
  element: XmlElement,
  problem: string,
  fault: { expected: string; found?: string | undefined },
): XmlError {
  const place = positionAt(element.source, element.start)
  return new XmlError(problem, { structure: `<${printable(element.name)}>`, ...place, ...fault })
}

/**
 * An attribute that is one of a closed list.
 *
 * @throws {XmlError} another value
 */
export function enumAttribute<Value extends string>(
  element: XmlElement,
  name: string,
  values: readonly Value[],
  what: string,
): Value | undefined {
  const value = element.attributes[name]
  if (value === undefined || values.includes(value as Value)) return value as Value | undefined
  const found = printable(value)
  throw elementError(element, `${what} cannot be '${found}'`, { expected: values.join(' or '), found })
}

/** A name for a message: cut short, with control characters shown as `?`. */
export function printable(text: string): string {
  const clean = text.replace(/\p{Cc}/gu, '?')
  return clean.length > 60 ? `${clean.slice(0, 60)}…` : clean
}
