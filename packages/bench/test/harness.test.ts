import { describe, expect, it } from 'vitest'
import type { EngineResult } from '../src/engine/run.js'
import { agree, type Contender, timeInTurn } from '../src/harness/rounds.js'
import { median, summarise } from '../src/harness/statistics.js'
import { ratio, time } from '../src/report/format.js'
import { speedup, spread, spreadOfBest } from '../src/report/ratios.js'

describe('statistics', () => {
  it('take the middle, and the mean of two middles', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([10, 1, 2, 4])).toBe(3)
    expect(median([10, 9])).toBe(9.5)
    expect(() => median([])).toThrow(RangeError)
  })

  it('summarise without changing the list', () => {
    const times = [5, 1, 9]
    expect(summarise(times)).toEqual({ min: 1, median: 5, max: 9, rounds: 3 })
    expect(times).toEqual([5, 1, 9])
  })
})

describe('rounds', () => {
  const contender = (name: string, log: string[], answer = 'same'): Contender => ({
    name,
    run: () => log.push(name),
    answer: () => answer,
  })

  it('are taken in turn', () => {
    const log: string[] = []
    const fresh = (name: string) => ({ ...contender(name, log), prepare: () => log.push(`fresh ${name}`) })
    const times = timeInTurn([fresh('a'), fresh('b')], { rounds: 4, budgetMs: 1e4, batchMs: 0 })
    expect([...times.keys()]).toEqual(['a', 'b'])
    expect(times.get('a')?.rounds).toBe(4)
    // With a preparation each run has its own, so a batch is one run.
    expect(log.slice(-16)).toEqual(Array(4).fill(['fresh a', 'a', 'fresh b', 'b']).flat())
  })

  it('are at least three, however little time there is', () => {
    const times = timeInTurn([contender('a', [])], { rounds: 9, budgetMs: 0, batchMs: 0 })
    expect(times.get('a')?.rounds).toBe(3)
  })

  it('do not begin when answers differ', () => {
    const log: string[] = []
    const wrong = contender('b', log, 'other')
    expect(() => timeInTurn([contender('a', log), wrong], { rounds: 3, budgetMs: 1, batchMs: 0 })).toThrow(
      'b says other, but a says same',
    )
    expect(() => agree([])).toThrow(RangeError)
    expect(log).toEqual([])
  })
})

describe('ratios', () => {
  const result = (times: Record<string, number>): EngineResult => ({
    benchmark: 'union',
    size: '2 MiB',
    bytes: 2 ** 21,
    pattern: '1 %',
    times: Object.fromEntries(Object.entries(times).map(([name, ns]) => [name, summarise([ns, ns * 3])])),
  })
  const results = [
    result({ tidemark: 10, 'C, native': 5, typedfastbitset: 40, 'roaring-wasm': 30 }),
    result({ tidemark: 10, 'C, native': 20, typedfastbitset: 20, 'roaring-wasm': 90 }),
  ]

  it('are the peer’s fastest round over ours: above 1 we are faster', () => {
    expect(speedup(results[0]!, 'C, native')).toBe(0.5)
    expect(speedup(results[0]!, 'nobody')).toBeUndefined()
    expect(spread(results, 'C, native')).toEqual({ median: 1.25, min: 0.5, max: 2 })
    expect(spread(results, 'nobody')).toBeUndefined()
  })

  it('against the best take the best of each case', () => {
    expect(spreadOfBest(results, ['typedfastbitset', 'roaring-wasm'])).toEqual({
      median: 2.5,
      min: 2,
      max: 3,
    })
  })

  it('and times are told in units that suit', () => {
    expect([0.0001, 0.05, 0.95, 2.345, 12.34, 1234.5].map(ratio)).toEqual([
      '< 0.001×',
      '0.050×',
      '0.95×',
      '2.35×',
      '12.3×',
      '1,235×',
    ])
    expect([7, 7_610, 142_500, 5_008_700, 65e9].map(time)).toEqual([
      '7 ns',
      '7.61 µs',
      '143 µs',
      '5.01 ms',
      '65.0 s',
    ])
  })
})
