/** What libvirt's schemas take as names of checkpoints and disks, and as paths. */

/** libvirt's pattern: names become file names, so no slash, no leading dot and no spaces around them. */
const CHECKPOINT_NAME = /^[a-zA-Z0-9_-][a-zA-Z0-9_.-]*$/

/** Whether libvirt takes this as a checkpoint's name. */
export function isCheckpointName(name: string): boolean {
  return CHECKPOINT_NAME.test(name)
}

/** libvirt's schema: a target of a known kind (nvme in newer ones). */
const DISK_TARGET = /^((ioemu:)?(fd|hd|sd|vd|xvd|ubd)[a-zA-Z0-9_]+|nvme[0-9]+n[0-9]+)$/

/** Whether libvirt's schemas of checkpoints and backups take this as a disk's target. */
export function isDiskTarget(name: string): boolean {
  return DISK_TARGET.test(name)
}

/** An absolute path without line feeds, as libvirt's schemas have it. */
export function isSchemaPath(path: string): boolean {
  return /^(\/|[a-zA-Z]:\\)[^\n\r]+$/.test(path)
}
