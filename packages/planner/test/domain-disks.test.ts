import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { MAX_XML_DEPTH, parseDomain } from '../src/index.js'

const domainXml = (disks: string) => `<domain type='kvm'><name>web</name><devices>${disks}</devices></domain>`
const diskOf = (attributes: string, inner: string) =>
  parseDomain(domainXml(`<disk ${attributes}><target dev='vda'/>${inner}</disk>`)).disks[0]!
const network = (inner: string) => diskOf("type='network'", inner).source

describe('network sources', () => {
  it.each([
    [
      "<source protocol='rbd' name='pool/image'><host name='m1'/><host name='m2'/></source>",
      'rbd://m1/pool/image',
    ],
    [
      "<source protocol='iscsi' name='iqn.2013-07.com.example:t/1'><host name='h' port='3260'/></source>",
      'iscsi://h:3260/iqn.2013-07.com.example:t/1',
    ],
    [
      "<source protocol='gluster' name='v/i'><host name='h' transport='rdma'/></source>",
      'gluster+rdma://h/v/i',
    ],
    [
      "<source protocol='gluster' name='v/i'><host transport='unix' socket='/s'/></source>",
      'gluster+unix:/s/v/i',
    ],
    ["<source protocol='sheepdog' name='i'/>", 'sheepdog:i'],
    ["<source protocol='nbd' tls='yes'><host name='::1' port='10809'/></source>", 'nbd://[::1]:10809/'],
    [
      "<source protocol='https' name='/a/b.iso' query='t=SECRET'><host name='h' port='443'/><ssl verify='no'/></source>",
      'https://h:443/a/b.iso',
    ],
    ["<source protocol='ftp' name='a'><host name='h'/></source>", 'ftp://h/a'],
    ["<source protocol='tftp' name='a'><host name='h'/></source>", 'tftp://h/a'],
    [
      "<source protocol='ssh' name='a'><host name='h'/><identity username='SECRET' keyfile='/SECRET'/></source>",
      'ssh://h/a',
    ],
    [
      "<source protocol='nfs' name='/x/y'><host name='h'/><identity user='SECRET' group='g'/></source>",
      'nfs://h/x/y',
    ],
    ["<source protocol='vxhs' name='id'><host name='h' port='9999'/></source>", 'vxhs://h:9999/id'],
    ['<source/>', 'network:'],
  ])('%s is %s', (source, name) => {
    expect(network(source)).toBe(name)
  })
})

describe('secrets of disks', () => {
  it('never get into the facts', () => {
    const xml = `
      <auth username='SECRET'><secret type='ceph' uuid='SECRET'/></auth>
      <source protocol='rbd' name='p/i'><host name='h'/>
        <auth username='SECRET'><secret type='ceph' usage='SECRET'/></auth>
        <encryption format='luks'><secret type='passphrase' uuid='SECRET'/></encryption>
        <cookies><cookie name='c'>SECRET</cookie></cookies>
        <reservations managed='no'><source type='unix' path='/SECRET'/></reservations>
      </source>
      <backingStore type='network'><format type='luks'/>
        <source protocol='http' name='b' query='SECRET'><encryption format='luks'><secret type='passphrase' uuid='SECRET'/></encryption></source>
      </backingStore>
      <mirror type='network' job='copy'><source protocol='http' name='m' query='SECRET'/></mirror>
      <iotune><read_bytes_sec>1</read_bytes_sec></iotune><serial>SECRET</serial>`
    const disk = diskOf("type='network'", xml)
    expect(inspect(disk, { depth: Infinity })).not.toContain('SECRET')
    expect(disk).toMatchObject({
      ...{ source: 'rbd://h/p/i', encryption: 'luks' },
      backingStore: [{ source: 'http:b', format: 'luks', encryption: 'luks' }],
      mirror: { source: 'http:m' },
    })
  })

  it('where an old one is encrypted is told as well', () => {
    expect(diskOf("type='file'", "<source file='/a'/><encryption format='qcow'/>").encryption).toBe('qcow')
    expect(diskOf("type='file'", "<source file='/a'/>")).not.toHaveProperty('encryption')
  })
})

describe('a disk', () => {
  it('that others share, and a volume', () => {
    expect(diskOf("type='file'", "<source file='/a'/><shareable/>").shareable).toBe(true)
    expect(diskOf("type='volume'", "<source pool='p' volume='v'/>")).toMatchObject({
      ...{ type: 'volume', source: 'volume:p/v', volume: { pool: 'p', volume: 'v' } },
    })
    expect(diskOf("type='volume'", "<source pool='p'/>")).not.toHaveProperty('volume')
    expect(diskOf("type='file'", "<source file='/a' pool='p' volume='v'/>")).not.toHaveProperty('volume')
  })

  it.each([
    [
      "<mirror type='file' job='copy' ready='yes'><format type='qcow2'/><source file='/c' index='2'/></mirror>",
      { job: 'copy', ready: 'yes', type: 'file', source: '/c', format: 'qcow2' },
    ],
    [
      "<mirror type='block' job='active-commit'><format type='raw'/><source dev='/dev/b'/></mirror>",
      { job: 'active-commit', ready: undefined, type: 'block', source: '/dev/b', format: 'raw' },
    ],
    [
      "<mirror file='/old' format='qcow2' job='copy' ready='pivot'/>",
      { job: 'copy', ready: 'pivot', type: 'file', source: '/old', format: 'qcow2' },
    ],
  ])('with %s', (xml, mirror) => {
    expect(diskOf("type='file'", `<source file='/a'/>${xml}`).mirror).toEqual(mirror)
  })

  it('has a chain of 200 images, and never a stack overflow', () => {
    const chain = (length: number) =>
      "<backingStore type='file'><format type='qcow2'/><source file='/b'/>".repeat(length) +
      '<backingStore/>' +
      '</backingStore>'.repeat(length)
    expect(diskOf("type='file'", `<source file='/a'/>${chain(200)}`).backingStore).toHaveLength(200)
    expect(diskOf("type='file'", `<source file='/a'/>${chain(MAX_XML_DEPTH - 5)}`).backingStore).toHaveLength(
      MAX_XML_DEPTH - 5,
    )
    expect(() => diskOf("type='file'", chain(MAX_XML_DEPTH))).toThrow('nested more than')
  })
})

describe('namespaces', () => {
  it('of others hide nothing and add nothing', () => {
    const foreign = `<metadata><x xmlns='http://x'><devices><disk/></devices></x></metadata>`
    const xml = domainXml("<disk><source file='/a'/><target dev='vda'/></disk>").replace(
      '<devices>',
      `${foreign}<devices>`,
    )
    expect(parseDomain(xml).disks).toHaveLength(1)
    // libvirt looks for elements without a namespace, and finds none here.
    expect(() => parseDomain("<domain xmlns='http://x'><name>w</name></domain>")).toThrow(
      'not a domain: <{http://x}domain>',
    )
    expect(parseDomain("<domain xmlns=''><name>w</name></domain>").name).toBe('w')
  })

  it('a name is what it is, spaces and all', () => {
    expect(parseDomain('<domain><name> w </name></domain>').name).toBe(' w ')
  })
})
