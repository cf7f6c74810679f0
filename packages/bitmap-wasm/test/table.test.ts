import { describe, expect, it } from 'vitest'
import { createEngine, createTableDecoder, type TableRun, type TableViolation } from '../src/index.js'
import { encodeTable } from './encode.js'
import { arenaMark } from './model.js'

const engine = createEngine()
const HIGH = 2 ** 53 - 1

/** One window, one decoder. */
function decode(
  raw: readonly bigint[],
  options: Partial<Parameters<typeof createTableDecoder>[1]> = {},
): TableRun[] {
  const geometry = { clusterBits: 16, bitmapBytes: 2 ** 40, fileBytes: HIGH, ...options }
  return engine.scratch(() => {
    const decoder = createTableDecoder(engine, geometry, Math.max(1, raw.length))
    encodeTable(raw, decoder.window.bytes)
    return [...decoder.decode(0, raw.length)]
  })
}

describe('one entry', () => {
  it('is zeros, ones or data', () => {
    expect(decode([0n])).toEqual([{ kind: 'zeros', firstEntry: 0, count: 1 }])
    expect(decode([1n])).toEqual([{ kind: 'ones', firstEntry: 0, count: 1 }])
    expect(decode([0x50000n])).toEqual([{ kind: 'data', firstEntry: 0, count: 1, hostOffset: 0x50000 }])
  })

  // A rival's mask selects bits 5–47 instead of 9–55: both edges, and the middle, bit by bit.
  it.each(Array.from({ length: 64 }, (_, bit) => bit))('with bit %i set', bit => {
    const raw = 1n << BigInt(bit)
    const [run] = decode([raw], { clusterBits: 9 })
    if (bit === 0) expect(run!.kind).toBe('ones')
    else if (bit < 9 || bit > 55)
      expect(run).toMatchObject({ kind: 'invalid', raw, violations: ['reserved-bits'] })
    else if (bit < 53) expect(run).toMatchObject({ kind: 'data', hostOffset: 2 ** bit })
    else expect(run).toMatchObject({ kind: 'invalid', raw, violations: ['past-end-of-file'] })
  })

  it.each<[bigint, number, TableViolation[]]>([
    [0x0000000000010001n, 16, ['ones-with-offset']],
    [0x0000000000018000n, 16, ['unaligned']],
    [0x0000000000000200n, 16, ['unaligned']],
    [0x0000000000100000n, 21, ['unaligned']],
    [0x0080000000000000n, 16, ['past-end-of-file']],
    [0x0000000000000003n, 16, ['reserved-bits']],
    [0x8000000000000001n, 16, ['reserved-bits']],
    [0xffffffffffffffffn, 16, ['reserved-bits', 'ones-with-offset', 'unaligned', 'past-end-of-file']],
  ])('%s in clusters of 2^%i', (raw, clusterBits, violations) => {
    expect(decode([raw], { clusterBits })).toEqual([
      { kind: 'invalid', firstEntry: 0, count: 1, raw, violations },
    ])
  })

  it('is exact above 2^53 − 1 nowhere, since no file is as long', () => {
    expect(decode([(1n << 53n) - 512n], { clusterBits: 9, fileBytes: HIGH, bitmapBytes: 512 })).toMatchObject(
      [{ kind: 'invalid', violations: ['past-end-of-file'] }],
    )
    expect(
      decode([(1n << 53n) - 1024n], { clusterBits: 9, fileBytes: HIGH, bitmapBytes: 512 }),
    ).toMatchObject([{ kind: 'data', hostOffset: 2 ** 53 - 1024 }])
  })
})

