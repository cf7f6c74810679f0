import type { ChainLayer } from '../chain/open-chain.js'
import { CorruptImageError, Qcow2Error, UnsupportedFeatureError } from '../errors.js'
import { findingToError } from '../findings.js'
import { entryOffset, fieldsOf } from '../format/bytes.js'
import { extensionMagic } from '../format/extensions.js'
import { hasReferencedClusters, readRefcountTable } from '../format/refcounts.js'
import { readSnapshots, type Snapshot } from '../format/snapshots.js'
import type { ImageInspection } from '../image/inspect.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'
import { ClusterMap, guestBytesPerL1Entry, type L1Table } from './cluster-map.js'
import type { ClusterRun } from './cluster-runs.js'
import { ClusterSet } from './cluster-set.js'
import type { Codecs, SectorCipher } from './codecs.js'
import { TableCache, untilAborted } from './table-cache.js'

const MAX_LUKS_BYTES = 32 * 1024 * 1024
/** QEMU's limit for any L1 table. */
const MAX_L1_BYTES = 32 * 1024 * 1024

/** One image's own share of a disk. */
export interface DiskLayer {
  readonly filename: string
  /** Bytes of the disk as this image has it; behind them it is zeros. */
  readonly size: number
  /** Where its data are: the file, or the external data file. */
  readonly data: ImageStorage
  /** Host offsets in `data` mean something to others: not if it is encrypted. */
  readonly encrypted: boolean
  /** What [start, end), below `size`, is. */
  runs(start: number, end: number, options?: ReadOptions): AsyncIterable<readonly ClusterRun[]>
  /** Data that lie in a hole of the file are zeros, but stored all the same: in qcow2, since a table says so. */
  readonly holesAreAllocated: boolean
  /** Whether the holes of `data` tell more than its metadata: raw images, preallocated ones. */
  looksForHoles(options?: ReadOptions): Promise<boolean>
  /** Undefined for what is not encrypted. */
  cipher(options?: ReadOptions): Promise<SectorCipher | undefined>
  /** One whole cluster, inflated. */
  inflate(run: Extract<ClusterRun, { kind: 'compressed' }>, options?: ReadOptions): Promise<Uint8Array>
}

export function rawLayer(filename: string, storage: ImageStorage): DiskLayer {
  // QEMU counts a disk in sectors: the last one is filled up with zeros.
  const size = Math.ceil(storage.size / 512) * 512
  return {
    filename,
    size,
    data: storage,
    encrypted: false,
    holesAreAllocated: false,
    async *runs(start, end) {
      yield [{ kind: 'data', start, length: end - start, hostOffset: start }]
    },
    looksForHoles: async () => true,
    cipher: async () => undefined,
    inflate: () => Promise.reject(new Error('raw images are not compressed')),
  }
}

export interface Qcow2LayerOptions extends ReadOptions {
  /** Id or name of an internal snapshot to read instead of the disk as it is now. */
  readonly snapshot?: string | undefined
  /** The external data file, where the image has one. */
  readonly dataFile: ImageStorage | undefined
  readonly codecs: Codecs
  readonly passphrase: (() => Promise<Uint8Array>) | undefined
  readonly tableCacheBytes: number
}

