import {
  COMBINE_ARENA_BYTES,
  countDirty,
  createEngine,
  dirtyExtents,
  type ImageInspection,
  type MergeOperation,
  openDisk,
} from '@tidemark/qcow2'
import { dirtyStretches, nearOf } from '../dirty-data.js'
import { UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'
import { type Progress, startProgress } from '../progress.js'
import { diskMapWriter } from '../render/disk-map.js'
import { mapWriter } from '../render/map.js'
import { formatShare, formatSize } from '../units.js'
import { type BitmapOptions, withBitmaps } from './bitmaps.js'
import { gate, withChain } from './open.js'

export interface MapOptions extends BitmapOptions {
  readonly op?: MergeOperation
  readonly granularity?: number
  readonly format?: 'json' | 'ndjson'
  readonly count?: boolean
  readonly dirty?: boolean
  readonly withData?: boolean
  readonly snapshot?: string
  readonly progress?: boolean
}

/** `tidemark map`: the extents of bitmaps, combined; without a bitmap, what the disk's parts are and where. */
export async function map(file: string, options: MapOptions, output: Output): Promise<ExitStatus> {
  refuseNonsense(file, options)
  if (options.bitmap === undefined) await mapDisk(file, options, output)
  else await mapBitmaps(file, options, output)
  return exitStatus.ok
}

/** @throws {UsageError} for options that say nothing about what is asked for */
function refuseNonsense(file: string, options: MapOptions): void {
  const { bitmap, snapshot, backing, backingChain, count, withData } = options
  if (bitmap === undefined) {
    const needy = [
      ['--op', options.op],
      ['--granularity', options.granularity],
      ['--count', count],
      ['--dirty', options.dirty],
      ['--with-data', withData],
      ['--force', options.force],
      ['--backing-chain', backingChain],
    ] as const
    for (const [name, value] of needy) {
      if (value === undefined) continue
      const chain = name === '--backing-chain' ? ' (the map of a disk is that of its chain anyway)' : ''
      throw new UsageError(
        `${name} is for bitmaps: give --bitmap NAME${chain}; tidemark info ${file} lists them`,
      )
    }
    return
  }
  if (snapshot !== undefined) {
    throw new UsageError('a bitmap tells of the disk as it is now, not as in a snapshot: give one of them')
  }
  if (backingChain && backing === false) {
    throw new UsageError('--backing-chain needs the images that --no-backing keeps closed: give one of them')
  }
  if (count && withData)
    throw new UsageError('--count says how much, not where: --with-data adds nothing to it')
}

const formatOf = ({ format }: MapOptions, output: Output) =>
  format ?? (output.format === 'json' ? 'json' : 'text')

/** As `qemu-img map`. */
async function mapDisk(file: string, options: MapOptions, output: Output): Promise<void> {
  const { snapshot } = options
  await withChain(file, { ...options, reads: 'tables' }, output, async layers => {
    const disk = await openDisk(layers, { open: gate(options), snapshot })
    let progress: Progress | undefined
    try {
      const writer = diskMapWriter(formatOf(options, output), layers, disk.size, output)
      progress = progressOf(disk.size, options, output)
      await writer.begin()
      for await (const extents of disk.extents()) {
        await writer.extents(extents)
        progress?.at(extents.at(-1)!.start)
      }
      await writer.end()
    } finally {
      progress?.end()
      await disk.close()
    }
  })
}

async function mapBitmaps(file: string, options: MapOptions, output: Output): Promise<void> {
  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
  const use = { engine, chain: options.withData ? ('tables' as const) : undefined, probe: true }
  await withBitmaps(file, options, use, output, async (layers, operands) => {
    const combine = {
      operation: options.op ?? 'union',
      ...(options.granularity && { granularity: options.granularity }),
    }
    const image = layers[0].inspection!
    if (options.count) return writeCount(await countDirty(engine, operands, combine), image, output)
    const size = image.virtualSize
    const writer = mapWriter(formatOf(options, output), size, options, output)
    const dirty = dirtyExtents(engine, operands, combine)
    const progress = progressOf(size, options, output)
    const disk = options.withData ? await openDisk(layers, { open: gate(options) }) : undefined
    try {
      await writer.begin()
      if (disk === undefined) {
        for await (const chunk of dirty) {
          await writer.extents(chunk)
          progress?.at(chunk.at(-1)!)
        }
      } else {
        for await (const stretches of dirtyStretches(disk, dirty, { start: 0, end: size }, nearOf(image))) {
          await writer.stretches(stretches)
          progress?.at(stretches.at(-1)!.start)
        }
      }
      await writer.end()
    } finally {
      progress?.end()
      await disk?.close()
    }
  })
}

/** A map on the terminal shows itself how far it is. */
function progressOf(size: number, options: MapOptions, output: Output): Progress | undefined {
  return process.stdout.isTTY ? undefined : startProgress(size, options, output)
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
