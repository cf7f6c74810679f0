import { findDisk } from '../checkpoints/disk-name.js'
import { DefinitionError } from '../errors.js'
import type { DomainDisk, DomainFacts } from '../facts.js'
import type { BackupDefinition, BackupDisk } from './backup-definition.js'

export interface CompleteBackupOptions {
  /** Ends the names of files that are made up: `/images/a.qcow2.SUFFIX`. libvirt takes the time in Unix seconds. */
  readonly suffix: string
  /** Also what libvirt fills in when the job starts: qcow2 for a scratch file, the names of exports and bitmaps. */
  readonly started?: boolean
}

/**
 * Fills in what libvirt fills in of a `<domainbackup>`: each disk's mode and checkpoint, files beside the disks where
 * none are named, and the disks that are not listed (all that can be written to where none is listed, else none).
 * Listed disks come first, then the domain's order.
 *
 * libvirt 9.0 makes up no file for a disk that is listed: name each, as `planToBackupXml` does.
 *
 * @throws {DefinitionError} `domain-without-disks`, `disk-unknown`, `disk-twice`, `disk-not-writable` (an empty drive),
 *   `disk-not-a-file`, `incremental-missing`, `no-disk-selected`
 */
export function completeBackup(
  backup: BackupDefinition,
  domain: DomainFacts,
  options: CompleteBackupOptions,
): BackupDefinition {
  if (domain.disks.length === 0) {
    throw new DefinitionError('domain-without-disks', `domain '${domain.name}' has no disk`, {
      domain: domain.name,
    })
  }
  const listed = new Set<string>()
  const disks: BackupDisk[] = []
  for (const disk of backup.disks) {
    const found = requireListed(domain, disk, listed)
    disks.push(disk.backup === 'no' ? disk : completeDisk(disk, found, backup, options))
  }
  const all = backup.disks.length === 0
  for (const disk of domain.disks) {
    if (listed.has(disk.target)) continue
    const wanted = all && disk.source !== undefined && !disk.readonly
    const entry = unlisted(disk.target, wanted)
    disks.push(wanted ? completeDisk(entry, disk, backup, options) : entry)
  }
  if (!disks.some(disk => disk.backup === 'yes')) {
    throw new DefinitionError('no-disk-selected', 'no disk is selected for the backup', {
      domain: domain.name,
    })
  }
  return { ...backup, disks }
}

function unlisted(name: string, wanted: boolean): BackupDisk {
  return {
    ...{ name, backup: wanted ? 'yes' : 'no', type: 'file' },
    ...{ backupmode: undefined, incremental: undefined, format: undefined, store: undefined },
  }
}

function requireListed(domain: DomainFacts, { name }: BackupDisk, listed: Set<string>): DomainDisk {
  const disk = findDisk(domain, name)
  if (disk === undefined) {
    const known = domain.disks.map(({ target }) => target)
    const message = `domain '${domain.name}' has no disk '${name}'`
    throw new DefinitionError('disk-unknown', message, { domain: domain.name, disk: name, known })
  }
  if (listed.has(disk.target)) {
    throw new DefinitionError('disk-twice', `disk ${disk.target} is listed twice`, { target: disk.target })
  }
  listed.add(disk.target)
  return disk
}

function completeDisk(
  disk: BackupDisk,
  { target, source, type }: DomainDisk,
  backup: BackupDefinition,
  { suffix, started }: CompleteBackupOptions,
): BackupDisk {
  if (source === undefined) {
    throw new DefinitionError('disk-not-writable', `disk ${target} is empty: there is nothing to back up`, {
      target,
    })
  }
  if (disk.store === undefined && (disk.type !== 'file' || type !== 'file')) {
    throw new DefinitionError(
      'disk-not-a-file',
      `disk ${target} is no file, so no file's name can be made up beside it: name one`,
      { target, type },
    )
  }
  const wanted = disk.incremental ?? backup.incremental
  const mode = disk.backupmode ?? (wanted === undefined ? 'full' : 'incremental')
  if (mode === 'incremental' && wanted === undefined) {
    throw new DefinitionError(
      'incremental-missing',
      `disk ${target} is to be backed up incrementally, but no checkpoint is named for it or for the backup`,
      { target },
    )
  }
  const completed: BackupDisk = {
    ...disk,
    backupmode: mode,
    incremental: mode === 'incremental' ? wanted : undefined,
    store: disk.store ?? { path: `${source}.${suffix}` },
  }
  return started ? withDefaultsOfStart(completed, backup.mode) : completed
}

function withDefaultsOfStart(disk: BackupDisk, mode: BackupDefinition['mode']): BackupDisk {
  const format = disk.format ?? 'qcow2'
  if (mode === 'push') return { ...disk, format }
  const bitmap = disk.backupmode === 'incremental' ? `backup-${disk.name}` : undefined
  return {
    ...{ ...disk, format },
    exportname: disk.exportname ?? disk.name,
    exportbitmap: disk.exportbitmap ?? bitmap,
  }
}
