/**
 * Many checkpoints of one domain: each carries the domain of its time, ten times as long as all else in it, and most are
 * the same to the letter. Such a one is read once.
 */
import { XmlError } from '../errors.js'
import type { CheckpointFacts } from '../facts.js'
import { type CheckpointDomain, checkpointOf, parseCheckpointRoot } from './checkpoint.js'
import { plainSource, type XmlElement } from './document.js'
import { childElement, isXmlSpace } from './elements.js'

/** A `<domain>` as it stands in a document. */
interface Known extends CheckpointDomain {
  /** Its text, and the spaces before it in its line. */
  readonly text: string
  readonly indent: string
  /** What the elements around it declare, which its names depend on. */
  readonly around: string
}

/**
 * A `parseCheckpoint` for one domain's checkpoints, one after the other: the same facts, or the same error, and one object
 * for domains that are the same.
 *
 * @example
 * ```ts
 * const read = checkpointReader()
 * const checkpoints = texts.map(text => read(text))
 * ```
 */
export function checkpointReader(): (xml: string) => CheckpointFacts {
  let known: Known | undefined
  return xml => {
    const source = plainSource(xml)
    const short = known && parseWithout(source, known)
    if (short !== undefined) return short
    const root = parseCheckpointRoot(source)
    const facts = checkpointOf(root)
    known = remembered(root, facts) ?? known
    return facts
  }
}

/** An empty element in the place of a domain that is known: whether it is there in truth, the parser tells. */
const PLACE = '<domain/>'

function parseWithout(source: string, known: Known): CheckpointFacts | undefined {
  const at = source.indexOf(known.text)
  if (at < 0 || indentOf(source, at) !== known.indent) return undefined
  const rest = source.slice(0, at) + PLACE + source.slice(at + known.text.length)
  try {
    const root = parseCheckpointRoot(rest)
    const place = childElement(root, 'domain')
    const same = place?.start === at && place.end === at + PLACE.length && around(root) === known.around
    return same ? checkpointOf(root, {}, known) : undefined
  } catch (error) {
    // It is read whole then, for an error that knows its place.
    if (error instanceof XmlError) return undefined
    throw error
  }
}

function remembered(root: XmlElement, { domain, domainXml }: CheckpointFacts): Known | undefined {
  const element = childElement(root, 'domain')
  if (element === undefined || domain === undefined || domainXml === undefined) return undefined
  const { source, start, end } = element
  const text = source.slice(start, end)
  return { text, indent: indentOf(source, start), around: around(root), facts: domain, xml: domainXml }
}

function around({ attributes }: XmlElement): string {
  return JSON.stringify(attributes)
}

/** The spaces between the start of a line and a place in it; nothing where there is more than spaces. */
function indentOf(source: string, at: number): string {
  const before = source.slice(source.lastIndexOf('\n', at - 1) + 1, at)
  return isXmlSpace(before) ? before : ''
}
