/**
 * Whose bitmap a name is likely to be. Every backup tool has its own way to name its bitmaps or checkpoints; none of
 * them is forbidden to others, so even a certain match is no proof.
 */

export type BitmapOwner =
  | 'libvirt-temporary'
  | 'libvirt-default'
  | 'virtnbdbackup'
  | 'opennebula'
  | 'cloudstack'
  | 'ovirt'
  | 'qmpbackup'
  | 'proxmox'

export interface Ownership {
  readonly owner: BitmapOwner
  /** What people call it. */
  readonly title: string
  /** `certain`: nobody else makes such names; `likely`: others might. */
  readonly certainty: 'certain' | 'likely'
  /**
   * How the owner keeps its bitmaps: `checkpoint`: as libvirt's checkpoints, some of them keeping the metadata
   * themselves and telling libvirt anew; `own`: beside libvirt; `temporary`: for the length of a job, never on disk.
   */
  readonly keeps: 'checkpoint' | 'own' | 'temporary'
}

interface Scheme extends Ownership {
  readonly pattern: RegExp
}

const UUID = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'

/** The first that matches counts. */
const SCHEMES: readonly Scheme[] = [
  // libvirt, src/qemu/qemu_block.c and qemu_checkpoint.c: libvirt-tmp-activewrite, libvirt-tmp-size-xml.
  scheme('libvirt-temporary', "libvirt's temporaries", 'certain', 'temporary', /^libvirt-tmp-/),
  scheme('libvirt-temporary', "libvirt's temporaries", 'likely', 'temporary', /^libvirt-/),
  // abbbi/virtnbdbackup, libvirtnbdbackup/virt/checkpoint.py: defaultCheckpointName.N, 0 with each full backup.
  scheme('virtnbdbackup', 'virtnbdbackup', 'certain', 'checkpoint', /^virtnbdbackup\.\d+$/),
  // OpenNebula/one, src/tm_mad/lib/backup_qcow2.rb: one-<VM id>-<increment id>, redefined before each backup.
  scheme('opennebula', 'OpenNebula', 'certain', 'checkpoint', /^one-\d+-\d+$/),
  // apache/cloudstack, scripts/vm/hypervisor/kvm/nasbackup.sh: backup-<Unix seconds>.
  scheme('cloudstack', "CloudStack's NAS backup", 'likely', 'checkpoint', /^backup-\d{9,}$/),
  // abbbi/qmpbackup, libqmpbackup: qmpbackup-<node>-<uuid>, qmpbackup-<node> in old versions; kept by QMP alone.
  scheme('qmpbackup', 'qmpbackup', 'certain', 'own', new RegExp(`^qmpbackup-.*-${UUID}$`, 's')),
  scheme('qmpbackup', 'qmpbackup', 'likely', 'own', /^qmpbackup-/),
  // Proxmox's QEMU, pve-backup.c: PBS_BITMAP_NAME, BACKGROUND_BITMAP_NAME; in memory where all goes well.
  scheme('proxmox', 'Proxmox VE', 'certain', 'own', /^pbs-incremental-dirty-bitmap$/),
  scheme('proxmox', 'Proxmox VE', 'likely', 'own', /^backup-access-/),
  // oVirt's engine gives vdsm the checkpoint's UUID as its name; the metadata are the engine's, told anew at each start.
  scheme('ovirt', 'oVirt (vdsm)', 'likely', 'checkpoint', new RegExp(`^${UUID}$`)),
  // libvirt, src/conf/checkpoint_conf.c: a checkpoint without a name has its creation time for one.
  scheme('libvirt-default', "libvirt's default", 'likely', 'checkpoint', /^[1-9]\d{8,9}$/),
]

function scheme(
  owner: BitmapOwner,
  title: string,
  certainty: Ownership['certainty'],
  keeps: Ownership['keeps'],
  pattern: RegExp,
): Scheme {
  return { owner, title, certainty, keeps, pattern }
}

/**
 * Whose bitmap it is by its name; undefined where the name says nothing.
 *
 * @param targets of the domain's disks: during a backup libvirt calls a bitmap `backup-TARGET`
 * @example bitmapOwner('virtnbdbackup.3')?.owner // 'virtnbdbackup'
 */
export function bitmapOwner(name: string, targets: readonly string[] = []): Ownership | undefined {
  // libvirt, src/qemu/qemu_backup.c: backup-%s of the target.
  if (name.startsWith('backup-') && targets.includes(name.slice('backup-'.length))) {
    return {
      owner: 'libvirt-temporary',
      title: "libvirt's temporaries",
      certainty: 'certain',
      keeps: 'temporary',
    }
  }
  const found = SCHEMES.find(({ pattern }) => pattern.test(name))
  if (found === undefined) return undefined
  const { owner, title, certainty, keeps } = found
  return { owner, title, certainty, keeps }
}

/**
 * The moment that a name tells: libvirt's default name, or CloudStack's `backup-N`. Unix seconds, from 2001 to 2286.
 */
export function timeInName(name: string): number | undefined {
  const digits = /^(?:backup-)?([1-9]\d{8,9})$/.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/** A name as stem and number, for those that count up: `virtnbdbackup.12`, `one-7-3`; number undefined without. */
export function numberInName(name: string): { readonly stem: string; readonly number: number | undefined } {
  const match = /^(.*?)(\d{1,15})$/s.exec(name)
  return match === null ? { stem: name, number: undefined } : { stem: match[1]!, number: Number(match[2]) }
}
