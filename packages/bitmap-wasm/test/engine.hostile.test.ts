// Longer than most: one list of everything that a caller can get wrong, and every operation in each of them.
import { describe, expect, it } from 'vitest'
import {
  type BitmapEngine,
  createEngine,
  createTableDecoder,
  DirectoryReader,
  ExtentExtractor,
  ExtentPainter,
  extentsOf,
  type Lane,
  paintExtents,
  parseBitmapDirectory,
  parseBitmapsExtension,
} from '../src/index.js'
import { encodeEntry, encodePayload, goodGeometry } from './encode.js'
import { arenaMark } from './model.js'

const wrong = [-1, -8, -64, 0.5, 7.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2 ** 53]
const missing = [undefined, null, '8', 8n, {}] as unknown as number[]

/** Fails if the call does not throw a RangeError, or if one byte of the arena changes. */
function refused(engine: BitmapEngine, call: () => unknown, what: string): void {
  const { bytes } = engine.scratch(() => engine.lane(0))
  const before = new Uint8Array(bytes.buffer).slice()
  expect(call, what).toThrow(RangeError)
  expect(Buffer.compare(new Uint8Array(bytes.buffer), before), what).toBe(0)
}

describe('kernels', () => {
  const engine = createEngine({ arenaBytes: 4096 })
  const guard = engine.lane(64)
  const a = engine.lane(64)
  const b = engine.lane(64)
  for (const lane of [guard, a, b]) lane.bytes.fill(0x5a)

  it.each([...wrong, ...missing])('refuse %s for any number', bad => {
    const calls: [string, () => unknown][] = [
      ['union', () => engine.merge('union', a, b, bad)],
      ['intersection', () => engine.merge('intersection', a, b, bad)],
      ['difference', () => engine.merge('difference', a, b, bad)],
      ['xor', () => engine.merge('xor', a, b, bad)],
      ['maskTail bits', () => engine.maskTail(a, bad, 64)],
      ['maskTail length', () => engine.maskTail(a, 8, bad)],
      ['count', () => engine.count(a, bad)],
      ['refine coarseBit', () => engine.refine(a, bad, 1, b, 64)],
      ['refine coarseBit, wide', () => engine.refine(a, bad, 4, b, 512)],
      ['refine shift', () => engine.refine(a, 0, bad, b, 64)],
      ['refine fineBits', () => engine.refine(a, 0, 1, b, bad)],
      ['refine fineBits, wide', () => engine.refine(a, 0, 4, b, bad)],
      ['coarsen fineBits', () => engine.coarsen(a, bad, 1, b, 0)],
      ['coarsen shift', () => engine.coarsen(a, 64, bad, b, 0)],
      ['coarsen dstBit', () => engine.coarsen(a, 64, 1, b, bad)],
      ['mergeCount', () => engine.mergeCount('union', a, b, bad)],
      ['complement', () => engine.complement(a, bad)],
      ['fillRange first', () => engine.fillRange(a, bad, 1, 1)],
      ['fillRange bits', () => engine.fillRange(a, 0, bad, 1)],
      ['fillRange value', () => engine.fillRange(a, 0, 8, bad as 1)],
      ['countRange first', () => engine.countRange(a, bad, 1)],
      ['countRange bits', () => engine.countRange(a, 0, bad)],
      ['equals', () => engine.equals(a, b, bad)],
      ['firstViolation', () => engine.firstViolation(a, b, bad)],
      ['isSubset', () => engine.isSubset(a, b, bad)],
      ['nextSet from', () => engine.nextSet(a, bad, 8)],
      ['nextSet bits', () => engine.nextSet(a, 0, bad)],
      ['nextClear from', () => engine.nextClear(a, bad, 8)],
      ['nextClear bits', () => engine.nextClear(a, 0, bad)],
      ['refineMerge coarseBit', () => engine.refineMerge('xor', a, bad, 1, b, 64)],
      ['refineMerge shift', () => engine.refineMerge('xor', a, 0, bad, b, 64)],
      ['refineMerge fineBits', () => engine.refineMerge('xor', a, 0, 1, b, bad)],
      ['subLane offset', () => engine.subLane(a, bad)],
      ['lane', () => engine.lane(bad)],
    ]
    // What may be left out has a default.
    if (bad !== undefined) {
      calls.push(
        ['refine phase', () => engine.refine(a, 0, 3, b, 64, bad)],
        ['refineMerge phase', () => engine.refineMerge('xor', a, 0, 3, b, 64, bad)],
        ['subLane length', () => engine.subLane(a, 0, bad)],
      )
    }
    // subLane takes null for left out.
    for (const [what, call] of calls)
      if (!(bad === null && what === 'subLane length')) refused(engine, call, what)
  })

  it('refuse a lane that is too short by a byte', () => {
    const long = engine.lane(65)
    const calls = [
      () => engine.merge('union', a, long, 65),
      () => engine.merge('union', long, a, 65),
      () => engine.maskTail(a, 8, 65),
      () => engine.count(a, 65),
      () => engine.refine(long, 0, 1, a, 513),
      () => engine.refine(a, 512, 3, b, 1),
      () => engine.refine(a, 0, 3, engine.lane(1024), 512 * 8 + 1),
      () => engine.coarsen(a, 513, 1, long, 0),
      () => engine.coarsen(a, 512, 1, b, 257),
      () => engine.coarsen(a, 1, 1, b, 512),
      () => engine.mergeCount('union', a, long, 65),
      () => engine.mergeCount('union', long, a, 65),
      () => engine.complement(a, 513),
      () => engine.fillRange(a, 512, 1, 1),
      () => engine.fillRange(a, 1, 512, 1),
      () => engine.countRange(a, 512, 1),
      () => engine.countRange(a, 1, 512),
      () => engine.equals(a, long, 65),
      () => engine.firstViolation(a, long, 513),
      () => engine.firstViolation(long, a, 513),
      () => engine.nextSet(a, 0, 513),
      () => engine.nextClear(a, 0, 513),
      () => engine.refineMerge('union', a, 512, 3, b, 1),
      () => engine.refine(a, 511, 3, b, 8, 1),
      () => engine.subLane(a, 65),
      () => engine.subLane(a, 60, 5),
    ]
    for (const [i, call] of calls.entries()) refused(engine, call, `call ${i}`)
  })

  it('refuse shifts out of 1…22', () => {
    for (const shift of [0, 23, 32, 33, 64]) {
      refused(engine, () => engine.refine(a, 0, shift, b, 64), `refine ${shift}`)
      refused(engine, () => engine.coarsen(a, 64, shift, b, 0), `coarsen ${shift}`)
    }
    for (const shift of [1, 2, 3]) expect(() => engine.refine(a, 4, shift, b, 64)).not.toThrow()
  })

  it('refuse a lane of another engine, whose address means something else here', () => {
    const other = createEngine({ arenaBytes: 4096 })
    const alien = other.lane(64)
    const calls = [
      () => engine.merge('union', a, alien, 8),
      () => engine.merge('union', alien, a, 8),
      () => engine.maskTail(alien, 1, 8),
      () => engine.count(alien, 8),
      () => engine.refine(alien, 0, 1, a, 8),
      () => engine.coarsen(a, 8, 1, alien, 0),
      () => engine.mergeCount('xor', a, alien, 8),
      () => engine.complement(alien, 8),
      () => engine.fillRange(alien, 0, 8, 1),
      () => engine.countRange(alien, 0, 8),
      () => engine.equals(a, alien, 8),
      () => engine.firstViolation(alien, a, 8),
      () => engine.nextSet(alien, 0, 8),
      () => engine.nextClear(alien, 0, 8),
      () => engine.refineMerge('union', alien, 0, 1, a, 8),
      () => engine.subLane(alien, 0),
      () => [...new ExtentExtractor(other, { granularity: 1, limit: 1, roomBytes: 1024 }).push(a, 8)],
      () => engine.count({ ptr: a.ptr + 1, bytes: a.bytes }, 8),
      () => engine.count({ ptr: 0, bytes: new Uint8Array(8) }, 8),
    ]
    for (const [i, call] of calls.entries()) refused(engine, call, `call ${i}`)
  })

  it('never wrap a count of bits around 2^32', () => {
    const forged: Lane = {
      ptr: a.ptr,
      bytes: Object.defineProperty(a.bytes.subarray(), 'byteLength', { value: 2 ** 30 }),
    }
    for (const bits of [2 ** 32 - 1, 2 ** 32, 2 ** 32 + 64]) {
      refused(engine, () => engine.coarsen(forged, bits, 1, forged, 0), 'coarsen')
      refused(engine, () => engine.refine(forged, 0, 1, forged, bits), 'refine')
    }
  })
})