describe('the end of the file', () => {
  it('may cut a whole cluster off by no byte', () => {
    const kinds = [0x60000, 0x5ffff].map(fileBytes => decode([0x50000n], { fileBytes })[0]!.kind)
    expect(kinds).toEqual(['data', 'invalid'])
  })

  it('may cut the last cluster where the bitmap ends', () => {
    const options = { bitmapBytes: 65536 + 100 }
    const raw = [0x20000n, 0x50000n]
    expect(decode(raw, { ...options, fileBytes: 0x50000 + 100 }).map(run => run.kind)).toEqual([
      'data',
      'data',
    ])
    expect(decode(raw, { ...options, fileBytes: 0x50000 + 99 }).map(run => run.kind)).toEqual([
      'data',
      'invalid',
    ])
  })

  it('needs no byte for a cluster behind the bitmap’s last, but the offset must be in the file', () => {
    const options = { bitmapBytes: 65536 }
    const raw = [0x20000n, 0x50000n]
    expect(decode(raw, { ...options, fileBytes: 0x50000 }).map(run => run.kind)).toEqual(['data', 'data'])
    expect(decode(raw, { ...options, fileBytes: 0x4ffff }).map(run => run.kind)).toEqual(['data', 'invalid'])
  })
})

describe('runs', () => {
  it('join neighbours of one kind, and data that lies side by side', () => {
    const raw = [0n, 0n, 1n, 1n, 1n, 0x10000n, 0x20000n, 0x40000n, 0x30000n, 0x40000n, 0x40000n, 0n]
    expect(decode(raw)).toEqual([
      { kind: 'zeros', firstEntry: 0, count: 2 },
      { kind: 'ones', firstEntry: 2, count: 3 },
      { kind: 'data', firstEntry: 5, count: 2, hostOffset: 0x10000 },
      { kind: 'data', firstEntry: 7, count: 1, hostOffset: 0x40000 },
      { kind: 'data', firstEntry: 8, count: 2, hostOffset: 0x30000 },
      { kind: 'data', firstEntry: 10, count: 1, hostOffset: 0x40000 },
      { kind: 'zeros', firstEntry: 11, count: 1 },
    ])
  })

  it('leave each invalid entry by itself', () => {
    const raw = [2n, 2n, 0x10000n, 0x20002n, 0x30000n]
    expect(decode(raw).map(run => [run.kind, run.firstEntry, run.count])).toEqual([
      ['invalid', 0, 1],
      ['invalid', 1, 1],
      ['data', 2, 1],
      ['invalid', 3, 1],
      ['data', 4, 1],
    ])
  })
})

describe('a table of 2^20 entries and some', () => {
  it('goes through a fixed window', () => {
    const total = 2 ** 20 + 777
    engine.scratch(() => {
      const decoder = createTableDecoder(engine, {
        clusterBits: 9,
        bitmapBytes: total * 512,
        fileBytes: HIGH,
      })
      expect(decoder.windowEntries).toBe(4096)
      const view = new DataView(decoder.window.bytes.buffer, decoder.window.ptr)
      const mark = arenaMark(engine)
      let entries = 0
      let dataEntries = 0
      for (let first = 0; first < total; first += decoder.windowEntries) {
        const count = Math.min(decoder.windowEntries, total - first)
        // Each third entry is zeros: runs of two, and a window has more of them than the decoder has room for.
        for (let i = 0; i < count; i++) {
          const index = first + i
          view.setBigUint64(i * 8, index % 3 === 0 ? 0n : BigInt(index) << 9n)
        }
        for (const run of decoder.decode(first, count)) {
          if (run.firstEntry !== entries) throw new Error(`entry ${entries}: ${run.firstEntry}`)
          if (run.kind === 'data') {
            dataEntries += run.count
            if (run.hostOffset !== run.firstEntry * 512)
              throw new Error(`${run.firstEntry}: ${run.hostOffset}`)
          }
          entries += run.count
        }
      }
      expect(entries).toBe(total)
      expect(dataEntries).toBe(total - Math.ceil(total / 3))
      expect(arenaMark(engine)).toBe(mark)
    })
  })

  it('counts entries up to 2^32', () => {
    engine.scratch(() => {
      const decoder = createTableDecoder(engine, { clusterBits: 9, bitmapBytes: 0, fileBytes: HIGH }, 8)
      encodeTable([0n, 0n, 1n], decoder.window.bytes)
      const first = 2 ** 32 - 3
      expect([...decoder.decode(first, 3)]).toEqual([
        { kind: 'zeros', firstEntry: first, count: 2 },
        { kind: 'ones', firstEntry: first + 2, count: 1 },
      ])
      expect(() => decoder.decode(first + 1, 3)).toThrow(RangeError)
    })
  })
})
