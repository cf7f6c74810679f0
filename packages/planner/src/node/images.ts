import {
  type BitmapEngine,
  type ChainLayer,
  closeChain,
  type Finding,
  openChain,
  Qcow2Error,
  readSnapshots,
  scanBitmapTables,
} from '@tidemark/qcow2'
import { fileOpener, type LockTable, readLocks, readLockTable } from '@tidemark/qcow2/node'
import type {
  BitmapFacts,
  DomainDisk,
  DomainFacts,
  LayerFacts,
  LayerProblem,
  SnapshotFacts,
} from '../facts.js'
import { fileId, identifyFiles } from './file-ids.js'
import { type MapRule, mapSource } from './map-source.js'

/** A domain's images, open: their facts for the planner, and the images themselves for measuring. */
export interface DomainImages {
  /** Disk target → layers, top first; none for sources that are no local file or device. */
  readonly chains: ReadonlyMap<string, readonly LayerFacts[]>
  /** The same layers, open for reading. */
  readonly layers: ReadonlyMap<string, readonly ChainLayer[]>
  /** What is now under the paths asked for (`OpenImagesOptions.names`). */
  readonly fileIds: ReadonlyMap<string, string>
  /** False where locks could not be looked at: a running domain would then not be noticed. */
  readonly locksKnown: boolean
  /** Closes all files. */
  close(): Promise<void>
}

export interface OpenImagesOptions {
  readonly engine: BitmapEngine
  /** Images copied elsewhere: where the paths of the XML are now. */
  readonly mapRules?: readonly MapRule[]
  /** Read on the calling thread: for a program that does nothing else (see `openFile`). */
  readonly blocking?: boolean
  /** Only these targets (default: every disk with a file or device). The dialect is found from all. */
  readonly targets?: readonly string[] | undefined
  /** Paths by which checkpoints knew images: what is there now tells whether they are the same (see `namesThen`). */
  readonly names?: readonly string[]
}

/**
 * Opens the backing chains of a domain's disks and reads their metadata. What is wrong with an image is in its
 * layer's facts; nothing is thrown for it.
 *
 * @example
 * const images = await openDomainImages(domain, { engine: createEngine() })
 * try {
 *   const plan = planBackup({ domain, checkpoints, chains: images.chains }, { incremental: 'cp1' })
 * } finally {
 *   await images.close()
 * }
 */
export async function openDomainImages(
  domain: DomainFacts,
  options: OpenImagesOptions,
): Promise<DomainImages> {
  const layers = new Map<string, readonly ChainLayer[]>()
  const chains = new Map<string, readonly LayerFacts[]>()
  const close = async () => {
    await Promise.all([...layers.values()].map(closeChain))
  }
  try {
    for (const disk of domain.disks) {
      if (!isLocal(disk) || (options.targets && !options.targets.includes(disk.target))) continue
      layers.set(disk.target, await openDiskChain(disk, options))
    }
    // After the images' own metadata: a domain that starts meanwhile is noticed by its locks.
    const locks = readLockTable()
    for (const [target, opened] of layers) chains.set(target, await allFacts(opened, options.engine, locks))
    const locksKnown = (await locks).text !== undefined
    const fileIds = identifyFiles(options.names ?? [], options.mapRules ?? [])
    return { chains, layers, fileIds, locksKnown, close }
  } catch (error) {
    await close()
    throw error
  }
}

function isLocal(disk: DomainDisk): boolean {
  const file = disk.type === 'file' || disk.type === 'block'
  return file && disk.source !== undefined && !disk.readonly && !disk.sliced
}

async function openDiskChain(disk: DomainDisk, options: OpenImagesOptions): Promise<ChainLayer[]> {
  const rules = options.mapRules ?? []
  // Without <driver type> libvirt takes a disk for raw, whatever it holds. An explicit <backingStore> overrules
  // what the images say.
  const backing = disk.backingStore?.map(({ type, source, format }) => ({
    name: type === 'file' || type === 'block' ? (source ?? '') : '',
    format,
  }))
  return openChain(
    { name: disk.source!, format: disk.format ?? 'raw' },
    {
      open: fileOpener({
        references: 'local',
        mapPath: path => mapSource(rules, path),
        blocking: options.blocking === true,
      }),
      probe: true,
      engine: options.engine,
      backing,
      backingGoesOn: disk.backingStoreGoesOn === true,
    },
  )
}

