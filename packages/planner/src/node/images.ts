import { type BitmapEngine, type ChainLayer, closeChain, type ImageOpener, openChain } from '@tidemark/qcow2'
import { fileOpener, readLockTable } from '@tidemark/qcow2/node'
import type { DomainDisk, DomainFacts, LayerFacts } from '../facts.js'
import { identifyFiles } from './file-ids.js'
import { type FactsOptions, layerFacts } from './layer-facts.js'
import { type MapRule, mapSource } from './map-source.js'
import { withOwnBacking } from './own-backing.js'

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
    const reading = { engine: options.engine, locks, open: opener(options), rules: options.mapRules ?? [] }
    for (const disk of domain.disks) {
      const opened = layers.get(disk.target)
      if (opened !== undefined) chains.set(disk.target, await allFacts(opened, disk, reading))
    }
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

function opener({ mapRules = [], blocking = false }: OpenImagesOptions): ImageOpener {
  return fileOpener({ references: 'local', mapPath: path => mapSource(mapRules, path), blocking })
}

async function openDiskChain(disk: DomainDisk, options: OpenImagesOptions): Promise<ChainLayer[]> {
  // Without <driver type> libvirt takes a disk for raw, whatever it holds. An explicit <backingStore> overrules
  // what the images say.
  const backing = disk.backingStore?.map(({ type, source, format }) => ({
    name: type === 'file' || type === 'block' ? (source ?? '') : '',
    format,
  }))
  return openChain(
    { name: disk.source!, format: disk.format ?? 'raw' },
    {
      open: opener(options),
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
  disk: DomainDisk,
  options: FactsOptions & { readonly rules: readonly MapRule[] },
): Promise<LayerFacts[]> {
  const facts: LayerFacts[] = []
  for (const layer of layers) facts.push(await layerFacts(layer, options))
  return disk.backingStore === undefined ? facts : withOwnBacking(disk, layers, facts, options.rules)
}
