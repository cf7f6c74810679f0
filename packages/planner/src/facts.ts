/**
 * What the planner is told: plain data, gathered elsewhere (from files by `@tidemark/planner/node`, or by a
 * caller from a database, QMP or a test). Nothing here is opened or read by the planner itself.
 */
import type { EmbeddedXml } from './xml/embedded.js'

/** A disk of a `<domain>`, as far as planning goes. Paths are as the XML has them, before any mapping. */
export interface DomainDisk {
  /** `<target dev>`: `vda`, `sdb`. */
  readonly target: string
  /** `<disk type>`: `file`, `block`, `network`, `volume`, `nvme`, `vhostuser`, … */
  readonly type: string
  /** `<disk device>`: `disk`, `cdrom`, `floppy`, `lun`. */
  readonly device: string
  /** The path of a file or block source; a readable name for other types; undefined for an empty drive. */
  readonly source: string | undefined
  /** `<driver type>`: `qcow2`, `raw`, …; undefined where the XML does not say. */
  readonly format: string | undefined
  readonly readonly: boolean
  /**
   * `<backingStore>` elements that have a source, from the first below the top to the deepest.
   * Undefined: the XML does not say. Empty: an empty `<backingStore/>`, so the chain ends at the top.
   */
  readonly backingStore: readonly BackingStore[] | undefined
  /**
   * The last `<backingStore>` has no empty one below it, so libvirt finds out what follows from that image itself.
   * Absent: the chain ends with the last.
   */
  readonly backingStoreGoesOn?: boolean
  /** `<transient/>`: what the guest writes is thrown away at shutdown, and libvirt runs no backup of it. */
  readonly transient?: boolean
  /** `<slices>`: the disk is a part of the file only, which cannot be read offline. */
  readonly sliced?: boolean
  /** `<shareable/>`: other domains may write to it as well. */
  readonly shareable?: boolean
  /** `<encryption format>`: `luks`, `qcow`, …: guest data cannot be read without the secret. */
  readonly encryption?: string
  /** `<source pool volume>`: the volume, also where `source` is the file that it was found to be. */
  readonly volume?: VolumeName
  /** A copy or an active commit is under way: the disk may have another top any moment. */
  readonly mirror?: DiskMirror
}

/** A volume of one of libvirt's storage pools. */
export interface VolumeName {
  readonly pool: string
  readonly volume: string
}

/** `<mirror>`: where a running block job copies a disk to. */
export interface DiskMirror {
  /** `copy`, `active-commit`, …; undefined where the XML does not say (a copy, before libvirt 1.2.7). */
  readonly job: string | undefined
  /** `yes`: both are the same, and the job waits to be ended; `abort`, `pivot`: it ends. Undefined: still copying. */
  readonly ready: string | undefined
  readonly type: string
  /** As `DomainDisk.source`. */
  readonly source: string | undefined
  readonly format: string | undefined
}

export interface BackingStore {
  readonly type: string
  readonly source: string | undefined
  readonly format: string | undefined
  /** `<encryption format>` of this image. */
  readonly encryption?: string
}

export interface DomainFacts {
  readonly name: string
  readonly uuid: string | undefined
  readonly disks: readonly DomainDisk[]
}

/** One `<disk>` of a `<domaincheckpoint>`. */
export interface CheckpointDisk {
  /** Target name (or source path) as written. */
  readonly name: string
  readonly checkpoint: 'no' | 'bitmap'
  /** The bitmap's name; libvirt's default is the checkpoint's name. */
  readonly bitmap: string | undefined
  /** Bytes that its bitmap stands for: only in what libvirt prints when it is asked for sizes, never read. */
  readonly size?: number | undefined
}

