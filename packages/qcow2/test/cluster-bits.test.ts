import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ClusterBits } from '../src/index.js'

describe('ClusterBits', () => {
  it('finds the next one that is missing, as one by one', () => {
    const clusters = fc.array(fc.nat(130), { maxLength: 140 })
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 131 }), clusters, fc.nat(140), (size, some, from) => {
        const bits = new ClusterBits(size)
        for (const cluster of some) if (cluster < size) bits.add(cluster)
        let expected = from
        while (expected < size && bits.has(expected)) expected++
        expect(bits.nextMissing(from)).toBe(expected)
      }),
    )
  })

  it.each([0, 1, 31, 32, 33, 64, 100])('all of %i are there', size => {
    const bits = new ClusterBits(size)
    for (let cluster = 0; cluster < size; cluster++) bits.add(cluster)
    expect(bits.nextMissing(0)).toBe(size)
    expect(bits.nextMissing(size + 7)).toBe(size + 7)
  })
})
