import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import {
  type CheckpointDraft,
  completeCheckpoint,
  DefinitionError,
  embedDomain,
  parseCheckpoint,
  parseCheckpointDraft,
  parseDomain,
  printCheckpoint,
  redefineCheckpoint,
  XmlError,
} from '../src/index.js'
import { disk, domain } from './facts.js'

const UUID = 'fecac332-bed5-40ae-8885-899be20b2c97'
/** Two writable disks, one file twice, a read-only disk, an empty drive. */
const web = {
  ...domain([
    disk('vda', '/images/a.qcow2'),
    disk('vdb', '/images/b.qcow2'),
    disk('vdc', '/images/shared.qcow2'),
    disk('vdd', '/images/shared.qcow2'),
    disk('vde', '/images/e.qcow2', { readonly: true }),
    disk('sda', undefined, { device: 'cdrom', readonly: true }),
  ]),
  uuid: UUID,
}
const draftOf = (inner: string): CheckpointDraft =>
  parseCheckpointDraft(`<domaincheckpoint>${inner}</domaincheckpoint>`)
const listed = (...disks: readonly string[]) =>
  draftOf(`<name>c</name><creationTime>5</creationTime><disks>${disks.join('')}</disks>`)

function codeOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    expect(error).toBeInstanceOf(DefinitionError)
    return (error as DefinitionError).code
  }
  return 'fine'
}

describe('completeCheckpoint', () => {
  it('takes every disk that can be written to, the time for a name, and the current one for a parent', () => {
    const made = completeCheckpoint(draftOf('<parent><name>given</name></parent>'), web, {
      now: 7,
      parent: 'c',
    })
    expect(printCheckpoint(made)).toBe(`<domaincheckpoint>
  <name>7</name>
  <parent>
    <name>c</name>
  </parent>
  <creationTime>7</creationTime>
  <disks>
    <disk name='vda' checkpoint='bitmap' bitmap='7'/>
    <disk name='vdb' checkpoint='bitmap' bitmap='7'/>
    <disk name='vdc' checkpoint='bitmap' bitmap='7'/>
    <disk name='vdd' checkpoint='bitmap' bitmap='7'/>
    <disk name='vde' checkpoint='no'/>
    <disk name='sda' checkpoint='no'/>
  </disks>
</domaincheckpoint>
`)
  })

  it('takes only the listed ones where any is listed, by target or by path', () => {
    const made = completeCheckpoint(listed("<disk name='/images/b.qcow2'/>"), web, { now: 7 })
    expect(made).toMatchObject({ name: 'c', parent: undefined, creationTime: 7 })
    expect(made.disks?.filter(({ checkpoint }) => checkpoint === 'bitmap')).toEqual([
      { name: 'vdb', checkpoint: 'bitmap', bitmap: 'c' },
    ])
    expect(made.disks).toHaveLength(6)
  })

  it.each([
    [["<disk name='vdz'/>"], 'disk-unknown'],
    [["<disk name='vdz' checkpoint='no'/>"], 'disk-unknown'],
    [["<disk name='/images/shared.qcow2'/>"], 'disk-unknown'],
    [["<disk name='//images/a.qcow2'/>"], 'disk-unknown'],
    [["<disk name='vda'/>", "<disk name='/images/a.qcow2'/>"], 'disk-twice'],
    [["<disk name='vde'/>"], 'disk-not-writable'],
    [["<disk name='sda'/>"], 'disk-not-writable'],
    [["<disk name='vde' checkpoint='no'/>"], 'fine'],
    [["<disk name='vda' bitmap='other'/>"], 'bitmap-name'],
    [["<disk name='vda' bitmap='c'/>"], 'fine'],
    [['a', 'b', 'c', 'd', 'e', 'f', 'g'].map(letter => `<disk name='vd${letter}'/>`), 'too-many-disks'],
  ])('%j: %s', (disks, code) => {
    expect(codeOf(() => completeCheckpoint(listed(...disks), web, { now: 7 }))).toBe(code)
  })

  it('says which disks an ambiguous path names', () => {
    const ambiguous = () => completeCheckpoint(listed("<disk name='/images/shared.qcow2'/>"), web, { now: 7 })
    expect(ambiguous).toThrow('vdc and vdd have that source')
  })

  it('refuses a disk that cannot hold bitmaps, unless it is left out', () => {
    const raw = domain([disk('vda', '/a', { format: 'raw' }), disk('vdb', '/b')])
    expect(codeOf(() => completeCheckpoint(draftOf(''), raw, { now: 7 }))).toBe('disk-not-qcow2')
    expect(codeOf(() => completeCheckpoint(listed("<disk name='vdb'/>"), raw, { now: 7 }))).toBe('fine')
    expect(codeOf(() => completeCheckpoint(draftOf(''), domain([]), { now: 7 }))).toBe('domain-without-disks')
  })
})

