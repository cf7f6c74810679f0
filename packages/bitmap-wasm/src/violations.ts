import { wasmConstant } from './module.js'

/** What can be wrong with the 24-byte payload of the bitmaps extension. */
export const extensionViolations = [
  'count-zero',
  'count-too-large',
  'reserved-not-zero',
  'directory-too-large',
  'directory-too-small',
  'offset-zero',
  'offset-unaligned',
  'past-end-of-file',
] as const
export type ExtensionViolation = (typeof extensionViolations)[number]

/**
 * What can be wrong with a bitmap directory entry. QEMU refuses the whole image for any of them, but for
 * `table-past-end-of-file`, which it does not see; `extra-data` is legal by the specification.
 */
export const entryViolations = [
  'truncated',
  'table-offset-zero',
  'table-offset-unaligned',
  'table-past-end-of-file',
  'table-size-zero',
  'table-too-large',
  'table-size-mismatch',
  'flags-reserved',
  'type-unknown',
  'granularity',
  'name-empty',
  'name-too-long',
  'extra-data',
] as const
export type EntryViolation = (typeof entryViolations)[number]

/** What can be wrong with a bitmap table entry. QEMU does not see `past-end-of-file`: it reads clean bits there. */
export const tableViolations = ['reserved-bits', 'ones-with-offset', 'unaligned', 'past-end-of-file'] as const
export type TableViolation = (typeof tableViolations)[number]

const NONE: readonly never[] = Object.freeze([])

/** Names for the bits of a violation mask; the bits' values are the module's own constants. */
function namer<V extends string>(
  prefix: 'EXT_' | 'ENTRY_' | 'TABLE_',
  names: readonly V[],
): (mask: number) => readonly V[] {
  let bits: readonly (readonly [number, V])[] | undefined
  return mask => {
    if (mask === 0) return NONE
    bits ??= names.map(
      name => [wasmConstant(`${prefix}${name.toUpperCase().replaceAll('-', '_')}`), name] as const,
    )
    return bits.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name)
  }
}

export const nameExtensionViolations = namer('EXT_', extensionViolations)
export const nameEntryViolations = namer('ENTRY_', entryViolations)
export const nameTableViolations = namer('TABLE_', tableViolations)
