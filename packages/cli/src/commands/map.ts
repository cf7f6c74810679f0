import { access } from 'node:fs/promises'
import {
  type BitmapSource,
  type ChainLayer,
  COMBINE_ARENA_BYTES,
  countDirty,
  createEngine,
  dirtyExtents,
  findBitmap,
  findingToError,
  type ImageInspection,
  type MergeOperation,
  openBitmap,
  Qcow2Error,
} from '@tidemark/qcow2'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'
import { mapWriter } from '../render/map.js'
import { formatShare, formatSize } from '../units.js'
import { type ShareOptions, withChain } from './open.js'

export interface MapOptions extends ShareOptions {
  readonly bitmap?: readonly string[]
  readonly op: MergeOperation
  readonly granularity?: number
  readonly backingChain?: boolean
  readonly format?: 'json' | 'ndjson'
  readonly count?: boolean
  readonly dirty?: boolean
  readonly force?: boolean
}

type Layers = readonly [ChainLayer, ...ChainLayer[]]

/** `tidemark map`: the extents of bitmaps, combined. */
export async function map(file: string, options: MapOptions, output: Output): Promise<ExitStatus> {
  const { bitmap: names } = options
  if (names === undefined)
    throw new UsageError(`which bitmap? Give --bitmap NAME (see tidemark info ${file})`)
  // Not all options: --format is that of the output, not of the image.
  const share = {
    locks: options.locks,
    forceShare: options.forceShare === true,
    topOnly: !options.backingChain,
  }
  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })

  /** Opens the images that are named one inside the other, so that each is closed whatever happens. */
  const openAll = async (
    names: readonly string[],
    top: Layers,
    operands: BitmapSource[][],
  ): Promise<void> => {
    const [name, ...rest] = names
    if (name === undefined) return write(top[0].inspection!, operands)
    const { bitmap, other } = await splitName(name, top)
    const add = async (layers: Layers) => {
      const sources = sourcesOf(layers, bitmap)
      await openAll(rest, top, [...operands, sources])
    }
    if (other === undefined) await add(top)
    else await withChain(other, share, output, async layers => add(readable(layers, options.force === true)))
  }

  const sourcesOf = (layers: Layers, bitmap: string): BitmapSource[] => {
    const holders = options.backingChain
      ? layersWith(layers, bitmap, options.force === true, output)
      : [layers[0]]
    return holders.map(layer => {
      const inspection = layer.inspection!
      const found = findBitmap(inspection, bitmap)
      const stale = inspection.bitmapDirectory?.stale === true
      if (options.force && (found.inUse || stale)) {
        const state = stale ? 'stale' : 'inconsistent (in-use)'
        output.warn(`bitmap '${bitmap}' of ${layer.filename} is ${state}: what it says is clean may be dirty`)
      }
      return openBitmap(inspection, found, engine, { force: options.force === true })
    })
  }

  const write = async (image: ImageInspection, operands: readonly BitmapSource[][]): Promise<void> => {
    const combine = {
      operation: options.op,
      ...(options.granularity && { granularity: options.granularity }),
    }
    if (options.count) return writeCount(await countDirty(engine, operands, combine), image, output)
    const format = options.format ?? (output.format === 'json' ? 'json' : 'text')
    const writer = mapWriter(format, image.virtualSize, options.dirty === true, output)
    await writer.begin()
    for await (const chunk of dirtyExtents(engine, operands, combine)) await writer.extents(chunk)
    await writer.end()
  }

  await withChain(file, share, output, async layers =>
    openAll(names, readable(layers, options.force === true), []),
  )
  return exitStatus.ok
}

/** How much, without where: no extent has to be made or written. */
async function writeCount(
  { granules, granularity, bytes }: { granules: number; granularity: number; bytes: number },
  { virtualSize }: ImageInspection,
  output: Output,
): Promise<void> {
  if (output.format === 'json') return output.json({ count: granules, granularity, 'dirty-bytes': bytes })
  const share = formatShare(bytes, virtualSize)
  await output.write(`${formatSize(bytes)} dirty of ${formatSize(virtualSize)} (${share})\n`)
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