describe('redefineCheckpoint', () => {
  const xml = (inner: string) => `<domain><name>web</name>${inner}<devices>
    <disk type='file'><driver type='qcow2'/><source file='/a'/><target dev='vda'/></disk>
    <disk type='file'><driver type='qcow2'/><source file='/b'/><target dev='vdb'/></disk></devices></domain>`
  const withDomain = (inner: string, uuid = `<uuid>${UUID}</uuid>`) =>
    draftOf(`<name>c</name><creationTime>5</creationTime>${inner}${xml(uuid)}`)

  it('needs a name and a time', () => {
    expect(codeOf(() => redefineCheckpoint(draftOf('<creationTime>5</creationTime>'), UUID))).toBe(
      'name-missing',
    )
    expect(codeOf(() => redefineCheckpoint(draftOf('<name>c</name>'), UUID))).toBe('creation-time-missing')
  })

  it('takes the list as it is without a <domain>, and aligns it with one', () => {
    const alone = redefineCheckpoint(listed("<disk name='vdz'/>", "<disk name='/a' bitmap='b'/>"), UUID)
    expect(alone.disks).toEqual([
      { name: 'vdz', checkpoint: 'bitmap', bitmap: 'c' },
      { name: '/a', checkpoint: 'bitmap', bitmap: 'b' },
    ])
    const aligned = redefineCheckpoint(withDomain("<disks><disk name='/b' bitmap='x'/></disks>"), UUID)
    expect(aligned.disks).toEqual([
      { name: 'vda', checkpoint: 'no', bitmap: undefined },
      { name: 'vdb', checkpoint: 'bitmap', bitmap: 'x' },
    ])
    expect(codeOf(() => redefineCheckpoint(withDomain("<disks><disk name='vdz'/></disks>"), UUID))).toBe(
      'disk-unknown',
    )
  })

  it('compares UUIDs as numbers, not as text', () => {
    const bare = UUID.replaceAll('-', '').toUpperCase()
    expect(codeOf(() => redefineCheckpoint(withDomain('', `<uuid>${bare}</uuid>`), UUID))).toBe('fine')
    expect(codeOf(() => redefineCheckpoint(withDomain('', ''), UUID))).toBe('domain-differs')
    const other = '<uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>'
    expect(codeOf(() => redefineCheckpoint(withDomain('', other), UUID))).toBe('domain-differs')
    expect(codeOf(() => redefineCheckpoint(withDomain('', other), undefined))).toBe('fine')
  })
})