/** @throws {Qcow2Error} for an image whose data cannot be read with certainty */
export async function qcow2Layer(
  layer: ChainLayer & { inspection: ImageInspection },
  options: Qcow2LayerOptions,
): Promise<DiskLayer> {
  const { inspection: image, filename } = layer
  const { storage, header } = image
  // Bitmaps have nothing to do with guest data.
  const broken = image.findings.find(
    ({ severity, structure }) => severity === 'error' && !structure.startsWith('bitmap'),
  )
  if (broken !== undefined) throw findingToError(filename, broken)
  if (header.cryptMethod === 1) throw new UnsupportedFeatureError(filename, "the legacy encryption 'aes'")

  const snapshot =
    options.snapshot === undefined ? undefined : await findSnapshot(image, options.snapshot, options)
  const bytes = snapshot?.diskSize ?? header.size
  if (bytes > Number.MAX_SAFE_INTEGER) {
    throw new UnsupportedFeatureError(filename, 'a snapshot of a disk of more than 2^53 − 1 bytes')
  }
  const size = sectors(bytes)
  const l1 = await readL1(image, snapshot, size, options)
  const blocks = await readRefcountTable(storage, header, options)
  const data = options.dataFile ?? storage
  const cache = new TableCache(storage, options.tableCacheBytes)
  const map = new ClusterMap({ image, size, l1, data, ...metadataOf(image, l1, blocks), cache })
  let cipher: Promise<SectorCipher> | undefined
  let preallocated: Promise<boolean> | undefined
  let inflated: Inflated | undefined
  return {
    filename,
    size,
    data,
    encrypted: image.encrypted,
    holesAreAllocated: true,
    runs: (start, end, read) => map.runs(start, end, read),
    async looksForHoles({ signal } = {}) {
      if (data.storedRun === undefined) return false
      preallocated ??= isPreallocated(image, blocks).catch(error => {
        preallocated = undefined
        throw error
      })
      return untilAborted(preallocated, signal)
    },
    async cipher({ signal } = {}) {
      if (!image.encrypted) return undefined
      cipher ??= unlock(image, options).catch(error => {
        cipher = undefined
        throw error
      })
      return untilAborted(cipher, signal)
    },
    inflate(run) {
      // A reader in small steps comes back to the same cluster. Two may begin at one place, of other lengths.
      const { hostOffset, hostBytes } = run
      if (inflated?.hostOffset === hostOffset && inflated.hostBytes === hostBytes) return inflated.bytes
      const bytes = inflate(image, run, options.codecs)
      const mine: Inflated = { hostOffset, hostBytes, bytes }
      inflated = mine
      // Whoever asks again may have better luck.
      bytes.catch(() => {
        if (inflated === mine) inflated = undefined
      })
      return bytes
    },
  }
}

/** The last cluster that was inflated, or is being. */
interface Inflated {
  readonly hostOffset: number
  readonly hostBytes: number
  readonly bytes: Promise<Uint8Array>
}

function sectors(bytes: number): number {
  return bytes - (bytes % 512)
}

async function findSnapshot(image: ImageInspection, wanted: string, options: ReadOptions): Promise<Snapshot> {
  const snapshots = await readSnapshots(image.storage, image.header, options)
  const found = snapshots.find(({ id }) => id === wanted) ?? snapshots.find(({ name }) => name === wanted)
  if (found !== undefined) return found
  const available = snapshots.map(({ id, name }) => ({ id, name }))
  const shown = snapshots.slice(0, 20).map(({ id, name }) => `${id} '${name}'`)
  throw new Qcow2Error(
    'snapshot-missing',
    `${image.storage.name} has no internal snapshot '${wanted}'` +
      (shown.length === 0 ? ' (it has none)' : `; it has ${shown.join(', ')}`),
    { image: image.storage.name, snapshot: wanted, available },
  )
}

/** As many entries as the disk needs. The active table's place has been checked with the header. */
async function readL1(
  image: ImageInspection,
  snapshot: Snapshot | undefined,
  size: number,
  options: ReadOptions,
): Promise<L1Table> {
  const { storage, header, clusterSize } = image
  const { l1TableOffset: offset, l1Size } = snapshot ?? header
  const structure = snapshot === undefined ? 'L1 table' : `L1 table of snapshot '${snapshot.name}'`
  const needed = Math.ceil(size / guestBytesPerL1Entry(image))
  const fail = (expected: string, found: string) =>
    new CorruptImageError(storage.name, { structure, offset, expected, found })
  if (l1Size < needed) throw fail(`${needed} entries for a disk of ${size} bytes`, `${l1Size}`)
  if (needed * 8 > MAX_L1_BYTES) throw fail(`at most ${MAX_L1_BYTES / 8} entries`, `${needed}`)
  if (needed > 0 && offset % clusterSize !== 0) throw fail('a cluster boundary', `${offset}`)
  if (needed > 0 && offset + needed * 8 > storage.size) {
    throw fail(`${needed * 8} bytes within the file of ${storage.size}`, `${offset}`)
  }
  const bytes = await readBytes(storage, needed === 0 ? 0 : offset, needed * 8, options)
  return { structure, offset, entries: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) }
}

/**
 * Clusters of the image file that cannot hold guest data; and those of them that cannot be an L2 table. Not all that
 * there are: those known without more reads.
 */
