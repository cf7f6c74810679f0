import { statSync } from 'node:fs'
import {
  autoclear,
  findingToError,
  type ImageInspection,
  type ImageStorage,
  inspectImage,
  Qcow2Error,
  type WritableStorage,
} from '@tidemark/qcow2'
import { openFile, openHeldFile, openWritableFile, readLocks } from '@tidemark/qcow2/node'
import { CommandError } from '../errors.js'
import type { Output } from '../output.js'
import type { EditOpenOptions } from './options.js'

/**
 * Opens the image to be edited, and holds it. For a dry run it is opened for reading, no lock is taken, and what
 * writes to it fails.
 *
 * @throws {CommandError} `lock-unavailable` with what to do about it, `image-locked`
 */
export async function openTarget(
  file: string,
  options: EditOpenOptions,
  output: Output,
): Promise<WritableStorage> {
  if (options.dryRun) {
    const storage = await openFile(file, { blocking: true })
    try {
      await refuseWriter(file, options, output)
      return readOnly(storage, statSync(file).isFile())
    } catch (error) {
      await storage.close()
      throw error
    }
  }
  try {
    return heedful(await openWritableFile(file, { blocking: true }))
  } catch (error) {
    const { code, details } = error as Partial<Qcow2Error>
    if (code !== 'lock-unavailable') throw error
    const why = String(details?.why)
    if (options.unsafeNoLock) {
      const storage = await openWritableFile(file, { blocking: true, lock: 'none' })
      output.warn(`no lock is held on ${file} (${why}): a VM that starts now destroys what is written`)
      return heedful(storage)
    }
    throw new CommandError(
      'lock-unavailable',
      `${file} cannot be locked against a VM that starts meanwhile: ${why}. ` +
        'Install koffi (npm install koffi), or give --unsafe-no-lock when no VM can be using the image',
      { ...details },
    )
  }
}

/** After each flush signals get their turn: on this thread no write gives them one, and the next step may be too late. */
function heedful(storage: WritableStorage): WritableStorage {
  const flush = storage.flush.bind(storage)
  storage.flush = async () => {
    await flush()
    await new Promise(resolve => setImmediate(resolve))
  }
  return storage
}

/**
 * Opens the image that bitmaps are merged from, for reading, and holds it against writers; undefined where it is the
 * target itself, by whatever name.
 *
 * @throws {Qcow2Error} `image-locked`; for an image whose bitmaps cannot be relied on
 */
export async function openSource(
  file: string,
  target: ImageStorage,
  options: EditOpenOptions,
  output: Output,
): Promise<ImageInspection | undefined> {
  let storage = await openFile(file, { blocking: true })
  try {
    if (storage.identity === target.identity) {
      await storage.close()
      return undefined
    }
    if (options.dryRun) await refuseWriter(file, options, output)
    else storage = await held(storage, options, output)
    const image = await inspectImage(storage)
    const broken = image.findings.find(
      // One malformed entry does no harm to the others.
      ({ severity, structure }) => severity === 'error' && structure !== 'bitmap directory entry',
    )
    if (broken !== undefined) throw findingToError(file, broken)
    if ((image.header.autoclearFeatures & autoclear.unfinishedEdit) !== 0n) {
      throw new Qcow2Error(
        'cannot-edit',
        `${file}: an edit of several images, of which it is one, was cut off: tidemark recover JOURNAL ends that`,
        { image: file, reason: 'unfinished-edit' },
      )
    }
    if (image.bitmapDirectory?.stale) {
      throw new Qcow2Error(
        'bitmaps-stale',
        `the bitmaps of ${file} are stale: a program that does not know bitmaps wrote to it`,
        { image: file },
      )
    }
    return image
  } catch (error) {
    await storage.close()
    throw error
  }
}

/**
 * The same once more, held. Where no lock can be had it stays as it is: who writes to it by now is refused, and who
 * comes later is noticed before the switch.
 */
async function held(storage: ImageStorage, options: EditOpenOptions, output: Output): Promise<ImageStorage> {
  try {
    const same = await openHeldFile(storage.name, { blocking: true })
    await storage.close()
    return same
  } catch (error) {
    if ((error as Partial<Qcow2Error>).code !== 'lock-unavailable') throw error
    await refuseWriter(storage.name, options, output)
    return storage
  }
}

async function refuseWriter(file: string, { forceShare }: EditOpenOptions, output: Output): Promise<void> {
  const { writer, known } = await readLocks(file)
  if (!known) output.warn(`/proc/locks cannot be read: whether a VM holds ${file} is not known`)
  if (!writer) return
  if (!forceShare) {
    throw new CommandError(
      'image-locked',
      `${file}: another process (a running VM?) has it open for writing`,
      {
        image: file,
        use: 'written',
      },
    )
  }
  output.warn(`${file} is in use by a writer: what is planned may be wrong by then, and it will be refused`)
}

/** What writes to it fails: for a dry run. */
export function readOnly(storage: ImageStorage, resizable: boolean): WritableStorage {
  const refuse = async () => {
    throw new Error('a dry run writes nothing')
  }
  const { nearBytes, allocatedBytes } = storage
  return {
    name: storage.name,
    size: storage.size,
    identity: storage.identity,
    ...(nearBytes === undefined ? {} : { nearBytes }),
    ...(allocatedBytes === undefined ? {} : { allocatedBytes }),
    resizable,
    readInto: (target, offset, options) => storage.readInto(target, offset, options),
    close: () => storage.close(),
    writeFrom: refuse,
    flush: refuse,
    resize: refuse,
    discard: refuse,
  }
}
