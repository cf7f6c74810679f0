import type { ShareOptions } from '../commands/open.js'
import { UsageError } from '../errors.js'
import { parseGranularity } from '../units.js'

/** An action as it stands on the command line; all of them are on the one NAME. */
export type BitmapStep =
  | { readonly action: 'add' | 'remove' | 'clear' | 'enable' | 'disable' }
  | { readonly action: 'merge'; readonly source: string }
  | { readonly action: 'rename'; readonly to: string }

/** How images that are edited are opened. */
export interface EditOpenOptions extends Pick<ShareOptions, 'forceShare'> {
  readonly dryRun?: boolean
  readonly unsafeNoLock?: boolean
}

/** qemu-img's short options, and those that are ours. */
export interface BitmapEditOptions extends EditOpenOptions {
  /** In the order of the command line. */
  readonly steps: readonly BitmapStep[]
  readonly granularity?: number
  readonly b?: string
  readonly F?: string
  readonly f?: string
  readonly object?: string
  readonly imageOpts?: boolean
}

/** As qemu-img: 0 is the default one, hexadecimal numbers are numbers. */
export function parseAddGranularity(text: string): number {
  if (/^0x[0-9a-f]+$/i.test(text)) return parseAddGranularity(String(Number(text)))
  return /^0+$/.test(text) ? 0 : parseGranularity(text)
}

/** @throws {UsageError} for what qemu-img refuses too before it opens an image, and its options that are not ours */
export function checkBitmapOptions(file: string, name: string, options: BitmapEditOptions): void {
  const { steps, b, F, f } = options
  const has = (action: BitmapStep['action']) => steps.some(step => step.action === action)
  for (const [option, value] of [
    ['--object', options.object],
    ['--image-opts', options.imageOpts],
  ] as const) {
    if (value !== undefined) {
      throw new UsageError(`${option} is not supported: name a qcow2 file or a block device`)
    }
  }
  if (file === '') throw new UsageError('the name of the image is empty')
  if (name === '') throw new UsageError('the name of the bitmap is empty')
  if (steps.length === 0) {
    throw new UsageError(
      'do what? Give at least one of --add, --remove, --clear, --enable, --disable, --merge, --rename',
    )
  }
  if (options.granularity && !has('add')) throw new UsageError('-g is for --add')
  if (F !== undefined && b === undefined) throw new UsageError('-F is the format of -b FILE: give both')
  if (b !== undefined && !has('merge')) throw new UsageError('-b is the image that --merge merges from')
  if (b === '') throw new UsageError('the name of the image to merge from is empty')
  for (const [option, format] of [
    ['-f', f],
    ['-F', F],
  ] as const) {
    if (format !== undefined && format !== 'qcow2') {
      throw new UsageError(`${option} ${format}: only qcow2 images have bitmaps`)
    }
  }
  checkOpenOptions(options)
}

/** @throws {UsageError} for what does not go together */
export function checkOpenOptions({ forceShare, unsafeNoLock, dryRun }: EditOpenOptions): void {
  if (forceShare && !dryRun) {
    throw new UsageError('-U is for --dry-run: an image that a writer holds cannot be changed')
  }
  if (unsafeNoLock && dryRun) throw new UsageError('--dry-run takes no lock: leave --unsafe-no-lock')
}
