import { describe, expect, it } from 'vitest'
import { parseCheckpoint, parseDomain, XmlError } from '../src/index.js'

function withDisks(...disks: readonly string[]): string {
  return `<domain type='kvm'><name>web</name><uuid>c7a5</uuid><devices>${disks.join('')}</devices></domain>`
}

function source(xml: string) {
  return parseDomain(withDisks(xml)).disks[0]
}

describe('parseDomain', () => {
  it('reads a file disk and its chain', () => {
    const xml = withDisks(`
      <disk type='file' device='disk'>
        <driver name='qemu' type='qcow2' discard='unmap'/>
        <source file='/images/a &amp; b.qcow2' index='3'/>
        <backingStore type='file' index='4'>
          <format type='qcow2'/>
          <source file='/images/mid.qcow2'/>
          <backingStore type='block'><format type='raw'/><source dev='/dev/vg/base'/><backingStore/></backingStore>
        </backingStore>
        <mirror type='file' file='/images/copy.qcow2'><source file='/images/copy.qcow2'/></mirror>
        <target dev='vda' bus='virtio'/>
        <alias name='virtio-disk0'/>
      </disk>`)
    expect(parseDomain(xml)).toEqual({
      name: 'web',
      uuid: 'c7a5',
      disks: [
        {
          target: 'vda',
          type: 'file',
          device: 'disk',
          source: '/images/a & b.qcow2',
          format: 'qcow2',
          readonly: false,
          backingStore: [
            { type: 'file', source: '/images/mid.qcow2', format: 'qcow2' },
            { type: 'block', source: '/dev/vg/base', format: 'raw' },
          ],
          mirror: {
            ...{ job: undefined, ready: undefined },
            ...{ type: 'file', source: '/images/copy.qcow2', format: undefined },
          },
        },
      ],
    })
  })

  it('tells an empty <backingStore/> from none', () => {
    const target = "<source file='/a'/><target dev='vda'/>"
    expect(source(`<disk type='file'>${target}</disk>`)?.backingStore).toBeUndefined()
    expect(source(`<disk type='file'>${target}<backingStore/></disk>`)?.backingStore).toEqual([])
  })

  it.each([
    ["<disk type='block'><source dev='/dev/vg/a'/><target dev='vda'/></disk>", '/dev/vg/a'],
    ["<disk type='dir'><source dir='/srv'/><target dev='vda'/></disk>", '/srv'],
    ["<disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk>", 'volume:p/v'],
    ["<disk type='network'><source protocol='rbd' name='p/i'/><target dev='vda'/></disk>", 'rbd:p/i'],
    [
      "<disk type='network'><source protocol='nbd' name='e'><host name='h' port='10809'/></source><target dev='vda'/></disk>",
      'nbd://h:10809/e',
    ],
    [
      "<disk type='network'><source protocol='nbd'><host transport='unix' socket='/s'/></source><target dev='vda'/></disk>",
      'nbd+unix:/s/',
    ],
    [
      "<disk type='nvme'><source type='pci' namespace='1'><address domain='0x0000' bus='0x1' slot='0x0' function='0x0'/></source><target dev='vda'/></disk>",
      'nvme:0000:01:00.0/1',
    ],
    ["<disk type='vhostuser'><source type='unix' path='/s'/><target dev='vda'/></disk>", 'vhost-user:/s'],
    ["<disk type='vhostvdpa'><source dev='/dev/v'/><target dev='vda'/></disk>", 'vhost-vdpa:/dev/v'],
    ["<disk type='holo'><source/><target dev='vda'/></disk>", 'holo'],
    ["<disk type='file' device='cdrom'><target dev='vda'/></disk>", undefined],
    [
      "<disk type='file' device='floppy'><source startupPolicy='optional'/><target dev='vda'/></disk>",
      undefined,
    ],
  ])('names the source of %s', (xml, name) => {
    expect(source(xml)?.source).toBe(name)
  })

  it('never takes in a password', () => {
    const xml = withDisks(`
      <disk type='network'><auth username='u'><secret type='ceph' uuid='SECRET'/></auth>
        <source protocol='https' name='a.iso' query='token=SECRET'>
          <host name='h'/><cookies><cookie name='c'>SECRET</cookie></cookies>
        </source><target dev='vda'/></disk>`)
    expect(JSON.stringify(parseDomain(xml))).not.toContain('SECRET')
  })

  it('reads the live status as well', () => {
    const xml = `<domstatus state='running' pid='7'><monitor/>${withDisks("<disk><source file='/a'/><target dev='sda'/></disk>")}</domstatus>`
    expect(parseDomain(xml)).toMatchObject({
      name: 'web',
      disks: [{ target: 'sda', type: 'file', source: '/a' }],
    })
  })

  it('takes elements by their unprefixed name only, and a CD-ROM for read-only', () => {
    const xml = `<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name>
      <qemu:commandline><qemu:arg value='x'/></qemu:commandline>
      <devices><qemu:disk/><disk device='cdrom'><source file='/i'/><target dev='sda'/></disk></devices></domain>`
    expect(parseDomain(xml).disks).toMatchObject([{ target: 'sda', readonly: true }])
  })

  it.each([
    ['<network><name>x</name></network>', 'this is not a domain: <network>'],
    ['<domain><devices/></domain>', 'the domain has no name'],
    [withDisks('<disk/>'), 'a disk has no target'],
    [
      withDisks("<disk><target dev='a'/></disk>", "<disk><target dev='a'/></disk>"),
      "two disks have the target 'a'",
    ],
  ])('refuses %s', (xml, message) => {
    expect(() => parseDomain(xml)).toThrow(message)
  })

  it('says where', () => {
    try {
      parseDomain(
        "<domain>\n  <name>web</name>\n  <devices>\n    <disk type='file'/>\n  </devices>\n</domain>",
      )
      expect.unreachable()
    } catch (error) {
      expect(error).toBeInstanceOf(XmlError)
      expect(error).toMatchObject({
        ...{ code: 'invalid-xml', structure: '<disk>', line: 4, expected: "<target dev='…'>" },
        evidence: { line: 4 },
      })
    }
  })
})

