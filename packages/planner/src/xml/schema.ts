/** What a schema says of an element: its attributes, its children, and how often each may be there. */
import type { XmlElement } from './document.js'
import { attribute, elementError, isXmlSpace, printable } from './elements.js'
import { isSchemaPath } from './names.js'

export interface SchemaFault {
  /** Names only, never text. */
  readonly problem: string
  readonly element: XmlElement
}

/** Children of an element: how often each may be there. Order is free. */
export type Content = Readonly<Record<string, 'once' | 'many'>>

/** An attribute that is not among these; declarations of prefixes are none. */
export function attributeFault(element: XmlElement, known: readonly string[]): SchemaFault | undefined {
  const odd = Object.keys(element.attributes).find(name => !known.includes(name) && !/^xmlns(:|$)/.test(name))
  if (odd === undefined) return undefined
  return { problem: `<${element.name}> has an attribute '${printable(odd)}'`, element }
}

/** The first child that must not be there, or `required` where it is missing. */
export function contentFault(
  element: XmlElement,
  content: Content,
  required?: string,
): SchemaFault | undefined {
  const seen = new Set<string>()
  for (const child of element.children) {
    if (typeof child === 'string') {
      if (isXmlSpace(child)) continue
      return { problem: `<${element.name}> holds text`, element }
    }
    const name = printable(child.name)
    const often = Object.hasOwn(content, child.name) ? content[child.name] : undefined
    if (often === undefined) return { problem: `<${element.name}> holds <${name}>`, element: child }
    if (often === 'once' && seen.has(child.name))
      return { problem: `<${name}> is there twice`, element: child }
    seen.add(child.name)
  }
  if (required === undefined || seen.has(required)) return undefined
  return { problem: `<${element.name}> has no <${required}>`, element }
}

/** An attribute that must be there. */
export function needed(element: XmlElement, name: string): string {
  const value = attribute(element, name)
  if (value !== undefined) return value
  throw elementError(element, `<${element.name}> has no ${name}`, { expected: `${name}='…'` })
}

/** An attribute that is an absolute path. */
export function absolutePath(element: XmlElement, name: string): string {
  const path = needed(element, name)
  if (isSchemaPath(path)) return path
  throw elementError(element, `the ${name} of <${element.name}> is no absolute path`, {
    expected: 'an absolute path in one line',
  })
}

/**
 * Holds an element against its part of a schema.
 *
 * @throws {XmlError} the first fault
 */
export function requireContent(
  element: XmlElement,
  attributes: readonly string[],
  content: Content,
  needs?: string,
): void {
  const fault = attributeFault(element, attributes) ?? contentFault(element, content, needs)
  if (fault === undefined) return
  throw elementError(fault.element, `libvirt refuses this: ${fault.problem}`, {
    expected: "what libvirt's schema has",
  })
}
