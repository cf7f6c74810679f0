import type { VolumeName } from '../facts.js'
import type { XmlElement } from './document.js'
import { attribute, childElement, childElements } from './elements.js'

/**
 * What a `<source>` refers to: the path of a file, block device or folder, and for the other types a name that
 * people recognise. Users, passwords, cookies and queries never get in. Undefined for an empty drive.
 *
 * - `network`: `rbd:pool/image`, `nbd://host:10809/export`, `iscsi://host/iqn…/0`; of several hosts the first
 * - `volume`: `volume:pool/name`
 * - `nvme`: `nvme:0000:01:00.0/1` (PCI address, namespace)
 * - `vhostuser`: `vhost-user:/path/to/socket`; `vhostvdpa`: `vhost-vdpa:/dev/…`
 */
export function sourceName(type: string, source: XmlElement | undefined): string | undefined {
  if (source === undefined) return undefined
  switch (type) {
    case 'file':
      return attribute(source, 'file')
    case 'block':
      return attribute(source, 'dev')
    case 'dir':
      return attribute(source, 'dir')
    case 'network':
      return networkName(source)
    case 'volume':
      return `volume:${attribute(source, 'pool') ?? '?'}/${attribute(source, 'volume') ?? '?'}`
    case 'nvme':
      return `nvme:${pciAddress(childElement(source, 'address'))}/${attribute(source, 'namespace') ?? '?'}`
    case 'vhostuser':
      return `vhost-user:${attribute(source, 'path') ?? '?'}`
    case 'vhostvdpa':
      return `vhost-vdpa:${attribute(source, 'dev') ?? '?'}`
    default:
      return type
  }
}

/** The volume of a `<source pool='…' volume='…'>`; undefined where one of them is missing. */
export function volumeName(source: XmlElement | undefined): VolumeName | undefined {
  const pool = attribute(source, 'pool')
  const volume = attribute(source, 'volume')
  return pool === undefined || volume === undefined ? undefined : { pool, volume }
}

function networkName(source: XmlElement): string {
  const protocol = attribute(source, 'protocol') ?? 'network'
  // http's and nfs's names may begin with the slash that stands before them anyway.
  const name = (attribute(source, 'name') ?? '').replace(/^\/+/, '')
  const host = childElements(source, 'host')[0]
  if (host === undefined) return `${protocol}:${name}`
  const socket = attribute(host, 'socket')
  if (socket !== undefined) return `${protocol}+unix:${socket}/${name}`
  const rdma = attribute(host, 'transport') === 'rdma' ? '+rdma' : ''
  const address = attribute(host, 'name') ?? '?'
  const port = attribute(host, 'port')
  const authority = `${address.includes(':') ? `[${address}]` : address}${port === undefined ? '' : `:${port}`}`
  return `${protocol}${rdma}://${authority}/${name}`
}

/** `0000:01:00.0`, as lspci has it, from attributes such as `domain='0x0000'`. */
function pciAddress(address: XmlElement | undefined): string {
  const part = (name: string, digits: number) =>
    (attribute(address, name) ?? '?').replace(/^0x/i, '').padStart(digits, '0')
  return `${part('domain', 4)}:${part('bus', 2)}:${part('slot', 2)}.${part('function', 1)}`
}
