/** Feature bits of the v3 header (qcow2 specification, "Header", bytes 72–95). */
export const incompatible = {
  dirty: 1n << 0n,
  corrupt: 1n << 1n,
  externalDataFile: 1n << 2n,
  compressionType: 1n << 3n,
  extendedL2: 1n << 4n,
} as const

export const compatible = { lazyRefcounts: 1n << 0n } as const

export const autoclear = {
  bitmaps: 1n << 0n,
  rawExternalData: 1n << 1n,
  /**
   * Ours, not the specification's: the image takes part in an edit of several images that has not ended. Whoever else
   * writes to the image clears it, as the specification asks of those who do not know a bit; so it tells that nobody has.
   */
  unfinishedEdit: 1n << 61n,
} as const

const KNOWN_INCOMPATIBLE = Object.values(incompatible).reduce((all, bit) => all | bit, 0n)

export type FeatureType = 'incompatible' | 'compatible' | 'autoclear'

/** One row of the feature name table. */
export interface FeatureName {
  readonly type: FeatureType
  readonly bit: number
  readonly name: string
}

/** Numbers of the set bits that this version has no meaning for. Any of them: the image must not be opened. */
export function unknownIncompatibleBits(features: bigint): number[] {
  return bitNumbers(features & ~KNOWN_INCOMPATIBLE)
}

export function bitNumbers(features: bigint): number[] {
  const numbers: number[] = []
  for (let bit = 0; bit < 64; bit++) if ((features >> BigInt(bit)) & 1n) numbers.push(bit)
  return numbers
}
