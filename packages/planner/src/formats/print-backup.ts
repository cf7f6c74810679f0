import { printXml, type XmlNode } from '../xml/print.js'
import type {
  BackupDefinition,
  BackupDisk,
  BackupEncryption,
  BackupServer,
  BackupStore,
  SecurityLabel,
} from './backup-definition.js'

/**
 * A `<domainbackup>` to the letter as libvirt prints it. Nothing is filled in (see `completeBackup`).
 *
 * @throws {XmlError} a text holds a character that XML cannot express
 */
export function printBackup(backup: BackupDefinition): string {
  const { mode, incremental, server, disks, privateData } = backup
  return printXml({
    name: 'domainbackup',
    attributes: { mode },
    children: [
      incremental === undefined ? undefined : { name: 'incremental', text: incremental },
      server && { name: 'server', attributes: serverAttributes(server) },
      disks.length === 0
        ? undefined
        : {
            name: 'disks',
            children: disks.map(disk => diskNode(disk, mode === 'push' ? 'target' : 'scratch')),
          },
      privateData,
    ],
  })
}

function serverAttributes(server: BackupServer): Record<string, string | undefined> {
  const { transport, tls } = server
  switch (transport) {
    case 'tcp':
      return { transport, tls, name: server.name, port: server.port?.toString() }
    case 'unix':
      return { transport, tls, socket: server.socket }
    case 'fd':
      return { transport, tls, fdgroup: server.fdgroup }
  }
}

function diskNode(disk: BackupDisk, where: 'target' | 'scratch'): XmlNode {
  const { name, backup, state, type, backupmode, incremental, exportname, exportbitmap } = disk
  if (backup === 'no') return { name: 'disk', attributes: { name, backup } }
  const { format, store } = disk
  return {
    name: 'disk',
    attributes: { name, backup, state, type, backupmode, incremental, exportname, exportbitmap },
    children: [
      format === undefined ? undefined : { name: 'driver', attributes: { type: format } },
      store && storeNode(store, where, type),
    ],
  }
}

function storeNode(store: BackupStore, name: string, type: 'file' | 'block'): XmlNode {
  const { path, encryption, seclabels = [] } = store
  return {
    name,
    attributes: type === 'file' ? { file: path } : { dev: path },
    children: [...seclabels.map(seclabelNode), encryption && encryptionNode(encryption)],
  }
}

function seclabelNode({ model, labelskip, relabel, label }: SecurityLabel): XmlNode {
  return {
    name: 'seclabel',
    attributes: { model, labelskip, relabel },
    children: [label === undefined ? undefined : { name: 'label', text: label }],
  }
}

function encryptionNode({ engine, secret, cipher, ivgen }: BackupEncryption): XmlNode {
  return {
    name: 'encryption',
    attributes: { format: 'luks', engine },
    children: [
      { name: 'secret', attributes: { type: 'passphrase', ...secret } },
      cipher && { name: 'cipher', attributes: cipher },
      ivgen && { name: 'ivgen', attributes: ivgen },
    ],
  }
}
