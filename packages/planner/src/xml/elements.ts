/** Reading a parsed document: elements by name, attributes, trimmed text, and errors that know their place. */
import type { Element } from '@xmldom/xmldom'
import { XmlError } from '../errors.js'

/** Direct children of that name without a prefix. libvirt's own elements have none; extensions (`qemu:…`) do. */
export function childElements(parent: Element, name: string): Element[] {
  const found: Element[] = []
  for (let node = parent.firstChild; node; node = node.nextSibling) {
    if (node.nodeType === node.ELEMENT_NODE && node.nodeName === name) found.push(node as Element)
  }
  return found
}

/** The first direct child of that name. */
export function childElement(parent: Element, name: string): Element | undefined {
  return childElements(parent, name)[0]
}

/** An attribute's value; undefined where it is absent or empty. */
export function attribute(element: Element | undefined, name: string): string | undefined {
  return element?.getAttribute(name) || undefined
}

/** The text of a child element, trimmed; undefined where it is absent or empty. */
export function childText(parent: Element, name: string): string | undefined {
  return childElement(parent, name)?.textContent?.trim() || undefined
}

/** An error at an element. `found` must be a name or an enumerated value, never free text. */
export function elementError(
  element: Element,
  problem: string,
  fault: { expected: string; found?: string },
): XmlError {
  const { lineNumber, columnNumber } = element as { lineNumber?: number; columnNumber?: number }
  return new XmlError(problem, {
    structure: `<${element.nodeName}>`,
    line: lineNumber,
    column: columnNumber,
    ...fault,
  })
}

/** A name for a message: cut short, with control characters shown as `?`. */
export function printable(text: string): string {
  const clean = text.replace(/\p{Cc}/gu, '?')
  return clean.length > 60 ? `${clean.slice(0, 60)}…` : clean
}