describe('operations that are none', () => {
  it.each(['', 'Union', 'count', 'toString', '__proto__', undefined, 0])('%s is refused', name => {
    const engine = createEngine({ arenaBytes: 4096 })
    const [a, b] = [engine.lane(8), engine.lane(8)]
    const operation = name as 'union'
    refused(engine, () => engine.merge(operation, a, b, 8), 'merge')
    refused(engine, () => engine.mergeCount(operation, a, b, 8), 'mergeCount')
    refused(engine, () => engine.refineMerge(operation, a, 0, 3, b, 8), 'refineMerge')
  })
})

describe('lanes that overlap', () => {
  const engine = createEngine({ arenaBytes: 65536 })
  const lane = engine.lane(4096)
  for (let i = 0; i < 4096; i++) lane.bytes[i] = i * 7

  it.each([1, 8, 63, 64, 500])('by all but %i bytes are refused', shift => {
    const other = engine.subLane(lane, shift)
    for (const [a, b] of [
      [lane, other],
      [other, lane],
    ] as const) {
      refused(engine, () => engine.merge('union', a, b, shift + 1), 'merge')
      refused(engine, () => engine.mergeCount('xor', a, b, shift + 1), 'mergeCount')
      refused(engine, () => engine.refine(a, 0, 1, b, 8 * 2 * (shift + 1)), 'refine')
      refused(engine, () => engine.refineMerge('union', a, 0, 1, b, 8 * 2 * (shift + 1)), 'refineMerge')
      refused(engine, () => engine.coarsen(a, 8 * 2 * (shift + 1), 1, b, 0), 'coarsen')
    }
  })

  it('with the very lane: defined where it makes sense, refused where it changes what it reads', () => {
    refused(engine, () => engine.refine(lane, 0, 1, lane, 64), 'refine')
    refused(engine, () => engine.refineMerge('union', lane, 0, 1, lane, 64), 'refineMerge')
    refused(engine, () => engine.coarsen(lane, 64, 1, lane, 0), 'coarsen')
    const set = engine.count(lane, 4096)
    expect(engine.mergeCount('union', lane, lane, 4096)).toBe(set)
    expect(engine.equals(lane, lane, 4096)).toBe(true)
    expect(engine.isSubset(lane, lane, 32768)).toBe(true)
  })

  it('only in parts that are not used are taken, side by side too', () => {
    const [a, b] = [engine.subLane(lane, 0, 64), engine.subLane(lane, 64)]
    expect(() => engine.merge('union', a, b, 64)).not.toThrow()
    expect(() => engine.merge('union', b, a, 64)).not.toThrow()
    expect(() => engine.coarsen(b, 2048, 3, a, 0)).not.toThrow()
    expect(() => engine.refine(lane, 8 * 100, 3, a, 64 * 8)).not.toThrow()
    expect(() => engine.merge('union', lane, b, 0)).not.toThrow()
  })
})

