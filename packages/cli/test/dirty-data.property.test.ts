import type { DiskExtent, GuestDisk } from '@tidemark/qcow2'
import { Random } from '@tidemark/testkit'
import { expect, it } from 'vitest'
import { dirtyStretches } from '../src/dirty-data.js'

const SIZE = 400

/** A disk whose bytes are of some kind each; extents come in chunks, as from tables. */
function diskOf(
  kinds: readonly ('data' | 'zero' | 'hole')[],
  random: Random,
  asked: [number, number][],
): GuestDisk {
  return {
    size: kinds.length,
    readInto: () => Promise.reject(new Error('no data is read')),
    async *extents(start = 0, length = kinds.length - start) {
      asked.push([start, start + length])
      let chunk: DiskExtent[] = []
      for (let at = start; at < start + length; ) {
        let end = at
        while (end < start + length && kinds[end] === kinds[at]) end++
        const kind = kinds[at]
        chunk.push({
          ...{ start: at, length: end - at, depth: 0, offset: undefined },
          ...{ present: kind !== 'hole', zero: kind !== 'data', data: kind === 'data' },
        })
        if (random.bool(0.3)) {
          yield chunk
          chunk = []
        }
        at = end
      }
      if (chunk.length > 0) yield chunk
    },
    async close() {},
  }
}

it('dirty extents are split by what they are now, byte for byte as a naive model has it', async () => {
  const random = new Random('dirty-data')
  for (let round = 0; round < 400; round++) {
    const kinds: ('data' | 'zero' | 'hole')[] = []
    while (kinds.length < SIZE) {
      const kind = random.pick(['data', 'zero', 'hole'] as const)
      for (let i = random.int(1, 40); i > 0 && kinds.length < SIZE; i--) kinds.push(kind)
    }
    const edges = [...new Set(Array.from({ length: random.int(0, 20) }, () => random.int(0, SIZE)))]
    edges.sort((a, b) => a - b)
    if (edges.length % 2 === 1) edges.pop()
    const start = random.int(0, SIZE)
    const end = random.int(start, SIZE)
    const near = random.int(0, 60)
    async function* dirty() {
      for (let at = 0; at < edges.length; ) {
        const pairs = random.int(1, 4) * 2
        yield Float64Array.from(edges.slice(at, at + pairs))
        at += pairs
      }
    }
    const asked: [number, number][] = []
    const found: string[] = Array(SIZE).fill('-')
    let last = 0
    for await (const some of dirtyStretches(diskOf(kinds, random, asked), dirty(), { start, end }, near)) {
      expect(some.length).toBeGreaterThan(0)
      for (const { start, length, zero, data } of some) {
        expect(length).toBeGreaterThan(0)
        expect(start).toBeGreaterThanOrEqual(last)
        last = start + length
        found.fill(data ? 'data' : zero ? 'zero' : '?', start, last)
      }
    }
    const wanted = kinds.map((kind, at) => {
      const before = edges.filter(edge => edge <= at).length
      if (before % 2 === 0 || at < start || at >= end) return '-'
      return kind === 'data' ? 'data' : 'zero'
    })
    expect(found).toEqual(wanted)
    // What is far from anything dirty is not looked up.
    for (const [from, to] of asked) {
      for (let at = from; at < to; at++) {
        const reach = wanted.slice(Math.max(0, at - near), at + near + 1)
        expect(reach.some(kind => kind !== '-')).toBe(true)
      }
    }
  }
})
