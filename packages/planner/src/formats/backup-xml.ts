import { PlanError } from '../errors.js'
import { dirname, isAbsolutePath } from '../paths.js'
import type { BackupPlan, DiskPlan } from '../plan/types.js'
import { printXml, type XmlNode } from '../xml/print.js'
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
 * `<incremental>` when all do. Every disk has the type, driver and absolute file that libvirt asks for; the file
 * must not exist when the backup begins. Disks that were not asked for are listed with `backup='no'`.
 *
 * Attributes and elements are in libvirt's order (docs/formatbackup, domainbackup.rng).
 *
 * @throws {PlanError} `plan-unknown`: the mode of some disk is not known; `target-dir-needed`: a disk is no file,
 *   so there is no folder beside it
 * @throws {RangeError} a relative `targetDir` or `socket`, an unusable `suffix`
 * @example
 * ```ts
 * planToBackupXml(plan, { mode: 'push', suffix: '20260801T0300', targetDir: '/backup/web' })
 * ```
 */
export function planToBackupXml(plan: BackupPlan, options: BackupXmlOptions): string {
  if (!/^[\w.-]+$/.test(options.suffix))
    throw new RangeError(`suffix cannot be part of a file name: ${options.suffix}`)
  if (options.targetDir !== undefined) requireAbsolute('targetDir', options.targetDir)
  requireKnown(plan)

  const disks: XmlNode[] = plan.disks.map(disk => {
    const { target: name, mode } = disk
    // libvirt would refuse the whole backup for it.
    if (disk.reasons.some(({ code }) => code === 'disk-transient')) return leftOut(name)
    const file = { file: newFile(plan, disk, options) }
    return {
      name: 'disk',
      attributes: { name, backup: 'yes', type: 'file', backupmode: mode },
      children: [
        { name: 'driver', attributes: { type: 'qcow2' } },
        { name: options.mode === 'push' ? 'target' : 'scratch', attributes: file },
      ],
    }
  })
  for (const { target, why } of plan.skipped) if (why === 'not-asked') disks.push(leftOut(target))
  return printXml({
    name: 'domainbackup',
    attributes: { mode: options.mode },
    children: [
      plan.disks.some(({ mode }) => mode === 'incremental')
        ? { name: 'incremental', text: plan.incremental }
        : undefined,
      options.mode === 'pull' ? server(options.socket) : undefined,
      { name: 'disks', children: disks },
    ],
  })
}

function leftOut(name: string): XmlNode {
  return { name: 'disk', attributes: { name, backup: 'no' } }
}

function server(socket: string): XmlNode {
  requireAbsolute('socket', socket)
  return { name: 'server', attributes: { transport: 'unix', socket } }
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
