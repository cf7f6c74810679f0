import {
  type ChainLayer,
  extensionName,
  type Finding,
  fullBackingName,
  type ImageInspection,
  type LuksDescription,
  type PersistentBitmap,
  type Snapshot,
} from '@tidemark/qcow2'

/** What `--count` adds to a bitmap. */
export type BitmapCount = { readonly count: number; readonly dirtyBytes: number } | { readonly error: string }

/** One image as `tidemark info` shows it. */
export interface ImageInfo {
  readonly layer: ChainLayer
  /** In the directory's order; undefined without `--count`. */
  readonly counts: readonly BitmapCount[] | undefined
  /** Undefined without one, and where they cannot be read. */
  readonly snapshots?: readonly Snapshot[]
  /** Of an image encrypted with LUKS, where its header can be read. */
  readonly luks?: LuksDescription
  readonly findings: readonly Finding[]
}

type Json = Record<string, unknown>

/** One image as `qemu-img info --output=json` has it, with more keys. Without a key where qemu-img has none. */
export function infoToJson({ layer, counts, snapshots, luks, findings }: ImageInfo): Json {
  const { filename, format, inspection, storage, problem } = layer
  if (inspection === undefined) {
    return {
      ...(problem === undefined
        ? {}
        : { error: { ...problem.details, code: problem.code, message: problem.message } }),
      ...(format === 'raw' && storage !== undefined ? { 'virtual-size': rawVirtualSize(storage.size) } : {}),
      filename,
      format,
      ...actualSize(layer),
      'dirty-flag': false,
    }
  }
  return {
    'virtual-size': inspection.virtualSize,
    filename,
    'cluster-size': inspection.clusterSize,
    format,
    ...actualSize(layer),
    ...(inspection.encrypted ? { encrypted: true } : {}),
    ...backing(filename, inspection),
    ...(snapshots === undefined ? {} : { snapshots: snapshots.map(snapshotToJson) }),
    'format-specific': { type: 'qcow2', data: formatSpecific(inspection, counts, luks) },
    'dirty-flag': inspection.dirty,
    ...(inspection.bitmapDirectory?.stale ? { 'bitmaps-stale': true } : {}),
    'snapshot-count': inspection.header.nbSnapshots,
    'header-extensions': inspection.extensions.map(({ magic, offset, data }) => ({
      magic: `0x${magic.toString(16).padStart(8, '0')}`,
      name: extensionName(magic),
      offset,
      length: data.byteLength,
    })),
    findings,
  }
}

/** QEMU counts in sectors, and takes what is begun for whole. */
export function rawVirtualSize(fileBytes: number): number {
  return Math.ceil(fileBytes / 512) * 512
}

function actualSize({ storage }: ChainLayer): Json {
  return storage?.allocatedBytes === undefined ? {} : { 'actual-size': storage.allocatedBytes }
}

function backing(filename: string, { backingFile, backingFormat }: ImageInspection): Json {
  if (backingFile === undefined) return {}
  return {
    'backing-filename': backingFile,
    'full-backing-filename': fullBackingName(filename, backingFile),
    ...(backingFormat === undefined ? {} : { 'backing-filename-format': backingFormat }),
  }
}

const NSEC = 1_000_000_000n

function snapshotToJson(snapshot: Snapshot): Json {
  const { icount, vmClockNsec } = snapshot
  return {
    // Larger than what a number holds exactly: never in earnest.
    ...(icount === undefined ? {} : { icount: Number(icount) }),
    'vm-clock-nsec': Number(vmClockNsec % NSEC),
    name: snapshot.name,
    'date-sec': snapshot.dateSec,
    'date-nsec': snapshot.dateNsec,
    'vm-clock-sec': Number(vmClockNsec / NSEC),
    id: snapshot.id,
    'vm-state-size': snapshot.vmStateSize,
    ...(snapshot.diskSize === undefined ? {} : { 'disk-size': snapshot.diskSize }),
  }
}

function formatSpecific(
  inspection: ImageInspection,
  counts: readonly BitmapCount[] | undefined,
  luks: LuksDescription | undefined,
): Json {
  const { header, bitmapDirectory } = inspection
  const v3 = header.version === 3
  return {
    compat: v3 ? '1.1' : '0.10',
    'compression-type': header.compressionType === 1 ? 'zstd' : 'zlib',
    ...(v3 ? { 'lazy-refcounts': inspection.lazyRefcounts } : {}),
    ...(bitmapDirectory && bitmapDirectory.bitmaps.length > 0
      ? { bitmaps: bitmapDirectory.bitmaps.map((bitmap, i) => bitmapToJson(bitmap, counts?.[i])) }
      : {}),
    ...(bitmapDirectory?.stale ? { 'bitmaps-stale': true } : {}),
    'refcount-bits': 2 ** header.refcountOrder,
    ...(v3 ? { corrupt: inspection.corrupt, 'extended-l2': inspection.extendedL2 } : {}),
    ...(inspection.dataFile === undefined
      ? {}
      : { 'data-file': inspection.dataFile, 'data-file-raw': inspection.dataFileRaw }),
    ...(inspection.encrypted
      ? { encrypt: luks ?? { format: header.cryptMethod === 2 ? 'luks' : 'aes' } }
      : {}),
  }
}

function bitmapToJson(bitmap: PersistentBitmap, count: BitmapCount | undefined): Json {
  return {
    flags: [...(bitmap.inUse ? ['in-use'] : []), ...(bitmap.auto ? ['auto'] : [])],
    name: bitmap.name,
    granularity: bitmap.granularity,
    ...(bitmap.unreadable === undefined ? {} : { corrupt: bitmap.unreadable }),
    ...(bitmap.extraData.byteLength === 0 ? {} : { 'extra-data-size': bitmap.extraData.byteLength }),
    ...countToJson(count),
  }
}

function countToJson(count: BitmapCount | undefined): Json {
  if (count === undefined) return {}
  return 'error' in count
    ? { 'count-error': count.error }
    : { count: count.count, 'dirty-bytes': count.dirtyBytes }
}
