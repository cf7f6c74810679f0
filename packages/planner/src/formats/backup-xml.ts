import { PlanError } from '../errors.js'
import { dirname, isAbsolutePath } from '../paths.js'
import type { BackupPlan, DiskPlan } from '../plan/types.js'
import { isDiskTarget, isSchemaPath } from '../xml/names.js'
import { isXmlText } from '../xml/print.js'
import type { BackupDisk } from './backup-definition.js'
import { beyondComment, forLibvirt } from './for-libvirt.js'
import { printBackup } from './print-backup.js'
import { requireKnown } from './require-known.js'

export type BackupXmlOptions = {
  /** Makes the new files' names fresh: a time stamp, say. Letters, digits, `-`, `_` and `.`. */
  readonly suffix: string
  /** Absolute folder of the new files. Default: beside each disk's own file. */
  readonly targetDir?: string | undefined
} & (
  | { readonly mode: 'push' }
  | {
      readonly mode: 'pull'
      /** Absolute path of the NBD server's UNIX socket. */
      readonly socket: string
    }
)

/**
 * The `<domainbackup>` for `virsh backup-begin`: `backupmode='full'` on just the disks that need it, no
 * `<incremental>` when all do. Disks whose bitmaps libvirt cannot unite (chained) are full too, which a comment says.
 * Every disk has the type, driver and absolute file that libvirt asks for; the file must not exist when the backup
 * begins. Disks that were not asked for are listed with `backup='no'`.
 *
 * Attributes and elements are in libvirt's order (docs/formatbackup, domainbackup.rng).
 *
 * @throws {PlanError} `plan-unknown`: the mode of some disk is not known; `target-dir-needed`: a disk is no file,
 *   so there is no folder beside it; `name-unfit`: a target or path that libvirt would not take
 * @throws {RangeError} a relative `targetDir` or `socket`, an unusable `suffix`
 * @example
 * ```ts
 * planToBackupXml(plan, { mode: 'push', suffix: '20260801T0300', targetDir: '/backup/web' })
 * ```
 */
export function planToBackupXml(planned: BackupPlan, options: BackupXmlOptions): string {
  if (!/^[\w.-]+$/.test(options.suffix))
    throw new RangeError(`suffix cannot be part of a file name: ${options.suffix}`)
  if (options.targetDir !== undefined) requireAbsolute('targetDir', options.targetDir)
  requireKnown(planned)
  const plan = forLibvirt(planned)

  const disks = plan.disks.map((disk): BackupDisk => {
    // libvirt would refuse the whole backup for it.
    if (disk.reasons.some(({ code }) => code === 'disk-transient')) return leftOut(disk.target)
    const incremental = disk.mode === 'incremental' ? plan.incremental : undefined
    const path = requireFit('path', newFile(plan, disk, options), isSchemaPath)
    return {
      ...{ name: requireFit('target', disk.target, isDiskTarget), backup: 'yes', type: 'file' },
      ...{ backupmode: incremental === undefined ? 'full' : 'incremental', incremental },
      ...{ format: 'qcow2', store: { path } },
    }
  })
  for (const { target, why } of plan.skipped) {
    // What is not listed is left out as well: a name that cannot be listed need not be.
    if (why === 'not-asked' && isDiskTarget(target)) disks.push(leftOut(target))
  }
  const { mode } = options
  const xml = printBackup({
    mode,
    incremental: plan.disks.some(disk => disk.mode === 'incremental') ? plan.incremental : undefined,
    server: mode === 'pull' ? { transport: 'unix', socket: requireSocket(options.socket) } : undefined,
    disks,
  })
  return beyondComment(planned) + xml
}

function leftOut(target: string): BackupDisk {
  return {
    ...{ name: requireFit('target', target, isDiskTarget), backup: 'no', type: 'file' },
    ...{ backupmode: undefined, incremental: undefined, format: undefined, store: undefined },
  }
}

function requireFit(what: 'target' | 'path', name: string, fits: (name: string) => boolean): string {
  if (fits(name) && isXmlText(name)) return name
  const shown = name.replace(/\p{C}/gu, '?')
  const message = `libvirt's backup XML cannot hold this disk's ${what}: '${shown}'`
  throw new PlanError('name-unfit', message, { [what]: name })
}

function requireSocket(socket: string): string {
  requireAbsolute('socket', socket)
  return requireFit('path', socket, isSchemaPath)
}

/** `FOLDER/DOMAIN-TARGET.SUFFIX.qcow2`; what is odd in a file name becomes `_`. */
function newFile(plan: BackupPlan, disk: DiskPlan, { targetDir, suffix }: BackupXmlOptions): string {
  if (targetDir === undefined && (disk.type !== 'file' || !isAbsolutePath(disk.source))) {
    throw new PlanError(
      'target-dir-needed',
      `disk ${disk.target} (${disk.type}: ${disk.source}) has no folder of files beside it: name a target folder`,
      { target: disk.target, source: disk.source, type: disk.type },
    )
  }
  const folder = (targetDir ?? dirname(disk.source)).replace(/\/+$/, '')
  return `${folder}/${fileName(plan.domain)}-${fileName(disk.target)}.${suffix}.qcow2`
}

function fileName(name: string): string {
  return name.replace(/[^\w.-]/g, '_')
}

function requireAbsolute(what: string, path: string): void {
  if (!isAbsolutePath(path)) throw new RangeError(`${what} must be an absolute path: ${path}`)
}