describe('an engine that is disposed of', () => {
  const engine = createEngine({ arenaBytes: 2 ** 20 })
  const [a, b] = [engine.lane(64), engine.lane(64)]
  const mark = engine.mark()
  const extents = new ExtentExtractor(engine, { granularity: 512, limit: 2 ** 20, roomBytes: 1024 })
  const painter = new ExtentPainter(engine, { granularity: 512, limit: 2 ** 20, windowBits: 64 })
  const decoder = createTableDecoder(engine, { ...goodGeometry, bitmapBytes: 1 }, 8)
  const options = { ...goodGeometry, bitmapCount: 1, directoryBytes: 32 }
  const reader = new DirectoryReader(engine, options)

  it('says so, and refuses every call, also of what was made with it', () => {
    expect(engine.disposed).toBe(false)
    engine.dispose()
    engine.dispose()
    expect(engine.disposed).toBe(true)
    const chunk = Float64Array.of(0, 512)
    const calls: (() => unknown)[] = [
      () => engine.kernels,
      () => engine.lane(8),
      () => engine.subLane(a, 0),
      () => engine.mark(),
      () => engine.release(mark),
      () => engine.scratch(() => 1),
      () => engine.merge('union', a, b, 8),
      () => engine.merge('union', a, b, 0),
      () => engine.mergeCount('union', a, b, 8),
      () => engine.complement(a, 8),
      () => engine.fillRange(a, 0, 8, 1),
      () => engine.maskTail(a, 8, 64),
      () => engine.count(a, 8),
      () => engine.countRange(a, 0, 8),
      () => engine.equals(a, b, 8),
      () => engine.isSubset(a, b, 8),
      () => engine.firstViolation(a, b, 8),
      () => engine.nextSet(a, 0, 8),
      () => engine.nextClear(a, 0, 8),
      () => engine.refine(a, 0, 1, b, 8),
      () => engine.refineMerge('union', a, 0, 1, b, 8),
      () => engine.coarsen(a, 8, 1, b, 0),
      () => [...extents.push(a, 64)],
      () => [...extentsOf(engine, a, 64, { granularity: 512 })],
      () => [...painter.push(chunk)],
      () => paintExtents(engine, a, chunk, { granularity: 512, limit: 2 ** 20, firstBit: 0, bits: 8 }),
      () => [...decoder.decode(0, 1)],
      () => [...decoder.runs(0, 1)],
      () => [...reader.push(encodeEntry())],
      () => new ExtentExtractor(engine, { granularity: 512, limit: 512 }),
      () => new ExtentPainter(engine, { granularity: 512, limit: 512 }),
      () => new DirectoryReader(engine, options),
      () => createTableDecoder(engine, { ...goodGeometry, bitmapBytes: 1 }),
      () => parseBitmapDirectory(engine, encodeEntry(), 1, goodGeometry),
      () => parseBitmapsExtension(engine, encodePayload(), goodGeometry),
    ]
    for (const [i, call] of calls.entries()) expect(call, `call ${i}`).toThrow(TypeError)
    expect(a.bytes).toHaveLength(64)
  })

  it('may be so by the function that scratch() runs', () => {
    const other = createEngine()
    expect(
      other.scratch(() => {
        other.dispose()
        return 5
      }),
    ).toBe(5)
  })
})

