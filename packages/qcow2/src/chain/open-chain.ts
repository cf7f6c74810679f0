import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import { Qcow2Error, UnsupportedFeatureError } from '../errors.js'
import { type ImageInspection, inspectImage } from '../image/inspect.js'
import type { ImageStorage } from '../storage/storage.js'
import { parseBackingName } from './backing-name.js'
import { probeFormat } from './probe.js'

/** libvirt refuses longer chains. */
const MAX_DEPTH = 200

/** A reference to an image: by the caller for the top, by the image above for the others. */
export interface ImageReference {
  /** The name as the referring image or the caller has it. */
  readonly name: string
  /** Undefined: not said, and so found out by looking (see `openChain`). */
  readonly format: string | undefined
  /** The layer that refers to it; undefined for the top. */
  readonly from: ChainLayer | undefined
  /** What it is to be (default: `backing`, or the top itself). */
  readonly use?: 'data-file'
  /** The name is a path whatever it looks like: the caller's, not one from an image. */
  readonly plain?: boolean
}

/**
 * Opens what an image refers to, or denies it. The gate of a chain: nothing is opened but through it.
 *
 * @throws {Qcow2Error} `reference-denied`, `image-missing`, `read-failed`
 */
export type ImageOpener = (path: string, reference: ImageReference) => Promise<OpenedImage>

export interface OpenedImage {
  readonly storage: ImageStorage
  /** The path that was opened. */
  readonly filename: string
  /** The same before any mapping: what the image above means by the name. */
  readonly namedAs: string
}

/** One image of a backing chain, top first. */
export interface ChainLayer {
  readonly depth: number
  readonly filename: string
  readonly namedAs: string
  /** `qcow2`, `raw`, or another format's name, which is not read. */
  readonly format: string
  readonly storage: ImageStorage | undefined
  /** Set for qcow2. */
  readonly inspection: ImageInspection | undefined
  /** Why this layer, and so what lies below it, could not be read. */
  readonly problem: Qcow2Error | undefined
}

export interface OpenChainOptions {
  readonly open: ImageOpener
  readonly engine?: BitmapEngine
  /** Only the top, without what it refers to. */
  readonly topOnly?: boolean
  /**
   * What lies below the top, as paths, instead of what the images themselves say: a domain's `<backingStore>`
   * overrules them in libvirt. An empty name is something that is no local file.
   */
  readonly backing?: readonly { readonly name: string; readonly format: string | undefined }[] | undefined
  /** After the last of `backing` the image itself says what comes next. Default: the chain ends there. */
  readonly backingGoesOn?: boolean
  /**
   * A backing file's format may be found by looking into it, where the image above does not say it. The default is to
   * deny: a guest can write an image's header into its raw disk, and choose with it what its host reads.
   */
  readonly probe?: boolean
}

/**
 * Opens a backing chain, top first. What cannot be opened becomes the last layer, with its `problem`: the layers
 * above it are still there. A format that nobody names is looked for in the file; a qcow2 found that way must not
 * refer to a backing file, since a guest can write a header into its raw disk.
 */
export async function openChain(
  top: { name: string; format?: string | undefined },
  options: OpenChainOptions,
): Promise<ChainLayer[]> {
  const layers: ChainLayer[] = []
  const seen = new Set<string>()
  let next: ImageReference | undefined = { name: top.name, format: top.format, from: undefined }
  try {
    while (next !== undefined) {
      const layer: ChainLayer = await openLayer(next, layers.length, seen, options)
      layers.push(layer)
      next = options.topOnly ? undefined : backingOf(layer, options)
    }
    return layers
  } catch (error) {
    await closeChain(layers)
    throw error
  }
}

/** Closes the storages of all layers. */
export async function closeChain(layers: readonly ChainLayer[]): Promise<void> {
  await Promise.all(layers.map(layer => layer.storage?.close()))
}

