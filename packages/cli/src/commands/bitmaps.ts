import { access } from 'node:fs/promises'
import {
  type BitmapEngine,
  type BitmapSource,
  type ChainLayer,
  findBitmap,
  findingToError,
  openBitmap,
  Qcow2Error,
} from '@tidemark/qcow2'
import { CommandError } from '../errors.js'
import type { Output } from '../output.js'
import { type GateOptions, type Layers, type OpenOptions, type ShareOptions, withChain } from './open.js'

export interface BitmapOptions extends ShareOptions, GateOptions {
  readonly bitmap?: readonly string[]
  readonly backingChain?: boolean
  readonly force?: boolean
}

export interface BitmapUse {
  readonly engine: BitmapEngine
  /** FILE with its chain: its guest data are read, or what is said of them is looked at. */
  readonly chain?: 'tables' | 'data' | undefined
  /** A backing file's format may be found by looking. */
  readonly probe: boolean
}

/**
 * Opens FILE and the images that bitmaps are named of (NAME@OTHERFILE), uses the bitmaps and closes all, whatever
 * happens.
 *
 * @throws {CommandError} `bitmap-gap`; whatever opening an image or a bitmap throws
 */
export async function withBitmaps(
  file: string,
  options: BitmapOptions,
  { engine, chain, probe }: BitmapUse,
  output: Output,
  use: (layers: Layers, operands: readonly BitmapSource[][], opened: readonly ChainLayer[]) => Promise<void>,
): Promise<void> {
  const force = options.force === true
  // Not all options: --format is that of the output, not of the image.
  const open: OpenOptions = {
    locks: options.locks,
    forceShare: options.forceShare === true,
    probe,
    ...(options.backing === undefined ? {} : { backing: options.backing }),
    ...(options.allow === undefined ? {} : { allow: options.allow }),
    ...(options.mapSource === undefined ? {} : { mapSource: options.mapSource }),
  }
  const topOnly = options.backingChain !== true

  /** Opens the images that are named one inside the other, so that each is closed whatever happens. */
  const openAll = async (
    names: readonly string[],
    top: Layers,
    operands: readonly BitmapSource[][],
    opened: readonly ChainLayer[],
  ): Promise<void> => {
    const [name, ...rest] = names
    if (name === undefined) return use(top, operands, opened)
    const { bitmap, other } = await splitName(name, top)
    if (other === undefined) return openAll(rest, top, [...operands, sourcesOf(top, bitmap)], opened)
    await withChain(other, { ...open, topOnly }, output, async layers => {
      const sources = sourcesOf(readable(layers, force), bitmap)
      await openAll(rest, top, [...operands, sources], [...opened, ...layers])
    })
  }

  const sourcesOf = (layers: Layers, bitmap: string): BitmapSource[] => {
    const holders = options.backingChain ? layersWith(layers, bitmap, force, output) : [layers[0]]
    return holders.map(layer => {
      const inspection = layer.inspection!
      const found = findBitmap(inspection, bitmap)
      const stale = inspection.bitmapDirectory?.stale === true
      if (force && (found.inUse || stale)) {
        const state = stale ? 'stale' : 'inconsistent (in-use)'
        output.warn(`bitmap '${bitmap}' of ${layer.filename} is ${state}: what it says is clean may be dirty`)
      }
      return openBitmap(inspection, found, engine, { force })
    })
  }

  const own = { ...open, topOnly: topOnly && chain === undefined, ...(chain === 'data' && { reads: chain }) }
  await withChain(file, own, output, async layers =>
    openAll(options.bitmap ?? [], readable(layers, force), [], layers),
  )
}

/**
 * All layers qcow2, or raw at the bottom. A broken header is no ground to read bitmaps from; a malformed entry of
 * another bitmap does no harm.
 */
function readable(layers: Layers, force: boolean): Layers {
  for (const { problem, inspection, filename, depth, format } of layers) {
    if (problem !== undefined) throw problem
    const broken = inspection?.findings.find(
      ({ severity, structure, code }) =>
        severity === 'error' &&
        structure !== 'bitmap directory entry' &&
        !(force && code !== 'unsupported-feature'),
    )
    if (broken !== undefined) throw findingToError(filename, broken)
    if (inspection === undefined && depth === 0) {
      throw new Qcow2Error('not-qcow2', `${filename} is ${format}: only qcow2 images have bitmaps`, {
        image: filename,
      })
    }
  }
  return layers
}

/** NAME, or NAME@OTHERFILE; a bitmap whose own name has an @ comes first. */
async function splitName(name: string, [top]: Layers): Promise<{ bitmap: string; other?: string }> {
  const own = top.inspection?.bitmapDirectory?.bitmaps.some(bitmap => bitmap.name === name)
  const first = name.indexOf('@')
  if (own || first < 0) return { bitmap: name }
  for (let at = first; at >= 0; at = name.indexOf('@', at + 1)) {
    const other = name.slice(at + 1)
    if (
      other !== '' &&
      (await access(other).then(
        () => true,
        () => false,
      ))
    )
      return { bitmap: name.slice(0, at), other }
  }
  return { bitmap: name.slice(0, first), other: name.slice(first + 1) }
}

/**
 * The layers that hold a bitmap, top first. A layer without it above one with it has changes that nothing
 * recorded, so the bitmaps below do not tell the whole story.
 */
function layersWith(layers: Layers, bitmap: string, force: boolean, output: Output): ChainLayer[] {
  const holds = layers.map(
    layer => layer.inspection?.bitmapDirectory?.bitmaps.some(b => b.name === bitmap) === true,
  )
  // Throws with the names that there are.
  if (!holds[0] && !force) findBitmap(layers[0].inspection!, bitmap)
  const gap = holds.indexOf(false)
  const below = gap < 0 ? -1 : holds.indexOf(true, gap)
  if (below >= 0) {
    const message = `${layers[gap]!.filename} lacks bitmap '${bitmap}', which ${layers[below]!.filename} below it has: changes in between were not recorded`
    if (!force) throw new CommandError('bitmap-gap', message, { bitmap, layer: gap, below })
    output.warn(message)
  }
  const found = layers.filter((_, i) => holds[i])
  if (found.length === 0) findBitmap(layers[0].inspection!, bitmap)
  return found
}
