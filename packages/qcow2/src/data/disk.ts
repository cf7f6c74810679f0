import type { ChainLayer, ImageOpener } from '../chain/open-chain.js'
import { Qcow2Error, UnsupportedFeatureError } from '../errors.js'
import type { ImageInspection } from '../image/inspect.js'
import { checkRange, type ImageStorage, type ReadOptions } from '../storage/storage.js'
import type { ClusterRun } from './cluster-runs.js'
import type { Codecs } from './codecs.js'
import { type DiskLayer, qcow2Layer, rawLayer } from './layer.js'
import { libraryCodecs } from './library-codecs.js'
import { inParallel, near, type Piece, readEncrypted, readJoined } from './pieces.js'
import { Turns } from './turns.js'

const TABLE_CACHE_BYTES = 8 * 1024 * 1024
/** Extents told at once, of files with many holes. */
const CHUNK = 1024

/** A stretch of a disk, as `qemu-img map` tells it. Offsets and lengths in bytes. */
export interface DiskExtent {
  readonly start: number
  readonly length: number
  /** The layer that it comes from, or the last one asked; the top is 0. */
  readonly depth: number
  /** Whether that layer has it; else nobody does, and it reads as zeros. */
  readonly present: boolean
  /** Reads as zeros, as far as that is known without reading. */
  readonly zero: boolean
  /** Stored somewhere. */
  readonly data: boolean
  /** Where, in the file of that layer: if what is there is the guest's data as it is. */
  readonly offset: number | undefined
}

/** A guest's disk over a chain of images: what the guest would read. */
export interface GuestDisk {
  readonly size: number
  /**
   * Fills the target from `offset` on.
   *
   * @throws RangeError past the disk's end
   * @throws {Qcow2Error} `corrupt-image` with the place, where the data cannot be known; `decompress-failed`;
   *   `passphrase-missing`, `passphrase-wrong`; whatever the storage throws
   */
  readInto(target: Uint8Array, offset: number, options?: ReadOptions): Promise<void>
  /**
   * What [start, start + length) is, in order, without gaps, neighbours joined. Costs tables, no data, and no
   * passphrase.
   */
  extents(
    start?: number,
    length?: number,
    options?: ReadOptions,
  ): AsyncGenerator<readonly DiskExtent[], void, undefined>
  /** Closes external data files; the chain is the caller's. */
  close(): Promise<void>
}

export interface OpenDiskOptions extends ReadOptions {
  /** The gate for external data files (default: none is opened). */
  readonly open?: ImageOpener
  /** Id or name of an internal snapshot of the top image. */
  readonly snapshot?: string | undefined
  /** Asked once for each encrypted image, when data of it are read. */
  readonly passphrase?: (image: string) => Promise<Uint8Array>
  /** Default: libraries that run everywhere. In Node take `nodeCodecs`. */
  readonly codecs?: Codecs
  /** Bytes of tables kept for each image (default 8 MiB). */
  readonly tableCacheBytes?: number
}

/**
 * The disk that a chain of images is, top first, as openChain gives it: whole, from the top to the last image that
 * another one refers to.
 *
 * @throws {Qcow2Error} for a layer that could not be opened or cannot be read with certainty
 *
 * @example
 * const disk = await openDisk(await openChain({ name: 'vm.qcow2' }, { open }), { open, codecs: nodeCodecs })
 * await disk.readInto(new Uint8Array(512), 0)
 */
export async function openDisk(
  chain: readonly ChainLayer[],
  options: OpenDiskOptions = {},
): Promise<GuestDisk> {
  const layers: DiskLayer[] = []
  const dataFiles: ImageStorage[] = []
  const close = async () => {
    await Promise.all(dataFiles.map(file => file.close()))
  }
  try {
    for (const layer of chain) layers.push(await openLayer(layer, dataFiles, options))
    const [top] = layers
    if (top === undefined) throw new RangeError('a disk has at least one image')
    const last = chain.at(-1)!
    if (last.inspection?.backingFile) {
      throw new Qcow2Error(
        'reference-denied',
        `${last.filename} has a backing file, which is not opened: what it does not have itself is not known`,
        { image: last.filename, reference: last.inspection.backingFile },
      )
    }
    return new LayeredDisk(top.size, layers, close)
  } catch (error) {
    await close()
    throw error
  }
}