function metadataOf(
  image: ImageInspection,
  l1: L1Table,
  blocks: Float64Array,
): { metadata: ClusterSet; notTables: ClusterSet } {
  const { header, clusterSize, storage, bitmapDirectory, extensions } = image
  const starts: number[] = [0]
  const add = (offset: number, bytes: number) => {
    const end = Math.min(offset + bytes, storage.size)
    for (let at = offset - (offset % clusterSize); at < end; at += clusterSize) starts.push(at)
  }
  add(header.l1TableOffset, header.l1Size * 8)
  add(l1.offset, l1.entries.byteLength)
  add(header.refcountTableOffset, header.refcountTableClusters * clusterSize)
  if (header.nbSnapshots > 0) add(header.snapshotsOffset, 1)
  if (bitmapDirectory !== undefined && bitmapDirectory.bitmaps.length > 0) {
    const { directoryOffset, directorySize } = bitmapDirectory.extension
    if (!bitmapDirectory.stale) add(directoryOffset, directorySize)
  }
  const luks = extensions.findLast(({ magic }) => magic === extensionMagic.luksHeader)
  if (image.encrypted && luks !== undefined) {
    const pointer = fieldsOf(luks.data)
    // Header and key material are some MiB, whatever the pointer claims.
    add(pointer.u64(0), Math.min(pointer.u64(8), MAX_LUKS_BYTES))
  }
  const entries = l1.entries.byteLength / 8
  const all = new Float64Array(starts.length + blocks.length + entries)
  all.set(starts)
  // Tables are empty for the most part: a cluster of 2 MiB of refcount table has 262,144 entries, and a file few blocks.
  let count = starts.length
  for (const offset of blocks) if (offset !== 0) all[count++] = offset
  const notTables = new ClusterSet(clusterSize, all.slice(0, count))
  for (let i = 0; i < entries; i++) {
    const offset = entryOffset(l1.entries, i * 8)
    if (offset !== 0) all[count++] = offset
  }
  return { metadata: new ClusterSet(clusterSize, all.slice(0, count)), notTables }
}

/**
 * Whether much more is allocated in the image than its file takes of the disk: then the file's holes tell what was
 * never written. QEMU's own rule (qcow2_detect_metadata_preallocation), so that its map is ours.
 */
async function isPreallocated({ storage, header, clusterSize }: ImageInspection, blocks: Float64Array) {
  if (storage.allocatedBytes === undefined) return false
  const stored = Math.floor(storage.allocatedBytes / clusterSize)
  const threshold = Math.max(Math.floor((stored * 10) / 9), stored + 2)
  return hasReferencedClusters(storage, header, blocks, threshold)
}

async function unlock(image: ImageInspection, options: Qcow2LayerOptions): Promise<SectorCipher> {
  const { passphrase, codecs } = options
  if (passphrase === undefined) {
    throw new Qcow2Error(
      'passphrase-missing',
      `${image.storage.name} is encrypted: its data need a passphrase`,
      {
        image: image.storage.name,
      },
    )
  }
  // Most images are not encrypted.
  const { unlockLuks } = await import('./luks.js')
  return unlockLuks(image.storage, image, await passphrase(), codecs)
}

async function inflate(
  { storage, header, clusterSize }: ImageInspection,
  run: Extract<ClusterRun, { kind: 'compressed' }>,
  codecs: Codecs,
): Promise<Uint8Array> {
  const input = await readBytes(storage, run.hostOffset, run.hostBytes)
  const zstd = header.compressionType === 1
  try {
    return await (zstd ? codecs.zstd(input, clusterSize) : codecs.inflateRaw(input, clusterSize))
  } catch (cause) {
    if (cause instanceof Qcow2Error) throw cause
    throw new Qcow2Error(
      'decompress-failed',
      `${storage.name}: the compressed cluster at 0x${run.hostOffset.toString(16)} (guest offset 0x${run.clusterStart.toString(16)}) cannot be inflated: ${(cause as Error).message}`,
      {
        image: storage.name,
        offset: run.hostOffset,
        guestOffset: run.clusterStart,
        type: zstd ? 'zstd' : 'zlib',
      },
      { cause },
    )
  }
}
