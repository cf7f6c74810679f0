import { existsSync } from 'node:fs'
import { mapSource } from '@tidemark/planner/node'
import { type ChainLayer, closeChain, type OpenChainOptions, openChain, Qcow2Error } from '@tidemark/qcow2'
import { type FileOpenerOptions, fileOpener, type LockTable, readLocks } from '@tidemark/qcow2/node'
import { mapRule } from '../domain-options.js'
import { CommandError, UsageError } from '../errors.js'
import type { Output } from '../output.js'

export interface ShareOptions {
  /** Asked for before the command was loaded. */
  readonly locks: Promise<LockTable>
  readonly forceShare?: boolean
}

/** What an image may refer to: see {@link fileOpener}. */
export interface GateOptions {
  /** False: nothing but the image itself is opened. */
  readonly backing?: boolean
  readonly allow?: readonly string[]
  readonly probe?: boolean
  /** `OLD=NEW`: where the images are now that others refer to. */
  readonly mapSource?: readonly string[]
}

export interface OpenOptions extends ShareOptions, GateOptions, Pick<OpenChainOptions, 'topOnly' | 'engine'> {
  /** What is done with it: guest data change under a reader in a raw image too. Default: bitmaps are read. */
  readonly reads?: 'tables' | 'data'
}

export type Layers = readonly [ChainLayer, ...ChainLayer[]]

/** The gate for what images refer to. @throws {UsageError} for options that contradict each other */
export function gate({ backing, allow, mapSource: texts = [] }: GateOptions): OpenChainOptions['open'] {
  if (backing === false && allow !== undefined) {
    throw new UsageError('--no-backing opens nothing that --allow could allow: give one of them')
  }
  if (allow?.includes('')) throw new UsageError('--allow needs the name of a folder')
  const options: FileOpenerOptions = {
    references: backing === false ? 'none' : (allow ?? 'local'),
    blocking: true,
  }
  if (texts.length === 0) return fileOpener(options)
  const rules = texts.map(mapRule)
  const plain = fileOpener(options)
  const mapped = fileOpener({ ...options, mapPath: path => mapSource(rules, path) })
  // What is named on the command line is where it says.
  return async (path, reference) => (reference.from === undefined ? plain : mapped)(path, reference)
}

/**
 * Opens an image, with its chain if asked, uses it and closes it. An image that a writer holds is refused, as
 * qemu-img does, unless the user insists.
 *
 * @throws {CommandError} `image-in-use`
 */
export async function withChain<T>(
  file: string,
  options: OpenOptions,
  output: Output,
  use: (layers: Layers) => Promise<T>,
): Promise<T> {
  if (file === '') throw new UsageError('the name of the image is empty')
  const layers = await openChain(
    { name: file },
    {
      open: gate(options),
      probe: options.probe === true,
      topOnly: options.topOnly === true || options.backing === false,
      ...(options.engine && { engine: options.engine }),
    },
  )
  try {
    for (const { filename, storage, format, inspection } of layers) {
      // A raw image has no metadata that could be torn: qemu-img info and map take it, convert does not.
      if (storage !== undefined && (format !== 'raw' || options.reads === 'data')) {
        await refuseWriter(filename, options, output)
      }
      // Where the guest's data are is what a writer has open too. That it is missing is told where it is opened.
      if (options.reads === 'data' && inspection?.dataFile && existsSync(inspection.dataFile)) {
        await refuseWriter(inspection.dataFile, options, output)
      }
    }
    return await use(layers.map(layer => withHint(layer, options)) as [ChainLayer, ...ChainLayer[]])
  } finally {
    await closeChain(layers)
  }
}

/** Says which option would have opened it. */
function withHint(layer: ChainLayer, { allow, probe }: GateOptions): ChainLayer {
  const { problem, storage, format } = layer
  if (problem?.code !== 'reference-denied') return layer
  const { reference, allowed } = problem.details
  // Its file is open, its format not known: it could have been looked at.
  const hint =
    storage !== undefined && format === 'unknown' && !probe
      ? '; --probe looks all the same'
      : allow !== undefined && allowed !== undefined
        ? `; another --allow DIR adds a folder`
        : ''
  if (hint === '' || reference === undefined) return layer
  return { ...layer, problem: new Qcow2Error(problem.code, problem.message + hint, problem.details) }
}

async function refuseWriter(filename: string, options: OpenOptions, output: Output): Promise<void> {
  const { writer, known } = await readLocks(filename, options.locks)
  if (!known) output.warn(`/proc/locks cannot be read: whether a VM holds ${filename} is not known`)
  if (!writer) return
  if (!options.forceShare) {
    const why =
      options.reads === undefined
        ? 'Its bitmaps on disk are not up to date; -U shows them all the same'
        : 'What is read may be torn; -U reads it all the same'
    throw new CommandError(
      'image-in-use',
      `${filename} is in use: another process (a running VM?) may write to it. ${why}`,
      { image: filename },
    )
  }
  output.warn(
    `${filename} is in use by a writer: what is shown may be torn, and its bitmaps on disk are not up to date`,
  )
}