/** One after the other: they share the engine's arena. */
async function allFacts(
  layers: readonly ChainLayer[],
  engine: BitmapEngine,
  locks: Promise<LockTable>,
): Promise<LayerFacts[]> {
  const facts: LayerFacts[] = []
  for (const layer of layers) facts.push(await layerFacts(layer, engine, locks))
  return facts
}

async function layerFacts(
  layer: ChainLayer,
  engine: BitmapEngine,
  locks: Promise<LockTable>,
): Promise<LayerFacts> {
  const { inspection, storage } = layer
  const directory = inspection?.bitmapDirectory
  const { snapshots, broken } = await snapshotFacts(layer)
  const inTables = new Map<string | undefined, Finding[]>()
  for (const each of inspection ? await scanBitmapTables(inspection, engine) : []) {
    if (each.severity === 'error') inTables.set(each.bitmap, [...(inTables.get(each.bitmap) ?? []), each])
  }
  const bitmaps = directory?.bitmaps.map((bitmap): BitmapFacts => {
    const wrong = inTables.get(bitmap.name) ?? []
    const pastEnd = wrong.every(({ code }) => code === 'bitmap-table-past-end-of-file')
    return {
      name: bitmap.name,
      granularity: bitmap.granularity,
      recording: bitmap.auto,
      inconsistent: bitmap.inUse,
      corrupt: bitmap.unreadable ?? wrong[0]?.message,
      qemuLoads: bitmap.unreadable === undefined ? wrong.length > 0 && pastEnd : bitmap.readAsClean,
    }
  })
  return {
    filename: layer.filename,
    namedAs: layer.namedAs,
    format: layer.format,
    problem: layerProblem(layer) ?? broken,
    virtualSize: inspection?.virtualSize ?? (layer.format === 'raw' ? storage?.size : undefined),
    compat: inspection && (inspection.header.version === 2 ? '0.10' : '1.1'),
    locked: storage !== undefined && (await readLocks(layer.filename, locks)).writer,
    bitmapsStale: directory?.stale ?? false,
    bitmaps: bitmaps ?? [],
    ...(snapshots.length > 0 ? { snapshots } : {}),
    fileId: storage === undefined ? undefined : fileId(layer.filename),
  }
}

/** QEMU opens no image whose snapshot table it cannot read. */
async function snapshotFacts({
  inspection,
}: ChainLayer): Promise<{ snapshots: SnapshotFacts[]; broken?: LayerProblem }> {
  if (inspection === undefined || inspection.header.nbSnapshots === 0) return { snapshots: [] }
  try {
    const all = await readSnapshots(inspection.storage, inspection.header)
    return {
      snapshots: all.map(({ id, name, dateSec, diskSize }) => ({ id, name, date: dateSec, diskSize })),
    }
  } catch (error) {
    if (!(error instanceof Qcow2Error)) throw error
    return { snapshots: [], broken: { code: 'image-corrupt', message: error.message } }
  }
}

/** Why QEMU would not open a layer, but for a bitmap's directory entry, which speaks for itself. */
function layerProblem({ problem, inspection }: ChainLayer): LayerProblem | undefined {
  if (problem !== undefined) return { code: problemCode(problem), message: problem.message }
  const refused = inspection?.findings.find(
    ({ severity, structure }) => severity === 'error' && structure !== 'bitmap directory entry',
  )
  if (refused === undefined) return undefined
  const code = refused.code === 'unsupported-feature' ? 'image-unsupported' : 'image-corrupt'
  return { code, message: refused.message }
}

function problemCode({ code, details }: Qcow2Error): LayerProblem['code'] {
  switch (code) {
    case 'image-missing':
      return 'image-missing'
    case 'reference-denied':
      return 'image-denied'
    case 'unsupported-feature':
      return 'image-unsupported'
    case 'corrupt-image':
      return details.cycle === true ? 'backing-cycle' : 'image-corrupt'
    case 'not-qcow2':
      return 'image-corrupt'
    default:
      return 'image-unreadable'
  }
}
