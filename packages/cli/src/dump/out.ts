import {
  accessSync,
  constants,
  fstatSync,
  lstatSync,
  readlinkSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { ChainLayer } from '@tidemark/qcow2'
import { type LockTable, openFile, readLocks } from '@tidemark/qcow2/node'
import { CommandError, UsageError } from '../errors.js'
import type { Output } from '../output.js'
import { fileTarget } from './file-target.js'
import { placeTarget, writeZeros } from './place-target.js'
import type { DumpTarget } from './target.js'
import { writeError } from './write-error.js'

export interface OutOptions {
  /** Of the disk, in bytes. */
  readonly size: number
  /** Images that are read: none of them may be written over. */
  readonly images: readonly ChainLayer[]
  readonly locks: Promise<LockTable>
  /** Only parts are written: not where there cannot be holes for the rest. */
  readonly partial: boolean
  /** Wait until all is on the disk. */
  readonly sync: boolean
}

/**
 * Opens the place that the user names, when all that speaks against it has been looked at.
 *
 * @throws {CommandError} `write-failed`, `image-in-use`
 * @throws {UsageError} where it is no place for this
 */
export async function openOut(
  out: string,
  { size, images, locks, partial, sync }: OutOptions,
): Promise<DumpTarget> {
  const before = lookAt(out)
  if (before === undefined) return fileTarget(behindLinks(out), { size, before, sync })
  refuseImage(out, before, images)
  if (before.isFile() || before.isBlockDevice()) {
    if ((await readLocks(out, locks)).writer) {
      throw new CommandError(
        'image-in-use',
        `${out} is in use: another process (a running VM?) writes to it`,
        { out },
      )
    }
  }
  if (before.isFile()) {
    try {
      accessSync(out, constants.W_OK)
    } catch (cause) {
      throw writeError(out, cause)
    }
    return fileTarget(realpathSync(out), { size, before, sync })
  }
  if (before.isBlockDevice()) {
    if (partial) {
      throw new UsageError(
        `${out} is a block device, which has no holes for what is left out: give a file, or no -o`,
      )
    }
    const device = await openFile(out)
    await device.close()
    if (device.size < size) {
      const message = `cannot write ${out}: it has ${device.size} bytes, the disk ${size}`
      throw new CommandError('write-failed', message, { out, size: device.size })
    }
    return placeTarget(out, 'block', sync)
  }
  if (before.isFIFO() || before.isCharacterDevice()) return placeTarget(out, 'stream', sync)
  const what = before.isDirectory() ? 'a folder' : 'neither a file, a device nor a pipe'
  throw new CommandError('write-failed', `cannot write ${out}: it is ${what}`, { out })
}

/** @throws {CommandError} when what is written goes into one of the images that are read */
export function stdoutTarget(output: Output, images: readonly ChainLayer[]): DumpTarget {
  refuseImage('to standard output', fstatSync(1), images)
  const write = (bytes: Buffer) => output.writeBytes(bytes)
  return {
    write,
    zeros: (position, length) => writeZeros(write, position, length),
    finish: () => output.flush(),
    discard() {},
  }
}

function lookAt(out: string): Stats | undefined {
  if (out === '') throw new UsageError('the name of the file to write is empty')
  try {
    return statSync(out)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw writeError(out, cause)
  }
}

/** Where a file is to be made for a symbolic link that leads nowhere yet. */
function behindLinks(out: string): string {
  let path = out
  for (let links = 0; links < 40; links++) {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return path
    path = resolve(dirname(path), readlinkSync(path))
  }
  return path
}

/** An image under all its names: links to it are it. */
function refuseImage(out: string, stat: Stats, images: readonly ChainLayer[]): void {
  const identity = identityOf(stat)
  for (const { filename, storage, inspection } of images) {
    const dataFile = inspection?.dataFile
      ? statSync(inspection.dataFile, { throwIfNoEntry: false })
      : undefined
    if (identity === storage?.identity || (dataFile !== undefined && identity === identityOf(dataFile))) {
      const what = filename === out ? 'an image' : `${filename}, an image`
      throw new CommandError('write-failed', `cannot write ${out}: it is ${what} that is read`, { out })
    }
  }
}

/** As ImageStorage has it. */
function identityOf(stat: Stats): string {
  return stat.isBlockDevice() ? `device ${stat.rdev}` : `${stat.dev}:${stat.ino}`
}
