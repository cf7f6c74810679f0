import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createEngine, ExtentExtractor } from '../src/index.js'
import { bitAt, naiveExtents, seeded, setBit } from './model.js'

const engine = createEngine({ arenaBytes: 256 * 1024 })

/** A window of bits from a lane, or a run of one value without a lane. */
type Step = { kind: 'push'; bits: number[] } | { kind: 'run'; value: 0 | 1; length: number }

interface Extraction {
  steps: Step[]
  granularity: number
  /** Bytes that the disk lacks of the last granule. */
  short: number
  roomBytes?: number
}

function bitsOf(steps: readonly Step[]): number[] {
  return steps.flatMap(step => (step.kind === 'push' ? step.bits : Array(step.length).fill(step.value)))
}

function extract({ steps, granularity, roomBytes }: Extraction, limit: number): number[] {
  return engine.scratch(() => {
    const options = { granularity, limit }
    const extents = new ExtentExtractor(engine, roomBytes === undefined ? options : { ...options, roomBytes })
    const out: number[] = []
    for (const step of steps) {
      engine.scratch(() => {
        if (step.kind === 'run') {
          for (const chunk of extents.pushRun(step.value, step.length)) out.push(...whole(chunk))
          return
        }
        // What lies after the window's last bit means nothing, and is set here.
        const lane = engine.lane(Math.ceil(step.bits.length / 8) + 8)
        lane.bytes.fill(0xff)
        for (const [i, bit] of step.bits.entries()) setBit(lane.bytes, i, bit)
        for (const chunk of extents.push(lane, step.bits.length)) out.push(...whole(chunk))
      })
    }
    const last = extents.finish()
    if (last !== undefined) out.push(...whole(last))
    return out
  })
}

function whole(chunk: Float64Array): number[] {
  expect(chunk.length).toBeGreaterThan(0)
  expect(chunk.length % 2).toBe(0)
  return [...chunk]
}

function check(extraction: Extraction): void {
  const bits = bitsOf(extraction.steps)
  const limit = Math.max(0, bits.length * extraction.granularity - extraction.short)
  expect(extract(extraction, limit)).toEqual(naiveExtents(bits, extraction.granularity, limit))
}

// Runs long enough for the 512-bit steps, or noise, or the densest there is.
const stretch = fc.oneof(
  fc.tuple(fc.nat(1), fc.nat(1500)).map(([value, length]) => Array<number>(length).fill(value)),
  fc.array(fc.nat(1), { maxLength: 200 }),
  fc.nat(600).map(length => Array.from({ length }, (_, i) => i & 1)),
)
const bitArray = fc.array(stretch, { maxLength: 8 }).map(parts => parts.flat())
const run = fc.record({
  kind: fc.constant('run' as const),
  value: fc.constantFrom(0 as const, 1 as const),
  length: fc.oneof(fc.nat(130), fc.constantFrom(0, 64, 512, 4096)),
})
const wordWindow = bitArray.map(bits => ({ kind: 'push' as const, bits: bits.slice(0, bits.length & ~63) }))
const anyWindow = bitArray.map(bits => ({ kind: 'push' as const, bits }))
const geometry = {
  granularity: fc.integer({ min: 9, max: 31 }).map(bits => 2 ** bits),
  short: fc.nat(511),
  roomBytes: fc.constantFrom(1024, 1025, 1032, 1040, 1047, 1048, 1100, 4096),
}

