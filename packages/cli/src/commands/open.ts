import { type ChainLayer, closeChain, type OpenChainOptions, openChain } from '@tidemark/qcow2'
import { fileOpener, type LockTable, readLocks } from '@tidemark/qcow2/node'
import { CommandError, UsageError } from '../errors.js'
import type { Output } from '../output.js'

export interface ShareOptions {
  /** Asked for before the command was loaded. */
  readonly locks: Promise<LockTable>
  readonly forceShare?: boolean
}

/**
 * Opens an image, with its chain if asked, uses it and closes it. An image that a writer holds is refused, as
 * qemu-img does, unless the user insists.
 *
 * @throws {CommandError} `image-in-use`
 */
export async function withChain<T>(
  file: string,
  options: ShareOptions & Pick<OpenChainOptions, 'topOnly' | 'engine'> & { readonly format?: string },
  output: Output,
  use: (layers: readonly [ChainLayer, ...ChainLayer[]]) => Promise<T>,
): Promise<T> {
  if (file === '') throw new UsageError('the name of the image is empty')
  const layers = await openChain(
    { name: file, format: options.format },
    { open: fileOpener({ blocking: true }), ...options },
  )
  try {
    for (const { filename, storage, format } of layers) {
      // A raw image has no metadata that could be torn; qemu-img takes it too.
      if (storage !== undefined && format !== 'raw') await refuseWriter(filename, options, output)
    }
    return await use(layers as [ChainLayer, ...ChainLayer[]])
  } finally {
    await closeChain(layers)
  }
}

async function refuseWriter(filename: string, options: ShareOptions, output: Output): Promise<void> {
  const { writer, known } = await readLocks(filename, options.locks)
  if (!known) output.warn(`/proc/locks cannot be read: whether a VM holds ${filename} is not known`)
  if (!writer) return
  if (!options.forceShare) {
    throw new CommandError(
      'image-in-use',
      `${filename} is in use: another process (a running VM?) may write to it. ` +
        'Its bitmaps on disk are not up to date; -U shows them all the same',
      { image: filename },
    )
  }
  output.warn(
    `${filename} is in use by a writer: what is shown may be torn, and its bitmaps on disk are not up to date`,
  )
}
