import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type CheckpointFacts, type PlannerError, parseCheckpoint, printCheckpoint } from '../src/index.js'
import { checkpointReader } from '../src/xml/checkpoint-reader.js'

const domainXml = (file: string, more = '') =>
  `<domain type='kvm'>\n    <name>web</name>${more}\n    <devices><disk type='file'><driver type='qcow2'/><source file='${file}'/>` +
  `<target dev='vda'/></disk></devices>\n  </domain>`
const A = domainXml('/a')

type Answer = { readonly facts: CheckpointFacts; readonly printed: string } | { readonly error: unknown }

/** Facts, and the domain as it is carried on; or the error with its place. */
function answer(read: (xml: string) => CheckpointFacts, xml: string): Answer {
  try {
    const facts = read(xml)
    return { facts, printed: printCheckpoint(facts, { withDomain: true }) }
  } catch (error) {
    const { message, evidence } = error as PlannerError
    return { error: { message, evidence } }
  }
}

/** Pieces of which documents are put together, those that look like a known domain and are none above all. */
const piece = fc.constantFrom(
  ...[
    '<name>cp1</name>',
    '<name>cp2</name>',
    '<parent><name>cp1</name></parent>',
    '<creationTime>1</creationTime>',
  ],
  ...[A, A, `\n  ${A}`, `\n  ${A}`, `\n    ${A}`, domainXml('/b'), domainXml('/a', '<x:y/>')],
  ...[
    `<!-- ${A} -->`,
    `<![CDATA[${A}]]>`,
    `<foo>${A}</foo>`,
    '<domain/>',
    `<inactiveDomain>${A}</inactiveDomain>`,
  ],
  ...[
    `<description>${A}</description>`,
    '<description>&lt;domain/></description>',
    A.slice(0, -1),
    A.slice(1),
  ],
  ...['\r\n', '\n  ', '<!--', '-->', '<?p ', '?>', "<foo a='", "'/>", '</domaincheckpoint>', '&lol;'],
)
const root = fc.constantFrom(
  ...['<domaincheckpoint>', '<domaincheckpoint>', "<domaincheckpoint xmlns:x='urn:x'>"],
  ...["<domaincheckpoint xmlns='urn:y'>", '\ufeff<domaincheckpoint>', '<domainsnapshot>'],
)
const document = fc
  .tuple(root, fc.array(piece, { minLength: 1, maxLength: 6 }))
  .map(([begin, pieces]) => `${begin}<name>cp0</name>${pieces.join('')}</domaincheckpoint>`)

describe('a reader of many checkpoints', () => {
  it('says of each what reading it alone says, be it facts or an error', () => {
    const seen = { facts: 0, errors: 0, shared: 0 }
    fc.assert(
      fc.property(fc.array(document, { minLength: 2, maxLength: 6 }), documents => {
        const read = checkpointReader()
        const domains = new Set<unknown>()
        for (const xml of [`<domaincheckpoint><name>first</name>\n  ${A}</domaincheckpoint>`, ...documents]) {
          const found = answer(read, xml)
          expect(found).toEqual(answer(parseCheckpoint, xml))
          if ('error' in found) seen.errors++
          else {
            seen.facts++
            if (domains.has(found.facts.domain)) seen.shared++
            if (found.facts.domain !== undefined) domains.add(found.facts.domain)
          }
        }
      }),
      { numRuns: 2000 },
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(60)
  })

  it('reads a domain of thirty-one checkpoints once', () => {
    const read = checkpointReader()
    const xml = (i: number) =>
      `<!-- -->\n\n<domaincheckpoint>\n  <name>cp${i}</name>\n  <creationTime>${i}</creationTime>\n  ${i < 20 ? A : domainXml('/b')}\n</domaincheckpoint>\n`
    const domains = Array.from({ length: 31 }, (_, i) => read(xml(i)).domain)
    expect(new Set(domains).size).toBe(2)
    expect([domains[0]!.disks[0]!.source, domains[30]!.disks[0]!.source]).toEqual(['/a', '/b'])
  })
})
