import { describe, expect, it } from 'vitest'
import { Random } from '../src/index.js'

describe('Random', () => {
  it('is xoshiro128**: the known answers of the reference implementation', () => {
    const random = Random.fromState(1, 2, 3, 4)
    const expected = [
      11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804,
    ]
    expect(expected.map(() => random.uint32())).toEqual(expected)
  })

  it('gives the same for the same seed, and something else for another', () => {
    const draw = (seed: number | string): number[] =>
      Array.from({ length: 8 }, (_, i) => new Random(seed).fork(i).uint32())
    expect(draw(7)).toEqual(draw(7))
    expect(draw(7)).toEqual(draw('7'))
    expect(draw(8)).not.toEqual(draw(7))
  })

  it('forks are told by seed and label alone', () => {
    const used = new Random('s')
    used.bytes(100)
    expect(used.fork('a').uint32()).toBe(new Random('s').fork('a').uint32())
    expect(used.fork('b').uint32()).not.toBe(used.fork('a').uint32())
  })

  it('int reaches both ends, also of ranges beyond 32 bits', () => {
    const random = new Random(1)
    const seen = new Set(Array.from({ length: 200 }, () => random.int(-1, 2)))
    expect([...seen].sort((a, b) => a - b)).toEqual([-1, 0, 1, 2])
    const wide = Array.from({ length: 200 }, () => random.int(0, Number.MAX_SAFE_INTEGER))
    expect(Math.max(...wide)).toBeGreaterThan(2 ** 52)
    expect(wide.every(Number.isSafeInteger)).toBe(true)
    expect(() => random.int(2, 1)).toThrow(RangeError)
    expect(() => random.pick([])).toThrow(RangeError)
  })

  it('shuffle keeps the items and leaves the list alone', () => {
    const list = Array.from({ length: 50 }, (_, i) => i)
    const shuffled = new Random(3).shuffle(list)
    expect(shuffled).not.toEqual(list)
    expect(shuffled.sort((a, b) => a - b)).toEqual(list)
  })

  it('bytes have every length', () => {
    for (let n = 0; n < 9; n++) expect(new Random(n).bytes(n)).toHaveLength(n)
    expect(new Set(new Random(1).bytes(4000)).size).toBe(256)
  })
})