export interface CheckpointFacts {
  readonly name: string
  readonly description: string | undefined
  readonly parent: string | undefined
  /** Unix seconds. */
  readonly creationTime: number | undefined
  /** Undefined when the XML has no `<disks>`: every writable disk is then a `bitmap` disk. */
  readonly disks: readonly CheckpointDisk[] | undefined
  /** The domain as it was at that time; libvirt stores it, hand-made metadata may lack it. */
  readonly domain: DomainFacts | undefined
  /** The same `<domain>` to the letter, for metadata that is written anew. May hold secrets: shows nowhere else. */
  readonly domainXml?: EmbeddedXml | undefined
  /** Why libvirt does not load this metadata though it can be read: its schema, or its length. Absent: it does. */
  readonly libvirtSkips?: string | undefined
}

/** A checkpoint's description that may still lack a name, as `virsh checkpoint-create` takes it. */
export type CheckpointDraft = Omit<CheckpointFacts, 'name'> & { readonly name: string | undefined }

/** One persistent bitmap as an image's directory has it. */
export interface BitmapFacts {
  readonly name: string
  /** Bytes. */
  readonly granularity: number
  /** The `auto` flag: QEMU records into it. */
  readonly recording: boolean
  /** The `in-use` flag on disk: a writer did not finish. */
  readonly inconsistent: boolean
  /** What is wrong with its directory entry or its table, if anything: it cannot be read. */
  readonly corrupt: string | undefined
  /**
   * Corrupt, yet QEMU opens the image: what lies past the end of the file it takes for clean bits. Without this
   * QEMU refuses the whole image for one corrupt bitmap.
   */
  readonly qemuLoads?: boolean
}

/** One image of a disk's backing chain, read now. */
export interface LayerFacts {
  /** The path that was opened (after mapping). */
  readonly filename: string
  /** The path before mapping, as the domain or the image above names it. */
  readonly namedAs: string
  readonly format: string
  /** Why the image could not be read; the fields below are then empty. */
  readonly problem: LayerProblem | undefined
  /** Bytes. */
  readonly virtualSize: number | undefined
  /** qcow2 only: `0.10` (v2, cannot hold bitmaps) or `1.1` (v3). */
  readonly compat: string | undefined
  /** A writer (a running QEMU) holds the image. */
  readonly locked: boolean
  /** The bitmaps extension is there but autoclear bit 0 is clear: all its bitmaps are inconsistent. */
  readonly bitmapsStale: boolean
  readonly bitmaps: readonly BitmapFacts[]
  /** Internal snapshots: they tell how large the disk was when each was taken. Absent: not looked at, or none. */
  readonly snapshots?: readonly SnapshotFacts[]
  /** Its external data file, where that is a raw image of the disk by itself (`data-file-raw`). */
  readonly dataFileRaw?: string
  /**
   * What its own header names as its backing file, where the domain names another one below it, or none; empty where the
   * header names none. Absent: they agree, or the domain leaves it to the header.
   */
  readonly ownBacking?: string
  /** What tells the file from every other one of its host, whatever it is called; compared with `fileIds`. */
  readonly fileId?: string | undefined
}

/** An internal snapshot of an image. */
export interface SnapshotFacts {
  readonly id: string
  readonly name: string
  /** Unix seconds, when it was taken. */
  readonly date: number
  /** The disk's size then, in bytes; undefined where the image does not say (version 2). */
  readonly diskSize: number | undefined
}

export interface LayerProblem {
  readonly code:
    | 'image-missing'
    | 'image-unreadable'
    /** Not by who asks: no permission, or too much open at once. libvirt may well. */
    | 'image-inaccessible'
    | 'image-corrupt'
    | 'image-unsupported'
    | 'image-denied'
    | 'backing-cycle'
  readonly message: string
}

/** Everything `planBackup` looks at. */
export interface BackupFacts {
  readonly domain: DomainFacts
  readonly checkpoints: readonly CheckpointFacts[]
  /** Disk target → its backing chain now, top layer first. A disk whose source cannot be read offline has none. */
  readonly chains: ReadonlyMap<string, readonly LayerFacts[]>
  /**
   * Paths of the checkpoints' `<domain>`s as they have them → the file that is there now, as `LayerFacts.fileId` has
   * it: so that one file under two names (a symbolic link, a bind mount) is known for one. Absent: names alone count.
   */
  readonly fileIds?: ReadonlyMap<string, string>
}