describe('ExtentExtractor', () => {
  it('equals the bitwise model, however the bits are cut into windows of whole words and runs', () => {
    const steps = fc
      .tuple(fc.array(fc.oneof(wordWindow, run), { maxLength: 6 }), anyWindow)
      .map(([windows, last]) => [...windows, last])
    fc.assert(fc.property(fc.record({ steps, ...geometry }), check), { numRuns: 400 })
  })

  it('equals the bitwise model for windows of any length', () => {
    const steps = fc.array(fc.oneof(anyWindow, run), { maxLength: 8 })
    fc.assert(fc.property(fc.record({ steps, ...geometry }), check), { numRuns: 400 })
  })

  it('equals the bitwise model for every length up to 700 bits, cut at every word', () => {
    const random = seeded(3)
    for (let length = 0; length <= 700; length++) {
      const density = [16, 128, 240][length % 3]!
      const bits = Array.from({ length }, () => (random(256) < density ? 1 : 0))
      const cut = 64 * random(Math.floor(length / 64) + 1)
      const steps: Step[] = [
        { kind: 'push', bits: bits.slice(0, cut) },
        { kind: 'push', bits: bits.slice(cut) },
      ]
      check({ steps, granularity: 512, short: random(512), roomBytes: 1024 })
    }
  })

  it.each([1024, 1032, 1040])('keeps every edge of alternating bits in a room of %i bytes', roomBytes => {
    for (const first of [0, 1]) {
      for (const length of [64, 65, 127, 128, 129, 191, 192, 193, 4096, 4097]) {
        const bits = Array.from({ length }, (_, i) => (i + first) & 1)
        check({ steps: [{ kind: 'push', bits }], granularity: 65536, short: 1, roomBytes })
      }
    }
  })

  it('keeps the end of an extent that opens with the last edge there is room for', () => {
    // An open start, 63 more edges, then 64 in one word, then the finishing one.
    for (const roomBytes of [1024, 1032]) {
      const bits = [...Array<number>(64).fill(0), ...Array.from({ length: 192 }, (_, i) => (i + 1) & 1), 1]
      for (let lead = 0; lead < 66; lead++) {
        const steps: Step[] = [
          { kind: 'push', bits: Array.from({ length: 128 }, (_, i) => (i < lead ? 0 : i & 1)) },
          { kind: 'push', bits },
        ]
        check({ steps, granularity: 512, short: 0, roomBytes })
        check({
          steps: [...steps, { kind: 'run', value: 1, length: 9 }],
          granularity: 512,
          short: 0,
          roomBytes,
        })
      }
    }
  })

  it('joins extents across windows and runs', () => {
    const ones = (length: number): Step => ({ kind: 'push', bits: Array<number>(length).fill(1) })
    const steps: Step[] = [ones(64), { kind: 'run', value: 1, length: 1000 }, ones(640), ones(13)]
    expect(extract({ steps, granularity: 512, short: 0 }, 1717 * 512)).toEqual([0, 1717 * 512])
  })

  it('steps over 512 unchanged bits even where the room has no place for a word', () => {
    // Through the kernel itself, since only there the fast path shows: the other path stops for want of room.
    engine.scratch(() => {
      const src = engine.lane(8 + 640)
      const out = engine.lane(64 * 8)
      src.bytes.fill(0x55, 0, 8)
      const { kernels } = engine
      expect(kernels.edges(src.ptr, 64 + 5120, 0, 0, 1, out.ptr, 64)).toBe(64)
      expect(kernels.lastBits.value).toBe(64 + 5120)
      src.bytes.fill(0xff, 8)
      src.bytes[7] = 0xd5
      expect(kernels.edges(src.ptr, 64 + 5120, 0, 0, 1, out.ptr, 64)).toBe(63)
      expect(kernels.lastBits.value).toBe(64 + 5120)
      expect(kernels.lastBit.value).toBe(1)
    })
  })

  it('is exact above 2^32 granules and 2^32 bytes', () => {
    const granularity = 2 ** 20
    const steps: Step[] = [
      { kind: 'run', value: 0, length: 2 ** 32 - 64 },
      { kind: 'push', bits: Array.from({ length: 128 }, (_, i) => (i === 3 || i > 125 ? 1 : 0)) },
    ]
    const start = (2 ** 32 - 64) * granularity
    const limit = start + 128 * granularity - 1
    expect(limit).toBeGreaterThanOrEqual(2 ** 52)
    expect(extract({ steps, granularity, short: 1 }, limit)).toEqual([
      start + 3 * granularity,
      start + 4 * granularity,
      start + 126 * granularity,
      limit,
    ])
  })

  it('gives no extent past the limit, whatever bits are pushed after it', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(anyWindow, run), { maxLength: 5 }), fc.nat(4000), (steps, granules) => {
        const limit = Math.max(0, granules * 512 - 100)
        const actual = extract({ steps, granularity: 512, short: 0, roomBytes: 1024 }, limit)
        expect(actual).toEqual(naiveExtents(bitsOf(steps), 512, limit))
      }),
      { numRuns: 200 },
    )
  })

  it('closes an extent where the bits end, not where the disk does', () => {
    const ones = { kind: 'run' as const, value: 1 as const, length: 64 }
    expect(extract({ steps: [ones], granularity: 512, short: 0 }, 2 ** 30)).toEqual([0, 64 * 512])
    const pushed = { kind: 'push' as const, bits: Array<number>(64).fill(1) }
    expect(extract({ steps: [pushed], granularity: 512, short: 0 }, 2 ** 30)).toEqual([0, 64 * 512])
  })

  it('begins again after finish()', () => {
    engine.scratch(() => {
      const extents = new ExtentExtractor(engine, { granularity: 512, limit: 64 * 512 })
      const lane = engine.lane(8)
      lane.bytes[0] = 0b110
      for (let round = 0; round < 3; round++) {
        expect([...extents.push(lane, 64)]).toEqual([])
        expect([...extents.finish()!]).toEqual([512, 3 * 512])
      }
      expect(extents.finish()).toBeUndefined()
    })
  })

  it('leaves the lane as it was', () => {
    engine.scratch(() => {
      const lane = engine.lane(8)
      lane.bytes.fill(0xff)
      const extents = new ExtentExtractor(engine, { granularity: 512, limit: 5 * 512 })
      expect([...extents.push(lane, 5)]).toEqual([])
      expect(Array.from({ length: 64 }, (_, i) => bitAt(lane.bytes, i))).not.toContain(0)
    })
  })
})
