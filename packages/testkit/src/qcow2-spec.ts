/** What to build: every field has a valid default, and each can be made wrong on purpose. */
export interface Qcow2Spec {
  /** Default 3. */
  version?: 2 | 3
  /** Guest bytes, any number that fits an L1 table of 32 MiB. Default 1 MiB. */
  virtualSize?: number
  /** 9–21 for QEMU; others are built too. Default 16. */
  clusterBits?: number
  /** Refcounts have 2^refcountOrder bits, 0–6. Default 4, the only one in version 2. */
  refcountOrder?: number
  /** Version 3 only. Default 112, as QEMU writes, or more where `headerTail` needs it. */
  headerLength?: number
  /** Header bytes from 112 on, such as a future version might add. */
  headerTail?: Uint8Array
  /** Added to the bits that the other fields ask for. */
  incompatibleFeatures?: bigint
  compatibleFeatures?: bigint
  autoclearFeatures?: bigint
  /** Not 0 also sets incompatible bit 3. Default 0 (zlib). */
  compressionType?: number
  /** 0 none, 1 AES, 2 LUKS. Default 2 with `luks`, else 0. */
  cryptMethod?: number
  backingFile?: string
  /** Default: no extension of the backing format. */
  backingFormat?: string
  /** `true` writes QEMU's own table, 392 bytes: QEMU leaves it out of clusters below 2 KiB. Default none. */
  featureNames?: true | readonly FeatureName[]
  /** Name of an external data file; sets incompatible bit 2, and autoclear bit 1 if `raw`. */
  dataFile?: { name: string; raw?: boolean }
  /** LUKS header pointer; without an offset, clusters of zeros are allocated for it. */
  luks?: { offset?: number; length: number }
  /** Extensions that no one knows. They go behind the bitmaps extension unless `first`. */
  extensions?: readonly ExtensionSpec[]
  bitmaps?: readonly BitmapSpec[]
  /** Writes the bitmaps extension with these numbers instead of the right ones, even without bitmaps. */
  bitmapsExtension?: BitmapsExtensionSpec
  /** Autoclear bit 0. Default: set if there is a bitmaps extension. */
  bitmapsConsistent?: boolean
  /** Entries of the L1 table, instead of as many as the size needs. All are zero. */
  l1Size?: number
  /** The file keeps only so many bytes of its last cluster. */
  lastClusterBytes?: number
  /** The file is cut at, or grown with zeros to, this length. Applied last. */
  fileLength?: number
}

/** One row of the feature name table. `type` 0 incompatible, 1 compatible, 2 autoclear. */
export interface FeatureName {
  type: number
  bit: number
  name: string
}

/** A header extension as it is; `length` overrides the length field alone. */
export interface ExtensionSpec {
  magic: number
  data: Uint8Array
  length?: number
  first?: boolean
}

/** Raw fields of the bitmaps extension; those not given are right. */
export interface BitmapsExtensionSpec {
  nbBitmaps?: number
  reserved?: number
  directorySize?: number | bigint
  directoryOffset?: number | bigint
  /** The extension's length field. Default 24. */
  length?: number
}

/**
 * One entry of a bitmap table: all zeros, all ones, a cluster with these bytes (padded with zeros), or any
 * 64 bits.
 */
export type TableEntrySpec = 'zeros' | 'ones' | Uint8Array | bigint

/** One bitmap: its directory entry, its table and its data. */
export interface BitmapSpec {
  /** Text is written as UTF-8. */
  name: string | Uint8Array
  /** Default 16. */
  granularityBits?: number
  /** Bit 0 in_use, bit 1 auto, bit 2 extra_data_compatible. Default 2 (auto). */
  flags?: number
  /** Default 1, a dirty bitmap. */
  type?: number
  extraData?: Uint8Array
  /** Indexes of dirty bits. Clusters that hold none become zeros entries, the others data. */
  dirty?: Iterable<number> | ((bit: number) => boolean)
  /** The entries themselves, instead of `dirty`; missing ones at the end are filled. */
  table?: readonly TableEntrySpec[]
  /** What fills the table behind `table`. Default zeros. */
  fill?: 'zeros' | 'ones'
  /** Entries in the table, instead of as many as the size needs. */
  tableSize?: number
  /** What the directory entry says, where it is not where or what the table is. */
  claims?: {
    tableOffset?: number | bigint
    tableSize?: number
    nameSize?: number
    extraDataSize?: number
  }
}
