import { describe, expect, it } from 'vitest'
import {
  type BitmapEngine,
  createEngine,
  createTableDecoder,
  ExtentExtractor,
  type Lane,
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
      ['lane', () => engine.lane(bad)],
    ]
    for (const [what, call] of calls) refused(engine, call, what)
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
