/**
 * What libvirt's schema (domaincheckpoint.rng) would refuse in a `<domaincheckpoint>` that can be read all the same.
 * libvirt holds every one against it, also those that it finds in its own folder. The embedded `<domain>` is left out.
 */
import type { XmlElement } from './document.js'
import { allChildElements, childElement } from './elements.js'
import { attributeFault, type Content, contentFault, type SchemaFault } from './schema.js'

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