async function openLayer(
  layer: ChainLayer,
  dataFiles: ImageStorage[],
  options: OpenDiskOptions,
): Promise<DiskLayer> {
  const { problem, storage, inspection, filename, format } = layer
  if (problem !== undefined) throw problem
  if (storage === undefined) throw new RangeError(`${filename} has not been opened`)
  if (layer.depth === 0 && inspection === undefined && options.snapshot !== undefined) {
    throw new Qcow2Error('not-qcow2', `${filename} is ${format}: only qcow2 images have internal snapshots`)
  }
  if (inspection === undefined) {
    if (format !== 'raw') throw new UnsupportedFeatureError(filename, `reading data of format '${format}'`)
    return rawLayer(filename, storage)
  }
  const dataFile = await openDataFile({ ...layer, inspection }, options)
  if (dataFile !== undefined) dataFiles.push(dataFile)
  const { passphrase } = options
  return qcow2Layer(
    { ...layer, inspection },
    {
      snapshot: layer.depth === 0 ? options.snapshot : undefined,
      dataFile,
      codecs: options.codecs ?? libraryCodecs,
      passphrase: passphrase === undefined ? undefined : () => passphrase(filename),
      tableCacheBytes: options.tableCacheBytes ?? TABLE_CACHE_BYTES,
      signal: options.signal,
    },
  )
}

async function openDataFile(
  layer: ChainLayer & { inspection: ImageInspection },
  { open }: OpenDiskOptions,
): Promise<ImageStorage | undefined> {
  const name = layer.inspection.dataFile
  if (name === undefined) return undefined
  const denied = (why: string) =>
    new Qcow2Error('reference-denied', `data file '${name}' of ${layer.filename} ${why}`, { reference: name })
  if (name === '') throw denied('is not named: its data cannot be found')
  if (open === undefined) throw denied('is not opened unless the caller allows it')
  return (await open(name, { name, format: 'raw', from: layer, use: 'data-file' })).storage
}

class LayeredDisk implements GuestDisk {
  readonly size: number
  readonly close: () => Promise<void>
  readonly #layers: readonly DiskLayer[]

  constructor(size: number, layers: readonly DiskLayer[], close: () => Promise<void>) {
    this.size = size
    this.#layers = layers
    this.close = close
  }

  async readInto(target: Uint8Array, offset: number, options: ReadOptions = {}): Promise<void> {
    checkRange({ name: 'the disk', size: this.size }, offset, target.byteLength)
    const work: (() => Promise<void>)[] = []
    const plain: Piece[] = []
    await this.#gather(0, target, offset, plain, work, options)
    for (const joined of near(plain)) work.push(() => readJoined(joined, options))
    await inParallel(work, options)
  }

