// The naive side of the property tests: a bitmap is an array of booleans, a result one boolean for each sector.
import type { BitmapSource, CombineOptions, StretchState } from '../src/index.js'

export const SECTOR = 512
export type Operation = NonNullable<CombineOptions['operation']>

export interface ModelBitmap {
  readonly granularity: number
  /** One for each granule. */
  readonly bits: readonly boolean[]
}

/** Whether each sector of the disk is dirty. */
export function sectorsOf({ granularity, bits }: ModelBitmap, disk: number): boolean[] {
  return Array.from(
    { length: disk / SECTOR },
    (_, i) => bits[Math.floor((i * SECTOR) / granularity)] === true,
  )
}

/** Every granule that is touched becomes dirty as a whole. */
export function widened(sectors: readonly boolean[], granularity: number): boolean[] {
  const each = granularity / SECTOR
  const touched = new Set<number>()
  sectors.forEach((dirty, i) => {
    if (dirty) touched.add(Math.floor(i / each))
  })
  return sectors.map((_, i) => touched.has(Math.floor(i / each)))
}

const applied: Readonly<Record<Operation, (a: boolean, b: boolean) => boolean>> = {
  union: (a, b) => a || b,
  intersection: (a, b) => a && b,
  difference: (a, b) => a && !b,
  xor: (a, b) => a !== b,
}

/** What `dirtyExtents` should say, sector by sector. Groups are united first. */
export function modelOf(
  groups: readonly (readonly ModelBitmap[])[],
  disk: number,
  { operation = 'union', granularity, widenFirst = false }: CombineOptions,
): boolean[] {
  const finest = Math.min(...groups.flat().map(bitmap => bitmap.granularity))
  const wide = granularity !== undefined && granularity > finest ? granularity : undefined
  const operands = groups.map(group => {
    const all = group.map(bitmap => sectorsOf(bitmap, disk))
    const united = Array.from({ length: disk / SECTOR }, (_, i) => all.some(sectors => sectors[i]))
    return wide !== undefined && widenFirst ? widened(united, wide) : united
  })
  const result = operands.reduce((a, b) => a.map((dirty, i) => applied[operation](dirty, b[i]!)))
  return wide === undefined ? result : widened(result, wide)
}

/** Pairs of start and end byte offsets. */
export function extentsOf(sectors: readonly boolean[]): number[] {
  const edges: number[] = []
  sectors.forEach((dirty, i) => {
    if (dirty !== (sectors[i - 1] ?? false)) edges.push(i * SECTOR)
  })
  if (sectors.at(-1)) edges.push(sectors.length * SECTOR)
  return edges
}

/** The stored bytes of a bitmap, LSB first; bits after the last one as `tail` has them. */
export function bytesOfBits(bits: readonly boolean[], tail = false): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(bits.length / 8))
  for (let i = 0; i < bytes.length * 8; i++) {
    if (bits[i] ?? tail) bytes[i >> 3]! |= 1 << (i & 7)
  }
  return bytes
}

/** A bitmap in memory. `shy` decides, call by call, to say `mixed` where it could say more: that is always true. */
export function memorySource(
  { granularity, bits }: ModelBitmap,
  disk: number,
  { shy = () => false, tail = false }: { shy?: () => boolean; tail?: boolean } = {},
): BitmapSource {
  const stored = bytesOfBits(bits, tail)
  return {
    label: 'bitmap in memory',
    granularity,
    diskBytes: disk,
    granules: bits.length,
    async peek(byteOffset, byteLength): Promise<StretchState> {
      if (shy()) return 'mixed'
      const part = bits.slice(byteOffset * 8, (byteOffset + byteLength) * 8)
      if (!part.includes(true)) return 'zeros'
      return part.includes(false) ? 'mixed' : 'ones'
    },
    async readInto(target, byteOffset) {
      target.fill(0)
      target.set(stored.subarray(byteOffset, byteOffset + target.byteLength))
    },
  }
}

/** A bitmap known by rule, for disks too large for arrays: each byte of it by its number. */
export function ruleSource(
  granularity: number,
  disk: number,
  byteAt: (byte: number) => number,
  peek: (byteOffset: number, byteLength: number) => StretchState = () => 'mixed',
): BitmapSource {
  const granules = Math.ceil(disk / granularity)
  return {
    label: 'bitmap by rule',
    granularity,
    diskBytes: disk,
    granules,
    peek: async (byteOffset, byteLength) => peek(byteOffset, byteLength),
    async readInto(target, byteOffset) {
      const end = Math.ceil(granules / 8)
      for (let i = 0; i < target.length; i++) target[i] = byteOffset + i < end ? byteAt(byteOffset + i) : 0
    },
  }
}

/** All edges, copied out of the engine's memory. */
export async function collect(chunks: AsyncIterable<Float64Array>): Promise<number[]> {
  const edges: number[] = []
  for await (const chunk of chunks) for (const edge of chunk) edges.push(edge)
  return edges
}

export function bytesIn(edges: readonly number[]): number {
  return edges.reduce((sum, edge, i) => sum + (i % 2 === 0 ? -edge : edge), 0)
}
