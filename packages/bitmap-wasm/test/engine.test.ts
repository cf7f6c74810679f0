import { describe, expect, it } from 'vitest'
import { createEngine, ExtentExtractor } from '../src/index.js'
import { arenaMark } from './model.js'

describe('an arena', () => {
  it('has room for one lane of the size it was made for', () => {
    for (const arenaBytes of [64, 1000, 65536, 65537, 2 ** 21]) {
      expect(createEngine({ arenaBytes }).lane(arenaBytes).bytes).toHaveLength(arenaBytes)
    }
  })

  it('gives zeroed lanes at multiples of 16 that do not overlap, padding included', () => {
    const engine = createEngine()
    let end = 0
    for (const length of [0, 1, 15, 16, 17, 100, 4096]) {
      const lane = engine.scratch(() => {
        engine.lane(length + 200).bytes.fill(0xff)
        return undefined
      })
      expect(lane).toBeUndefined()
      const next = engine.lane(length)
      expect(next.ptr % 16).toBe(0)
      expect(next.ptr).toBeGreaterThanOrEqual(end)
      expect(next.bytes.byteOffset).toBe(next.ptr)
      expect(next.bytes.every(byte => byte === 0)).toBe(true)
      end = next.ptr + length + 64
    }
  })

  it('does not share a byte with another engine', () => {
    const [a, b] = [createEngine(), createEngine()]
    const [laneA, laneB] = [a.lane(64), b.lane(64)]
    expect(laneA.ptr).toBe(laneB.ptr)
    laneA.bytes.fill(0xff)
    expect(a.count(laneA, 64)).toBe(512)
    expect(b.count(laneB, 64)).toBe(0)
  })

  it('lets two engines work in turns', () => {
    const engines = [createEngine(), createEngine()]
    const all = engines.map(engine => {
      const lane = engine.lane(8)
      lane.bytes.fill(0b1010)
      return { lane, extents: new ExtentExtractor(engine, { granularity: 1, limit: 128 }) }
    })
    for (let round = 0; round < 2; round++)
      for (const { lane, extents } of all) expect([...extents.push(lane, 64)]).toEqual([])
    const [first, second] = all.map(({ extents }) => [...extents.finish()!])
    expect(first).toHaveLength(64)
    expect(second).toEqual(first)
  })
})

describe('mark and release', () => {
  it('give back what was taken since, and refuse what is no mark', () => {
    const engine = createEngine()
    const bottom = engine.mark()
    const first = engine.lane(100)
    const mark = engine.mark()
    const second = engine.lane(100)
    for (const wrong of [engine.mark() + 16, bottom - 16, 0, -16, mark + 0.5, Number.NaN]) {
      expect(() => engine.release(wrong)).toThrow(RangeError)
    }
    engine.release(mark)
    expect(engine.lane(1).ptr).toBe(second.ptr)
    engine.release(bottom)
    expect(engine.lane(1).ptr).toBe(first.ptr)
  })
})

describe('scratch', () => {
  it('gives lanes back, nested and after a throw', () => {
    const engine = createEngine()
    const mark = arenaMark(engine)
    const result = engine.scratch(() => {
      engine.lane(100)
      const inner = arenaMark(engine)
      expect(() =>
        engine.scratch(() => {
          engine.lane(1000)
          throw new TypeError('by the caller')
        }),
      ).toThrow(TypeError)
      expect(arenaMark(engine)).toBe(inner)
      return 'what use() returns'
    })
    expect(result).toBe('what use() returns')
    expect(arenaMark(engine)).toBe(mark)
  })

  it('gives back a lane that was taken before the arena was full', () => {
    const engine = createEngine({ arenaBytes: 65536 })
    const mark = arenaMark(engine)
    expect(() => engine.scratch(() => [engine.lane(60_000), engine.lane(2 ** 20)])).toThrow(RangeError)
    expect(arenaMark(engine)).toBe(mark)
  })

  it('refuses a function that goes on later, when its lanes are somebody else’s', () => {
    const engine = createEngine()
    const mark = arenaMark(engine)
    expect(() => engine.scratch(async () => engine.lane(8))).toThrow(TypeError)
    expect(arenaMark(engine)).toBe(mark)
  })
})