  /** Fills what is zeros, and notes what must be read for the rest. */
  async #gather(
    depth: number,
    target: Uint8Array,
    offset: number,
    plain: Piece[],
    work: (() => Promise<void>)[],
    options: ReadOptions,
  ): Promise<void> {
    const layer = this.#layers[depth]
    const end = Math.max(offset, Math.min(offset + target.byteLength, layer?.size ?? 0))
    // Behind a shorter image's end there are zeros, whatever lies below it.
    target.fill(0, end - offset)
    if (layer === undefined || end === offset) return
    for await (const runs of layer.runs(offset, end, options)) {
      for (const run of runs) {
        const part = target.subarray(run.start - offset, run.start - offset + run.length)
        if (run.kind === 'zero') part.fill(0)
        else if (run.kind === 'unallocated') {
          await this.#gather(depth + 1, part, run.start, plain, work, options)
        } else if (run.kind === 'compressed') {
          work.push(async () => {
            const cluster = await layer.inflate(run, options)
            part.set(
              cluster.subarray(run.start - run.clusterStart, run.start - run.clusterStart + run.length),
            )
          })
        } else if (layer.encrypted) {
          work.push(() => readEncrypted({ layer, hostOffset: run.hostOffset, target: part }, options))
        } else plain.push({ layer, hostOffset: run.hostOffset, target: part })
      }
    }
  }

  async *extents(
    start = 0,
    length = this.size - start,
    options: ReadOptions = {},
  ): AsyncGenerator<readonly DiskExtent[], void, undefined> {
    checkRange({ name: 'the disk', size: this.size }, start, length)
    let held: Told | undefined
    for await (const chunk of this.#tell(0, start, start + length, options)) {
      const done: DiskExtent[] = []
      for (const next of chunk) {
        if (held !== undefined && continues(held, next)) held.length += next.length
        else {
          if (held !== undefined) done.push(held)
          held = next
        }
      }
      if (done.length > 0) yield done
    }
    if (held !== undefined) yield [held]
  }

  /** The same, neighbours not yet joined. */
  async *#tell(
    depth: number,
    start: number,
    end: number,
    options: ReadOptions,
  ): AsyncGenerator<readonly Told[], void, undefined> {
    const layer = this.#layers[depth]!
    const below = this.#layers[depth + 1]
    for await (const runs of layer.runs(start, end, options)) {
      let chunk: Told[] = []
      for (const run of runs) {
        if (run.kind !== 'unallocated') {
          // A hole of an encrypted file is not zeros: it is deciphered like anything else.
          if (run.kind === 'data' && !layer.encrypted && (await layer.looksForHoles(options))) {
            if (chunk.length > 0) yield chunk
            chunk = []
            yield* tellStored(run, layer, depth, options)
          } else chunk.push(told(run, depth, layer.encrypted))
          continue
        }
        // Behind the end of a shorter image below it is the layer above that says zeros.
        const within = Math.max(run.start, Math.min(run.start + run.length, below?.size ?? 0))
        if (within > run.start) {
          if (chunk.length > 0) yield chunk
          chunk = []
          yield* this.#tell(depth + 1, run.start, within, options)
        }
        if (run.start + run.length > within) {
          const rest = run.start + run.length - within
          const place = layer.encrypted ? undefined : run.hostOffset
          const offset = place === undefined ? undefined : place + within - run.start
          chunk.push({ start: within, length: rest, depth, present: false, zero: true, data: false, offset })
        }
      }
      if (chunk.length > 0) yield chunk
    }
  }
}

type Told = { -readonly [K in keyof DiskExtent]: DiskExtent[K] }

function continues(last: Told, next: Told): boolean {
  return (
    last.zero === next.zero &&
    last.data === next.data &&
    last.present === next.present &&
    last.depth === next.depth &&
    next.offset === (last.offset === undefined ? undefined : last.offset + last.length)
  )
}

function told(run: Exclude<ClusterRun, { kind: 'unallocated' }>, depth: number, encrypted: boolean): Told {
  const zero = run.kind === 'zero'
  const offset = run.kind === 'compressed' || encrypted ? undefined : run.hostOffset
  return { start: run.start, length: run.length, depth, present: true, zero, data: !zero, offset }
}

/** Data whose file may have holes: they are zeros. In a raw image a hole is no data; in qcow2 it has been allocated. */
async function* tellStored(
  run: Extract<ClusterRun, { kind: 'data' }>,
  layer: DiskLayer,
  depth: number,
  { signal }: ReadOptions,
): AsyncGenerator<readonly Told[], void, undefined> {
  const turns = new Turns()
  const end = run.start + run.length
  let chunk: Told[] = []
  for (let start = run.start; start < end; ) {
    const host = run.hostOffset + start - run.start
    // Behind the file's end there is nothing but zeros.
    const stored =
      host >= layer.data.size
        ? { data: false, end: Number.POSITIVE_INFINITY }
        : ((await layer.data.storedRun?.(host)) ?? { data: true, end: layer.data.size })
    const length = Math.min(end - start, stored.end - host)
    chunk.push({
      start,
      length,
      depth,
      present: true,
      zero: !stored.data,
      data: stored.data || layer.holesAreAllocated,
      offset: host,
    })
    start += length
    if (chunk.length < CHUNK) continue
    yield chunk
    chunk = []
    signal?.throwIfAborted()
    // A hole is asked for in a microsecond or two: as long as many entries take.
    await turns.after(CHUNK * 16)
  }
  if (chunk.length > 0) yield chunk
}
