/**
 * What libvirt's schema (domaincheckpoint.rng) would refuse in a `<domaincheckpoint>` that can be read all the same.
 * libvirt holds every one against it, also those that it finds in its own folder. The embedded `<domain>` is left out.
 */
import type { XmlElement } from './document.js'
import { allChildElements, childElement, printable } from './elements.js'

export interface SchemaFault {
  readonly problem: string
  readonly element: XmlElement
}

/** Children of an element: how often each may be there. Order is free. */
type Content = Readonly<Record<string, 'once' | 'many'>>

const CHECKPOINT: Content = {
  ...{
    name: 'once',
    description: 'once',
    parent: 'once',
    creationTime: 'once',
    disks: 'once',
    domain: 'once',
  },
}

/** The first fault, in the order of the elements; undefined where libvirt takes it. */
export function checkpointSchemaFault(root: XmlElement): SchemaFault | undefined {
  const parent = childElement(root, 'parent')
  const disks = childElement(root, 'disks')
  return (
    attributeFault(root, []) ??
    contentFault(root, CHECKPOINT) ??
    leafFault(root, ['name', 'description', 'creationTime']) ??
    (parent && (attributeFault(parent, []) ?? contentFault(parent, { name: 'once' }, 'name'))) ??
    (parent && leafFault(parent, ['name'])) ??
    (disks && disksFault(disks))
  )
}

function disksFault(disks: XmlElement): SchemaFault | undefined {
  const fault = attributeFault(disks, []) ?? contentFault(disks, { disk: 'many' }, 'disk')
  if (fault !== undefined) return fault
  for (const disk of allChildElements(disks)) {
    const found =
      attributeFault(disk, ['name', 'checkpoint', 'bitmap', 'size']) ?? contentFault(disk, {}, undefined)
    if (found !== undefined) return found
  }
  return undefined
}

/** Elements of text have no attributes and no elements; all but the description must hold something. */
function leafFault(parent: XmlElement, names: readonly string[]): SchemaFault | undefined {
  for (const element of allChildElements(parent)) {
    if (!names.includes(element.name)) continue
    const fault = attributeFault(element, [])
    if (fault !== undefined) return fault
    const inner = allChildElements(element)[0]
    if (inner !== undefined) return { problem: `<${element.name}> holds an element`, element: inner }
    if (element.name !== 'description' && element.children.length === 0) {
      return { problem: `<${element.name}> is empty`, element }
    }
  }
  return undefined
}

function attributeFault(element: XmlElement, known: readonly string[]): SchemaFault | undefined {
  const odd = Object.keys(element.attributes).find(name => !known.includes(name) && !/^xmlns(:|$)/.test(name))
  if (odd === undefined) return undefined
  return { problem: `<${element.name}> has an attribute '${printable(odd)}'`, element }
}

function contentFault(element: XmlElement, content: Content, required?: string): SchemaFault | undefined {
  const seen = new Set<string>()
  for (const child of element.children) {
    if (typeof child === 'string') {
      if (/^[ \t\n\r]*$/.test(child)) continue
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