function backingOf(layer: ChainLayer, options: OpenChainOptions): ImageReference | undefined {
  if (layer.problem !== undefined) return undefined
  const below = options.backing?.[layer.depth]
  if (below !== undefined) return { ...below, from: layer, plain: true }
  if (options.backing !== undefined && !options.backingGoesOn) return undefined
  const name = layer.inspection?.backingFile
  if (name === undefined || name === '') return undefined
  // The header's extension overrules what a json: name says, as in QEMU.
  const named = parseBackingName(name)
  const format = layer.inspection?.backingFormat ?? (named.kind === 'path' ? named.format : undefined)
  return { name, format, from: layer }
}

async function openLayer(
  reference: ImageReference,
  depth: number,
  seen: Set<string>,
  options: OpenChainOptions,
): Promise<ChainLayer> {
  const base = {
    depth,
    filename: reference.name,
    namedAs: reference.name,
    format: reference.format ?? 'unknown',
  }
  const failed = (problem: unknown, more: Partial<ChainLayer> = {}): ChainLayer => {
    if (!(problem instanceof Qcow2Error)) throw problem
    return { ...base, storage: undefined, inspection: undefined, ...more, problem }
  }
  if (depth >= MAX_DEPTH) {
    return failed(new Qcow2Error('corrupt-image', `the backing chain is longer than ${MAX_DEPTH} images`))
  }
  const named =
    reference.from === undefined || reference.plain
      ? { kind: 'path' as const, path: reference.name }
      : parseBackingName(reference.name)
  if (reference.plain && reference.name === '') {
    const message = `what lies below ${reference.from?.filename} is no local file`
    return failed(new Qcow2Error('reference-denied', message))
  }
  if (named.kind === 'other') {
    const message = `backing file ${named.description} of ${reference.from?.filename} is no local file`
    return failed(new Qcow2Error('reference-denied', message, { reference: reference.name }))
  }
  let opened: OpenedImage
  try {
    opened = await options.open(named.path, reference)
  } catch (error) {
    return failed(error)
  }
  const { storage, filename, namedAs } = opened
  const place = { filename, namedAs, storage }
  if (seen.has(storage.identity)) {
    const message = `${filename} is its own backing file: the chain is circular`
    return failed(new Qcow2Error('corrupt-image', message, { cycle: true }), place)
  }
  seen.add(storage.identity)
  try {
    if (reference.format === undefined && reference.from !== undefined && !options.probe) {
      const message =
        `${reference.from.filename} does not say which format its backing file ${filename} has, and it may not be ` +
        'found by looking (qemu-img rebase -u -F says it)'
      return failed(new Qcow2Error('reference-denied', message, { reference: reference.name }), place)
    }
    const format = reference.format ?? (await probeFormat(storage))
    if (format !== 'qcow2') {
      const problem = depth > 0 && !endsChain.has(format) ? unreadableFormat(filename, format) : undefined
      return { ...base, ...place, format, inspection: undefined, problem }
    }
    const inspection = await inspectImage(storage, options.engine)
    if (
      reference.format === undefined &&
      reference.from !== undefined &&
      (inspection.backingFile ?? inspection.dataFile) !== undefined
    ) {
      const message =
        `${reference.from.filename} does not say which format its backing file ${filename} has; it looks like ` +
        'qcow2 that refers to another file, which is not followed (qemu-img rebase -u -F can say the format)'
      return failed(new Qcow2Error('reference-denied', message, { reference: reference.name }), {
        ...place,
        format,
      })
    }
    return { ...base, ...place, format, inspection, problem: undefined }
  } catch (error) {
    return failed(error, { ...place, format: reference.format ?? 'qcow2' })
  }
}

/** QEMU's formats of which a layer has neither bitmaps nor a qcow2 image below it: the chain ends there, whole. */
const endsChain = new Set('raw vmdk vdi vhdx vpc luks parallels dmg bochs cloop'.split(' '))

/** What lies below such an image is not known, so nothing may be said of the chain as a whole. */
function unreadableFormat(filename: string, format: string): Qcow2Error {
  return new UnsupportedFeatureError(filename, `format '${format}' in a backing chain`)
}