describe('parseCheckpoint', () => {
  it('reads what libvirt stores', () => {
    const xml = `<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST.
-->

<domaincheckpoint>
  <name>cp2</name>
  <description>before the update</description>
  <parent><name>cp1</name></parent>
  <creationTime>1553648510</creationTime>
  <disks>
    <disk name='vda' checkpoint='bitmap' bitmap='cp2' size='1048576'/>
    <disk name='vdb' checkpoint='no'/>
  </disks>
  <domain><name>web</name></domain>
</domaincheckpoint>`
    const { domainXml, ...facts } = parseCheckpoint(xml)
    expect(domainXml?.print(1)).toBe('  <domain><name>web</name></domain>\n')
    expect(facts).toEqual({
      name: 'cp2',
      description: 'before the update',
      parent: 'cp1',
      creationTime: 1553648510,
      disks: [
        { name: 'vda', checkpoint: 'bitmap', bitmap: 'cp2' },
        { name: 'vdb', checkpoint: 'no', bitmap: undefined },
      ],
      domain: { name: 'web', uuid: undefined, disks: [] },
    })
  })

  it('takes <inactiveDomain> where there is no <domain>', () => {
    const inactive = '<inactiveDomain><name>off</name></inactiveDomain>'
    const live = '<domain><name>on</name></domain>'
    const parse = (xml: string) =>
      parseCheckpoint(`<domaincheckpoint><name>c</name>${xml}</domaincheckpoint>`)
    expect(parse(inactive).domain?.name).toBe('off')
    expect(parse(inactive + live).domain?.name).toBe('on')
  })

  it('takes an empty <disks/> for none, as libvirt does', () => {
    expect(
      parseCheckpoint('<domaincheckpoint><name>c</name><disks/></domaincheckpoint>').disks,
    ).toBeUndefined()
  })

  it.each([
    ['<name>../escape</name>', "cannot be named '../escape'"],
    ['<name>.hidden</name>', "cannot be named '.hidden'"],
    ['<name>a b</name>', "cannot be named 'a b'"],
    ['', 'has no name'],
    ['<name>a</name><parent><name>x/y</name></parent>', "cannot be named 'x/y'"],
    ['<name>a</name><creationTime>-3</creationTime>', 'not a number of seconds'],
    ['<name>a</name><creationTime>99999999999999999999</creationTime>', 'not a number of seconds'],
    ['<name>a</name><disks><disk/></disks>', 'has no name'],
    ["<name>a</name><disks><disk name='vda' checkpoint='maybe'/></disks>", "cannot be 'maybe'"],
    ["<name>a</name><disks><disk name='vda'/><disk name='vda'/></disks>", 'listed twice'],
    ["<name>a</name><disks><disk name='a b'/></disks>", "cannot be named 'a b'"],
    ["<name>a</name><disks><disk name='images/a'/></disks>", "cannot be named 'images/a'"],
    ["<name>a</name><disks><disk name='vda' checkpoint='no' bitmap='a'/></disks>", 'neither bitmap nor size'],
    ["<name>a</name><disks><disk name='vda' checkpoint='no' size='1'/></disks>", 'neither bitmap nor size'],
    ["<name>a</name><disks><disk name='vda' checkpoint=''/></disks>", "cannot be ''"],
    ["<name>a</name><disks><disk name='vda' size='1k'/></disks>", 'not a number of bytes'],
    ['<name> a </name>', "cannot be named ' a '"],
  ])('refuses %s', (xml, message) => {
    expect(() => parseCheckpoint(`<domaincheckpoint>${xml}</domaincheckpoint>`)).toThrow(message)
  })

  it('refuses another document', () => {
    expect(() => parseCheckpoint('<domain/>')).toThrow('this is not a checkpoint: <domain>')
  })
})

describe('what libvirt reads of a disk', () => {
  const parse = (inner: string) =>
    parseDomain(`<domain><name>d</name><devices><disk type='file'>
      <source file='/a'/><target dev='vda'/>${inner}</disk></devices></domain>`).disks[0]!
  const store = (inner: string) =>
    `<backingStore type='file'><format type='qcow2'/><source file='/b'/>${inner}</backingStore>`

  it('a chain that is terminated, one that goes on, and one that is not told', () => {
    expect(parse('')).toMatchObject({ backingStore: undefined })
    expect(parse('<backingStore/>')).toEqual(expect.not.objectContaining({ backingStoreGoesOn: true }))
    expect(parse('<backingStore/>').backingStore).toEqual([])
    expect(parse(store('<backingStore/>')).backingStoreGoesOn).toBeUndefined()
    expect(parse(store(''))).toMatchObject({ backingStore: [{ source: '/b' }], backingStoreGoesOn: true })
  })

  it('transient disks, and parts of files', () => {
    expect(parse('<transient/>').transient).toBe(true)
    expect(parse('')).not.toHaveProperty('transient')
    const sliced = `<source file='/a'><slices><slice type='storage' offset='65536' size='1'/></slices></source>`
    const domain = parseDomain(
      `<domain><name>d</name><devices><disk>${sliced}<target dev='vda'/></disk></devices></domain>`,
    )
    expect(domain.disks[0]!.sliced).toBe(true)
  })
})
