import { describe, expect, it } from 'vitest'
import { createEngine, type Lane, type MergeOperation } from '../src/index.js'
import { bitAt, laneFrom, randomBits, sameBytes, seeded, setBit } from './model.js'

const MAX_BYTES = 300
const engine = createEngine({ arenaBytes: 64 * 1024 })

const models: Record<MergeOperation, (a: number, b: number) => number> = {
  union: (a, b) => a | b,
  intersection: (a, b) => a & b,
  difference: (a, b) => (a === 1 && b === 0 ? 1 : 0),
  xor: (a, b) => (a === b ? 0 : 1),
}
const operations = Object.keys(models) as MergeOperation[]

/** Two lanes of random bits at any address, with room behind them that must not change. */
function randomLane(random: (limit: number) => number): Lane {
  const lane = laneFrom(engine.lane(MAX_BYTES + 80), random(17))
  randomBits(lane.bytes, random)
  return lane
}

describe.each(operations)('%s', operation => {
  it('equals the bitwise model for every length and at any address, and touches nothing else', () => {
    const random = seeded(operations.indexOf(operation))
    const model = models[operation]
    for (let length = 0; length <= MAX_BYTES; length++) {
      for (let round = 0; round < 4; round++) {
        engine.scratch(() => {
          const dst = randomLane(random)
          const src = randomLane(random)
          const before = src.bytes.slice()
          const expected = dst.bytes.slice()
          for (let i = 0; i < length * 8; i++)
            setBit(expected, i, model(bitAt(dst.bytes, i), bitAt(before, i)))
          engine.merge(operation, dst, src, length)
          sameBytes(dst.bytes, expected, `dst, ${length} bytes`)
          sameBytes(src.bytes, before, `src, ${length} bytes`)
        })
      }
    }
  })

  it('takes a lane with itself', () => {
    engine.scratch(() => {
      const lane = engine.lane(100)
      const before = randomBits(lane.bytes, seeded(7)).slice()
      engine.merge(operation, lane, lane, 100)
      const same = operation === 'union' || operation === 'intersection'
      sameBytes(lane.bytes, same ? before : new Uint8Array(100), operation)
    })
  })
})

describe('maskTail', () => {
  it('clears every bit from the first on, up to the length and no further', () => {
    const random = seeded(11)
    for (let length = 0; length <= 40; length++) {
      for (let bits = 0; bits <= length * 8 + 9; bits++) {
        engine.scratch(() => {
          const lane = randomLane(random)
          const expected = lane.bytes.slice()
          for (let i = bits; i < length * 8; i++) setBit(expected, i, 0)
          engine.maskTail(lane, bits, length)
          sameBytes(lane.bytes, expected, `${bits} bits of ${length} bytes`)
        })
      }
    }
  })

  it('does nothing for more bits than a u32 counts', () => {
    engine.scratch(() => {
      const lane = engine.lane(64)
      lane.bytes.fill(0xff)
      for (const bits of [2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 8, 2 ** 40])
        engine.maskTail(lane, bits, 64)
      expect(engine.count(lane, 64)).toBe(512)
    })
  })
})

describe('count', () => {
  it('equals the bitwise model for every length and at any address', () => {
    const random = seeded(13)
    for (let length = 0; length <= MAX_BYTES; length++) {
      for (let round = 0; round < 4; round++) {
        engine.scratch(() => {
          const lane = randomLane(random)
          let expected = 0
          for (let i = 0; i < length * 8; i++) expected += bitAt(lane.bytes, i)
          expect(engine.count(lane, length)).toBe(expected)
        })
      }
    }
  })

  it.each([31 * 16 - 1, 31 * 16, 31 * 16 + 1, 32 * 16, 62 * 16 + 7, 4096])(
    'widens its byte sums before they overflow (%i bytes of ones)',
    length => {
      engine.scratch(() => {
        const lane = engine.lane(length)
        lane.bytes.fill(0xff)
        expect(engine.count(lane, length)).toBe(length * 8)
      })
    },
  )
})