describe('what libvirt would not load', () => {
  it.each([
    ['<creationTime>1</creationTime>', undefined],
    ['', 'it has no <creationTime>'],
    ['<creationTime>1</creationTime><foo/>', '<domaincheckpoint> holds <foo>'],
    ['<creationTime>1</creationTime><__proto__/>', '<domaincheckpoint> holds <__proto__>'],
    ['<creationTime>1</creationTime>text', '<domaincheckpoint> holds text'],
    ['<creationTime>1</creationTime><disks/>', '<disks> has no <disk>'],
    ["<creationTime>1</creationTime><disks><disk name='vda' x=''/></disks>", "<disk> has an attribute 'x'"],
    ["<creationTime>1</creationTime><disks><disk name='vda'>t</disk></disks>", '<disk> holds text'],
    ['<creationTime>1</creationTime><creationTime>1</creationTime>', '<creationTime> is there twice'],
    ['<creationTime>1</creationTime><parent/>', '<parent> has no <name>'],
    ['<creationTime>1</creationTime><parent><name/></parent>', '<name> is empty'],
    ['<creationTime>1</creationTime><description><b/></description>', '<description> holds an element'],
    ['<creationTime>1</creationTime><description/>', undefined],
  ])('%s: %s', (inner, skips) => {
    const xml = `<domaincheckpoint xmlns:q='u'><name>c</name>${inner}</domaincheckpoint>`
    expect(parseCheckpoint(xml).libvirtSkips).toBe(skips)
    if (inner === '' || skips === undefined) expect(parseCheckpointDraft(xml).name).toBe('c')
    else expect(() => parseCheckpointDraft(xml)).toThrow(XmlError)
  })
})

describe('an embedded <domain>', () => {
  const SECRET = "<graphics type='vnc' passwd='hunter2'/>"
  const inner = `<domain type='kvm'>\n  <name>web</name>\n  <description>\n two\n  lines </description>\n  <title>\n  </title>
  <!-- as\n  it is -->\n  <devices>\n    ${SECRET}\n  </devices>\n</domain>`

  it('moves to its place, and its text stays', () => {
    const { xml } = embedDomain(inner)
    const moved = `  <domain type='kvm'>\n    <name>web</name>\n    <description>\n two\n  lines </description>\n    <title>\n  </title>
    <!-- as\n  it is -->\n    <devices>\n      ${SECRET}\n    </devices>\n  </domain>\n`
    expect(xml.print(1)).toBe(moved)
    expect(xml.print(0)).toBe(`${inner}\n`)
    // Printed, read and printed again it is the same.
    const cp = parseCheckpoint(`<domaincheckpoint><name>c</name>\n${moved}</domaincheckpoint>`)
    expect(cp.domainXml?.print(1)).toBe(moved)
    expect(cp.domainXml?.print(0)).toBe(`${inner}\n`)
  })

  it('on one line stays on one line; odd indentation is moved as one', () => {
    const one = '<domain><name>w</name><devices/></domain>'
    expect(embedDomain(one).xml.print(2)).toBe(`    ${one}\n`)
    const odd = '<domstatus>\n\t\t<domain>\n\t\t\t<name>w</name>\n\t\t</domain>\n</domstatus>'
    expect(embedDomain(odd).xml.print(1)).toBe('  <domain>\n  \t<name>w</name>\n  </domain>\n')
  })

  it('takes the prefixes along that are declared around it', () => {
    const q = "xmlns:q='http://x/?a&amp;b'"
    const cp = parseCheckpoint(
      `<domaincheckpoint ${q} xmlns:r='r'><name>c</name><domain xmlns:r='own'><name>w</name><q:x r:y=''/></domain></domaincheckpoint>`,
    )
    expect(cp.domainXml?.print(0)).toBe(`<domain ${q} xmlns:r='own'><name>w</name><q:x r:y=''/></domain>\n`)
    expect(parseDomain(cp.domainXml!.print(0)).name).toBe('w')
  })

  it('shows its secrets only in what is asked for', () => {
    const cp = parseCheckpoint(
      `<domaincheckpoint><name>c</name><creationTime>1</creationTime>${inner}</domaincheckpoint>`,
    )
    const shown = [
      JSON.stringify(cp),
      inspect(cp, { depth: Infinity, showHidden: true, getters: true }),
      String(cp.domainXml),
      `${Object.entries(cp.domainXml!)}`,
      printCheckpoint(cp),
      printCheckpoint(cp, { comment: true }),
    ]
    for (const text of shown) expect(text).not.toContain('hunter2')
    expect(printCheckpoint(cp, { withDomain: true })).toContain(SECRET)
  })
})
