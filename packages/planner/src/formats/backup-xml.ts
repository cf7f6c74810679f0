import { DOMImplementation, type Element, XMLSerializer } from '@xmldom/xmldom'
import { PlanError } from '../errors.js'
import { dirname, isAbsolutePath } from '../paths.js'
import type { BackupPlan, DiskPlan } from '../plan/types.js'
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

  const document = new DOMImplementation().createDocument(null, 'domainbackup')
  const root = document.documentElement!
  const add = (parent: Element, name: string, attributes: Readonly<Record<string, string>>): Element => {
    const element = document.createElement(name)
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
    parent.appendChild(element)
    return element
  }

  root.setAttribute('mode', options.mode)
  if (plan.disks.some(({ mode }) => mode === 'incremental')) {
    add(root, 'incremental', {}).appendChild(document.createTextNode(plan.incremental))
  }
  if (options.mode === 'pull') {
    requireAbsolute('socket', options.socket)
    add(root, 'server', { transport: 'unix', socket: options.socket })
  }
  const disks = add(root, 'disks', {})
  for (const disk of plan.disks) {
    const { target: name, mode } = disk
    if (disk.reasons.some(({ code }) => code === 'disk-transient')) {
      // libvirt would refuse the whole backup for it.
      add(disks, 'disk', { name, backup: 'no' })
      continue
    }
    const element = add(disks, 'disk', { name, backup: 'yes', type: 'file', backupmode: mode })
    add(element, 'driver', { type: 'qcow2' })
    add(element, options.mode === 'push' ? 'target' : 'scratch', { file: newFile(plan, disk, options) })
  }
  for (const { target, why } of plan.skipped) {
    if (why === 'not-asked') add(disks, 'disk', { name: target, backup: 'no' })
  }
  indent(root, 0)
  return `${new XMLSerializer().serializeToString(root, { requireWellFormed: true })}\n`
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

/** Two spaces a level, as virsh prints; only elements without text are broken up. */
function indent(element: Element, level: number): void {
  const children = [...element.childNodes]
  if (children.length === 0 || children.some(node => node.nodeType === node.TEXT_NODE)) return
  const document = element.ownerDocument!
  for (const child of children) {
    element.insertBefore(document.createTextNode(`\n${'  '.repeat(level + 1)}`), child)
    indent(child as Element, level + 1)
  }
  element.appendChild(document.createTextNode(`\n${'  '.repeat(level)}`))
}
