import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type BackupXmlOptions,
  completeCheckpoint,
  embedDomain,
  type LayerFacts,
  PlanError,
  parseBackup,
  parseCheckpoint,
  planBackup,
  planToBackupXml,
  printBackup,
  printCheckpoint,
} from '../src/index.js'
import { isDiskTarget } from '../src/xml/names.js'
import { checkpoint, disk, domain, layer } from './facts.js'
import { haveSchemas, schemaFaults, schemasNote } from './schemas.js'

/** Names as people give them, and as nobody should: quotes, markup, spaces, line ends, other scripts, controls. */
const anyName = fc.oneof(
  fc.stringMatching(/^[a-z0-9]{1,8}$/),
  fc.string({ minLength: 1, maxLength: 12, unit: 'grapheme' }),
  fc.constantFrom(
    ...['a b', "it's", 'x"y', '<b>&amp;', ']]>', '--', 'a\tb', 'a\nb', 'a\rb', 'é\u0301', '\u2028', '\u0085'],
    ...['😀', '\u0001', '\ud800', '\uffff', '%s', '$(x)', "';'", ' ', '.', '..'],
  ),
)
const anyTarget = fc.oneof(
  { weight: 8, arbitrary: fc.stringMatching(/^(vd|sd|hd|xvd)[a-z]{1,2}$/) },
  { weight: 1, arbitrary: anyName },
)

const anyChain = (file: string): fc.Arbitrary<readonly LayerFacts[]> =>
  fc.oneof(
    fc.constant([layer(file, ['cp1'])]),
    fc.constant([layer(file, [])]),
    fc.constant([layer(file, ['cp1'], { format: 'raw' })]),
  )

const anyFacts: fc.Arbitrary<BackupFacts> = fc
  .tuple(
    anyName,
    fc.uniqueArray(fc.tuple(anyTarget, anyName, fc.boolean()), {
      minLength: 1,
      maxLength: 4,
      selector: ([target]) => target,
    }),
  )
  .chain(([name, specs]) => {
    const disks = specs.map(([target, file, transient]) =>
      disk(target, `/images/${file}/x`, transient ? { transient } : {}),
    )
    return fc.tuple(...disks.map(({ source }) => anyChain(source!))).map(chains => ({
      domain: domain(disks, name),
      checkpoints: [checkpoint('cp1', { domain: domain(disks, name) })],
      chains: new Map(disks.map(({ target }, index) => [target, chains[index]!])),
    }))
  })

const anyOptions: fc.Arbitrary<BackupXmlOptions> = fc.record({
  suffix: fc.constant('20260801T0300'),
  targetDir: fc.option(
    anyName.map(name => `/backup/${name}`),
    { nil: undefined },
  ),
  mode: fc.constantFrom('push', 'pull'),
  socket: anyName.map(name => `/run/${name}.sock`),
}) as fc.Arbitrary<BackupXmlOptions>

/** The XML of a plan for all or some disks, or undefined where it is refused by its type of error. */
function backupXml(facts: BackupFacts, options: BackupXmlOptions, some: boolean): string | undefined {
  const disks = some ? [facts.domain.disks[0]!.target] : undefined
  try {
    return planToBackupXml(planBackup(facts, { incremental: 'cp1', disks }), options)
  } catch (error) {
    expect(error).toBeInstanceOf(PlanError)
    expect((error as PlanError).code).toBe('name-unfit')
    return undefined
  }
}

describe('planToBackupXml, whatever the names', () => {
  it('gives XML that reads back as itself, and refuses no name that libvirt takes', () => {
    fc.assert(
      fc.property(anyFacts, anyOptions, fc.boolean(), (facts, options, some) => {
        const xml = backupXml(facts, options, some)
        const names = facts.domain.disks.flatMap(({ target, source }) => [target, source!])
        const socket = options.mode === 'pull' ? options.socket : ''
        const plain = [...names, options.targetDir ?? '', socket].every(
          name => !/\p{Cc}|\p{Cs}|\uffff/u.test(name),
        )
        const allFit = facts.domain.disks.every(({ target }) => isDiskTarget(target))
        if (xml === undefined) expect(plain && allFit).toBe(false)
        else expect(printBackup(parseBackup(xml))).toBe(xml)
      }),
      { numRuns: 1000 },
    )
  })

  it.skipIf(!haveSchemas)(`validates against libvirt's schema${schemasNote}`, async () => {
    const documents = fc
      .sample(fc.tuple(anyFacts, anyOptions, fc.boolean()), 1500)
      .flatMap(([facts, options, some]) => backupXml(facts, options, some) ?? [])
    expect(documents.length).toBeGreaterThan(300)
    expect(await schemaFaults('domainbackup', documents)).toEqual([])
  })
})

describe('printCheckpoint, whatever the names', () => {
  const anyCheckpoint = fc.record({
    description: fc.option(anyName, { nil: undefined }),
    parent: fc.option(fc.stringMatching(/^[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,8}$/), { nil: undefined }),
    name: fc.option(fc.stringMatching(/^[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,8}$/), { nil: undefined }),
    now: fc.nat(),
    targets: fc.uniqueArray(fc.stringMatching(/^(vd|sd|hd|xvd)[a-z]{1,2}$/), { minLength: 1, maxLength: 5 }),
    withDomain: fc.boolean(),
  })
  const embedded = embedDomain(
    `<domain type='qemu'><name>web</name><memory>65536</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>`,
  ).xml

  it.skipIf(!haveSchemas)(`validates against libvirt's schema${schemasNote}`, async () => {
    const documents = fc
      .sample(anyCheckpoint, 500)
      .flatMap(({ description, name, now, parent, targets, withDomain }) => {
        if (
          description !== undefined &&
          /[^\t\n\r -\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u.test(description)
        )
          return []
        const draft = { ...checkpoint('x', { description, domainXml: embedded }), name }
        const disks = targets.map((target, index) =>
          disk(target, `/images/${target}`, index > 0 && index % 2 === 0 ? { readonly: true } : {}),
        )
        const made = completeCheckpoint(draft, domain(disks), { now, parent })
        return [printCheckpoint(made, { withDomain, comment: true })]
      })
    expect(documents.length).toBeGreaterThan(300)
    expect(await schemaFaults('domaincheckpoint', documents)).toEqual([])
  })

  it('is well-formed with its comment', () => {
    expect(parseCheckpoint(printCheckpoint(checkpoint('a'), { comment: true })).name).toBe('a')
  })

  it.skipIf(!haveSchemas)(`a document that is wrong does not${schemasNote}`, async () => {
    const wrong = [
      '<domaincheckpoint><disks/></domaincheckpoint>',
      '<domaincheckpoint/>',
      '<domaincheckpoint><x/></domaincheckpoint>',
    ]
    expect((await schemaFaults('domaincheckpoint', wrong)).map(([index]) => index)).toEqual([0, 2])
  })
})
