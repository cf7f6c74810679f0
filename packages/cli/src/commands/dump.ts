import {
  type ChainLayer,
  COMBINE_ARENA_BYTES,
  createEngine,
  dirtyExtents,
  type GuestDisk,
} from '@tidemark/qcow2'
import { dirtyStretches, nearOf } from '../dirty-data.js'
import { type ByteRange, type Copied, copyStretches } from '../dump/copy.js'
import { openOut, stdoutTarget } from '../dump/out.js'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'
import { startProgress } from '../progress.js'
import { formatSize } from '../units.js'
import { type BitmapOptions, withBitmaps } from './bitmaps.js'
import { type GuestDataOptions, openData } from './guest-disk.js'
import { type Layers, withChain } from './open.js'

export interface DumpOptions extends BitmapOptions, GuestDataOptions {
  readonly out?: string
  readonly offset?: number
  readonly length?: number
  readonly progress?: boolean
  /** False: as soon as the kernel has it. */
  readonly sync?: boolean
}

/** Extents that a bitmap marks; undefined: all. */
type Dirty = (() => AsyncIterable<Float64Array>) | undefined

/** `tidemark dump`: guest data as raw. */
export async function dump(file: string, options: DumpOptions, output: Output): Promise<ExitStatus> {
  const { bitmap, snapshot, force, out } = options
  if ((out === undefined || out === '-') && process.stdout.isTTY) {
    throw new UsageError(
      'guest data are nothing for a terminal: give -o OUT, or send them into a file or a pipe',
    )
  }
  if (bitmap !== undefined && snapshot !== undefined) {
    throw new UsageError('a bitmap tells of the disk as it is now, not as in a snapshot: give one of them')
  }
  if (force && bitmap === undefined) throw new UsageError('--force is for bitmaps: give --bitmap NAME')
  if (bitmap === undefined) {
    await withChain(file, { ...options, reads: 'data' }, output, async layers =>
      dumpDisk(layers, layers, undefined, options, output),
    )
  } else {
    const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
    const use = { engine, chain: 'data' as const, probe: options.probe === true }
    await withBitmaps(file, options, use, output, async (layers, operands, opened) =>
      dumpDisk(layers, opened, () => dirtyExtents(engine, operands), options, output),
    )
  }
  return exitStatus.ok
}

/** @param images all that are open: none may be written over */
async function dumpDisk(
  layers: Layers,
  images: readonly ChainLayer[],
  dirty: Dirty,
  options: DumpOptions,
  output: Output,
): Promise<void> {
  const out = options.out === '-' ? undefined : options.out
  const { locks } = options
  const [{ filename }] = layers
  const disk = await openData(layers, options, disk => rangeOf(disk, options, filename))
  try {
    const { size } = disk
    const range = rangeOf(disk, options, filename)
    const { start, end } = range
    const partial = dirty !== undefined || start > 0 || end < size
    const target =
      out === undefined
        ? stdoutTarget(output, images)
        : await openOut(out, { size, images, locks, partial, sync: options.sync !== false })
    const progress = startProgress(end - start, options, output)
    try {
      const stretches =
        dirty === undefined
          ? disk.extents(start, end - start)
          : dirtyStretches(disk, dirty(), range, nearOf(layers[0].inspection!))
      const copied = await copyStretches(disk, range, stretches, target, (position, { written }) =>
        progress?.at(position - start, written),
      )
      await target.finish()
      progress?.end()
      await tell({ filename, size, range, out, ...copied }, output)
    } catch (error) {
      target.discard()
      throw error
    } finally {
      progress?.end()
    }
  } finally {
    await disk.close()
  }
}

/** @throws {CommandError} `range-past-end`: fewer bytes than asked for would be a wrong answer without a word */
function rangeOf({ size }: GuestDisk, { offset = 0, length }: DumpOptions, filename: string): ByteRange {
  const end = length === undefined ? size : offset + length
  if (offset > size || end > size) {
    const what = length === undefined ? `offset ${offset}` : `${length} bytes at ${offset}`
    throw new CommandError(
      'range-past-end',
      `${what}: past the end of ${filename}, a disk of ${size} bytes`,
      {
        image: filename,
        size,
        offset,
        ...(length === undefined ? {} : { length }),
      },
    )
  }
  return { start: offset, end }
}

interface Told extends Copied {
  readonly filename: string
  readonly size: number
  readonly range: ByteRange
  readonly out: string | undefined
}

/** What was done: for programs where stdout is free for it, for people on a terminal. */
async function tell({ filename, size, range, out, written, zeros }: Told, output: Output): Promise<void> {
  if (out !== undefined && output.format === 'json') {
    await output.json({
      filename,
      out,
      'virtual-size': size,
      offset: range.start,
      length: range.end - range.start,
      'bytes-written': written,
      'zero-bytes': zeros,
    })
  }
  output.note(`${formatSize(written)} written, ${formatSize(zeros)} zeros`)
}
