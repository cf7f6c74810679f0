import type { BackupDefinition, BackupDisk, BackupServer } from '../formats/backup-definition.js'
import { readStore } from './backup-store.js'
import { parseXml, type XmlElement } from './document.js'
import {
  attribute,
  childElement,
  childElements,
  childText,
  elementError,
  enumAttribute,
  printable,
} from './elements.js'
import { EmbeddedXml } from './embedded.js'
import { isDiskTarget } from './names.js'
import { absolutePath, needed, requireContent } from './schema.js'

/**
 * Reads a `<domainbackup>` as strictly as libvirt does. What libvirt adds in its own status of a running domain (the
 * state of each disk, its private data) is taken too.
 *
 * @param xml the document's text
 * @throws {XmlError} not well-formed, another document, or something that libvirt's schema does not have
 * @example
 * ```ts
 * printBackup(completeBackup(parseBackup('<domainbackup/>'), domain, { suffix: '20260801' }))
 * ```
 */
export function parseBackup(xml: string): BackupDefinition {
  const root = parseXml(xml)
  if (root.name !== 'domainbackup') {
    const found = `<${printable(root.name)}>`
    throw elementError(root, `this is not a backup: ${found}`, { expected: '<domainbackup>', found })
  }
  requireContent(root, ['mode'], { incremental: 'once', server: 'once', disks: 'once', privateData: 'once' })
  const mode = enumAttribute(root, 'mode', ['push', 'pull'], "a backup's mode") ?? 'push'
  const server = childElement(root, 'server')
  if ((server !== undefined) !== (mode === 'pull')) {
    const problem = mode === 'pull' ? 'a pull backup needs a server' : 'a push backup has no server'
    throw elementError(server ?? root, problem, { expected: mode === 'pull' ? '<server>' : "mode='pull'" })
  }
  const disks = childElement(root, 'disks')
  if (disks) requireContent(disks, [], { disk: 'many' }, 'disk')
  const privateData = childElement(root, 'privateData')
  return {
    mode,
    incremental: childText(root, 'incremental'),
    server: server && readServer(server),
    disks: disks ? childElements(disks, 'disk').map(disk => readDisk(disk, mode)) : [],
    ...(privateData === undefined ? {} : { privateData: EmbeddedXml.of(privateData, [root]) }),
  }
}

function readServer(server: XmlElement): BackupServer {
  const kinds = ['tcp', 'unix', 'fd'] as const
  const transport = enumAttribute(server, 'transport', kinds, "a server's transport") ?? 'tcp'
  const own = { tcp: ['name', 'port'], unix: ['socket'], fd: ['fdgroup'] }[transport]
  requireContent(server, ['transport', 'tls', ...own], {})
  const tls = enumAttribute(server, 'tls', ['yes', 'no'], "a server's tls")
  const common = tls === undefined ? {} : { tls }
  switch (transport) {
    case 'tcp': {
      const port = attribute(server, 'port')
      if (port !== undefined && (!/^[0-9]{1,5}$/.test(port) || Number(port) > 65535)) {
        throw elementError(server, "a server's port is no number of a port", { expected: '1 to 65535' })
      }
      const name = needed(server, 'name')
      return { transport, ...common, name, port: port === undefined ? undefined : Number(port) }
    }
    case 'unix':
      return { transport, ...common, socket: absolutePath(server, 'socket') }
    case 'fd':
      return { transport, ...common, fdgroup: needed(server, 'fdgroup') }
  }
}

const DISK_ATTRIBUTES = ['name', 'backup', 'state', 'type', 'backupmode', 'incremental', 'index'] as const

function readDisk(disk: XmlElement, mode: 'push' | 'pull'): BackupDisk {
  const where = mode === 'push' ? 'target' : 'scratch'
  const exports = mode === 'pull' ? ['exportname', 'exportbitmap'] : []
  requireContent(disk, [...DISK_ATTRIBUTES, ...exports], { driver: 'once', [where]: 'once' })
  const name = needed(disk, 'name')
  if (!isDiskTarget(name)) {
    const found = printable(name)
    throw elementError(disk, `a disk cannot be named '${found}'`, { expected: 'a target such as vda', found })
  }
  const backup = enumAttribute(disk, 'backup', ['yes', 'no'], "a disk's backup") ?? 'yes'
  const type = enumAttribute(disk, 'type', ['file', 'block'], "a disk's type of backup") ?? 'file'
  const modes = ['full', 'incremental'] as const
  const backupmode = enumAttribute(disk, 'backupmode', modes, "a disk's mode of backup")
  const incremental = attribute(disk, 'incremental')
  if (backupmode === 'full' && incremental !== undefined) {
    throw elementError(disk, 'a full backup of a disk starts from no checkpoint', {
      expected: "backupmode='incremental'",
    })
  }
  if (backup === 'no') {
    return {
      ...{ name, backup, type, format: undefined, store: undefined },
      ...{ backupmode: undefined, incremental: undefined },
    }
  }
  const store = childElement(disk, where)
  const state = attribute(disk, 'state')
  const exportname = attribute(disk, 'exportname')
  const exportbitmap = attribute(disk, 'exportbitmap')
  return {
    ...{ name, backup, type, backupmode, incremental },
    ...(state === undefined ? {} : { state }),
    ...(exportname === undefined ? {} : { exportname }),
    ...(exportbitmap === undefined ? {} : { exportbitmap }),
    format: readDriver(disk, mode),
    store: store && readStore(store, type),
  }
}

function readDriver(disk: XmlElement, mode: 'push' | 'pull'): string | undefined {
  const driver = childElement(disk, 'driver')
  if (driver === undefined) return undefined
  requireContent(driver, ['type'], {})
  const format = needed(driver, 'type')
  if (mode === 'push' || format === 'qcow2') return format
  const found = printable(format)
  throw elementError(driver, `a scratch file cannot be ${found}`, { expected: 'qcow2', found })
}
