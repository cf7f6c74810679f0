import { Random } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { KiB, makeField, type Size, WINDOW_BYTES } from '../src/engine/field.js'
import { compileNative } from '../src/engine/native.js'
import { engineBenchmarks } from '../src/engine/operations.js'
import { patterns } from '../src/engine/patterns.js'
import { roaringFromBits, roaringToBits } from '../src/engine/roaring.js'
import { agree } from '../src/harness/rounds.js'

const natives = compileNative().kernels
const small: Size = { name: 'small', bytes: 64 * KiB, where: 'arena' }
const streamed: Size = { name: 'streamed', bytes: 2 * WINDOW_BYTES, where: 'stream' }

describe.each(engineBenchmarks)('$name', benchmark => {
  it.each(patterns)('has one answer from all, $name', pattern => {
    for (const size of [small, streamed]) {
      const field = makeField(size, pattern)
      const contenders = benchmark.contenders(field, natives)
      expect(contenders[0]?.name).toBe('tidemark')
      expect(contenders.length).toBeGreaterThanOrEqual(2 + natives.length)
      agree(contenders)
      // Also after they have run, and in another order.
      for (const contender of contenders) {
        contender.prepare?.()
        contender.run()
      }
      agree([...contenders].reverse())
      for (const contender of contenders) contender.dispose?.()
    }
  })
})

describe('patterns', () => {
  const density = (name: string): number => {
    const field = makeField(streamed, patterns.find(pattern => pattern.name === name)!)
    let set = 0
    for (const byte of field.dst) for (let bits = byte; bits !== 0; bits &= bits - 1) set++
    return set / (field.dst.length * 8)
  }

  it('are as dense as they say', () => {
    expect(density('empty')).toBe(0)
    expect(density('0.01 %')).toBeCloseTo(0.0001, 5)
    expect(density('0.1 %')).toBeCloseTo(0.001, 4)
    expect(density('1 %')).toBeCloseTo(0.01, 3)
    expect(density('50 %')).toBeCloseTo(0.5, 2)
    expect(density('clustered')).toBeGreaterThan(0.01)
    expect(density('clustered')).toBeLessThan(0.022)
    expect(density('alternating')).toBe(0.5)
  })

  it('are the same each time', () => {
    for (const pattern of patterns) {
      const [one, other] = [makeField(small, pattern), makeField(small, pattern)]
      expect(Buffer.compare(one.dst, other.dst)).toBe(0)
      expect(Buffer.compare(one.src, other.src)).toBe(0)
    }
  })
})

describe('roaring bitmaps', () => {
  it('take bits and give them back: lists, bits, and containers that are not there', () => {
    const bytes = new Uint8Array(5 * 8192)
    bytes.set(new Random('roaring').bytes(8192), 8192)
    for (const bit of [0, 1, 65535, 3 * 65536 + 77]) bytes[bit >> 3]! |= 1 << (bit & 7)
    // 4,096 values are a list still, one more is not.
    for (let i = 0; i < 4096; i++) bytes[4 * 8192 + i * 2] = 1
    const bitmap = roaringFromBits(bytes)
    expect(bitmap.has(3 * 65536 + 77)).toBe(true)
    const back = new Uint8Array(bytes.length)
    roaringToBits(bitmap, back)
    expect(Buffer.compare(back, bytes)).toBe(0)
    bitmap.dispose()
  })
})
