import type { DirtyExtent } from '../src/index.js'

/** The extents that these dirty granules should give, worked out the slow and obvious way. */
export function extentsOf(size: number, granularity: number, dirty: readonly number[]): DirtyExtent[] {
  const edges = new Map<number, 0 | 1>([[0, 0]])
  for (const bit of [...dirty].sort((a, b) => a - b)) {
    edges.set(bit * granularity, 1)
    edges.set((bit + 1) * granularity, 0)
  }
  const out: DirtyExtent[] = []
  const offsets = [...edges.keys()].filter(offset => offset < size).sort((a, b) => a - b)
  offsets.forEach((offset, i) => {
    const type = edges.get(offset)!
    const length = (offsets[i + 1] ?? size) - offset
    const last = out.at(-1)
    if (last?.type === type) last.length += length
    else out.push({ offset, length, type, description: type ? 'dirty' : 'clean' })
  })
  return out
}
