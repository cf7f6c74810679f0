/** A `<domainbackup>` as data: what `virsh backup-begin` takes, and what libvirt makes of it. */
import type { EmbeddedXml } from '../xml/embedded.js'

export interface BackupDefinition {
  readonly mode: 'push' | 'pull'
  /** The checkpoint that all disks start from which do not say otherwise. */
  readonly incremental: string | undefined
  /** Pull mode: where libvirt's NBD server listens. */
  readonly server: BackupServer | undefined
  readonly disks: readonly BackupDisk[]
  /** libvirt's own, in the status of a running domain; carried as it is. */
  readonly privateData?: EmbeddedXml | undefined
}

export type BackupServer = { readonly tls?: 'yes' | 'no' | undefined } & (
  | { readonly transport: 'tcp'; readonly name: string; readonly port: number | undefined }
  | { readonly transport: 'unix'; readonly socket: string }
  /** File descriptors that were passed before, by the name of their group (newer than libvirt 9.0). */
  | { readonly transport: 'fd'; readonly fdgroup: string }
)

export interface BackupDisk {
  /** Target name. */
  readonly name: string
  /** `no`: everything below is left out. */
  readonly backup: 'yes' | 'no'
  /** How far a running job is, in libvirt's own status. */
  readonly state?: string | undefined
  readonly type: 'file' | 'block'
  /** Undefined: incremental where a checkpoint is named for the disk or for all, else full. */
  readonly backupmode: 'full' | 'incremental' | undefined
  readonly incremental: string | undefined
  /** Pull mode: names of the NBD export and of its dirty bitmap. */
  readonly exportname?: string | undefined
  readonly exportbitmap?: string | undefined
  /** `<driver type>` of the new file. */
  readonly format: string | undefined
  /** The `<target>` (push) or `<scratch>` (pull). Undefined: libvirt makes up a file beside the disk. */
  readonly store: BackupStore | undefined
}

export interface BackupStore {
  /** Absolute. */
  readonly path: string
  readonly encryption?: BackupEncryption | undefined
  readonly seclabels?: readonly SecurityLabel[] | undefined
}

/** LUKS of the new file. The secret is named; what it holds is in libvirt's keeping. */
export interface BackupEncryption {
  readonly engine?: string | undefined
  readonly secret: { readonly uuid: string } | { readonly usage: string }
  readonly cipher?: Readonly<Record<'name' | 'size' | 'mode' | 'hash', string | undefined>> | undefined
  readonly ivgen?: Readonly<Record<'name' | 'hash', string | undefined>> | undefined
}

/** `<seclabel>` of a file. */
export interface SecurityLabel {
  readonly model: string | undefined
  readonly labelskip?: string | undefined
  readonly relabel?: string | undefined
  readonly label?: string | undefined
}