describe('an arena', () => {
  it.each([0, 63, -1, 1.5, Number.NaN, 2 ** 30 + 1, Number.POSITIVE_INFINITY])(
    'is not made of %s bytes',
    arenaBytes => {
      expect(() => createEngine({ arenaBytes })).toThrow(RangeError)
    },
  )

  it('that is full refuses a lane, and everything that takes one', () => {
    const engine = createEngine({ arenaBytes: 64 })
    while (true) {
      try {
        engine.lane(512)
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError)
        break
      }
    }
    const mark = arenaMark(engine)
    const geometry = { clusterBits: 16, bitmapBytes: 1, fileBytes: 1 }
    expect(() => parseBitmapDirectory(engine, encodeEntry(), 1, goodGeometry)).toThrow(RangeError)
    expect(() => createTableDecoder(engine, geometry)).toThrow(RangeError)
    expect(() => new ExtentExtractor(engine, { granularity: 512, limit: 512 })).toThrow(RangeError)
    expect(arenaMark(engine)).toBe(mark)
  })
})

describe('arguments of the codecs', () => {
  const engine = createEngine()
  const fields = ['clusterBits', 'virtualSize', 'fileBytes', 'bitmapBytes'] as const

  it.each([...wrong, ...missing])('refuse %s', bad => {
    const mark = arenaMark(engine)
    for (const field of fields) {
      const geometry = { ...goodGeometry, bitmapBytes: 100, [field]: bad }
      if (field !== 'bitmapBytes') {
        expect(() => parseBitmapDirectory(engine, encodeEntry(), 1, geometry), field).toThrow(RangeError)
      }
      if (field === 'clusterBits' || field === 'fileBytes') {
        expect(() => parseBitmapsExtension(engine, encodePayload(), geometry), field).toThrow(RangeError)
      }
      if (field !== 'virtualSize')
        expect(() => createTableDecoder(engine, geometry), field).toThrow(RangeError)
    }
    expect(() => parseBitmapDirectory(engine, encodeEntry(), bad, goodGeometry)).toThrow(RangeError)
    if (bad !== undefined) {
      expect(() => createTableDecoder(engine, { ...goodGeometry, bitmapBytes: 1 }, bad)).toThrow(RangeError)
      const options = { granularity: 512, limit: 512, roomBytes: bad }
      expect(() => new ExtentExtractor(engine, options)).toThrow(RangeError)
    }
    expect(() => new ExtentExtractor(engine, { granularity: bad, limit: 512 })).toThrow(RangeError)
    expect(() => new ExtentExtractor(engine, { granularity: 512, limit: bad })).toThrow(RangeError)
    expect(arenaMark(engine)).toBe(mark)
  })

  it.each([0, 8, 22, 64])('refuse clusters of 2^%i bytes', clusterBits => {
    const geometry = { ...goodGeometry, bitmapBytes: 1, clusterBits }
    expect(() => parseBitmapDirectory(engine, encodeEntry(), 1, geometry)).toThrow(RangeError)
    expect(() => parseBitmapsExtension(engine, encodePayload(), geometry)).toThrow(RangeError)
    expect(() => createTableDecoder(engine, geometry)).toThrow(RangeError)
  })

  it('are judged when the call is made, not when its chunks are taken', () => {
    engine.scratch(() => {
      const decoder = createTableDecoder(engine, { ...goodGeometry, bitmapBytes: 1 }, 16)
      expect(() => createTableDecoder(engine, { ...goodGeometry, bitmapBytes: 1 }, 0)).toThrow(RangeError)
      const extents = new ExtentExtractor(engine, { granularity: 512, limit: 512 })
      const lane = engine.lane(8)
      for (const bad of wrong) {
        expect(() => decoder.decode(0, bad)).toThrow(RangeError)
        expect(() => decoder.decode(bad, 1)).toThrow(RangeError)
        expect(() => extents.push(lane, bad)).toThrow(RangeError)
        expect(() => extents.pushRun(0, bad)).toThrow(RangeError)
      }
      expect(() => decoder.decode(0, 17)).toThrow(RangeError)
      expect(() => extents.push(lane, 65)).toThrow(RangeError)
      expect(() => extents.pushRun(2 as 1, 64)).toThrow(RangeError)
    })
  })

  it('refuse a room without place for edges', () => {
    for (const roomBytes of [0, 512, 1023]) {
      expect(() => new ExtentExtractor(engine, { granularity: 512, limit: 512, roomBytes })).toThrow(
        RangeError,
      )
    }
  })
})
