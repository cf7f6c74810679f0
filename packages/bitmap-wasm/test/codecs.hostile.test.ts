// Bytes as an attacker or a broken disk would write them: no exception, bounded output, no lane lost.
import { describe, expect, it } from 'vitest'
import {
  createEngine,
  createTableDecoder,
  entryViolations,
  extensionViolations,
  parseBitmapDirectory,
  parseBitmapsExtension,
  tableViolations,
} from '../src/index.js'
import { concat, encodeEntry, goodGeometry } from './encode.js'
import { arenaMark, seeded } from './model.js'

const engine = createEngine()
const random = seeded(42)
const geometries = [9, 12, 16, 21].flatMap(clusterBits =>
  [0, 1, 65536, 2 ** 53 - 1].map(fileBytes => ({ clusterBits, fileBytes, virtualSize: fileBytes })),
)

function randomBytes(length: number): Uint8Array {
  // Mostly zeros makes small sizes, so that parsing gets further than the first entry.
  const zeros = random(4) * 85
  return Uint8Array.from({ length }, () => (random(256) < zeros ? 0 : random(256)))
}

function checkDirectory(bytes: Uint8Array, count: number, geometry: (typeof geometries)[number]): void {
  const mark = arenaMark(engine)
  const entries = parseBitmapDirectory(engine, bytes, count, geometry)
  expect(arenaMark(engine)).toBe(mark)
  expect(entries.length).toBeLessThanOrEqual(Math.min(count, Math.floor(bytes.length / 24)))
  let at = 0
  for (const [i, entry] of entries.entries()) {
    expect(entry.entryOffset).toBe(at)
    at += entry.entryBytes
    expect(entry.entryBytes % 8).toBe(0)
    expect(entry.violations.includes('truncated')).toBe(at > bytes.length)
    if (at > bytes.length) expect(i).toBe(entries.length - 1)
    expect(entry.violations.every(violation => entryViolations.includes(violation))).toBe(true)
    expect(entry.nameBytes.length).toBeLessThanOrEqual(bytes.length)
    expect(Number.isFinite(entry.tableOffset)).toBe(true)
  }
}

describe('a bitmap directory', () => {
  it('of random bytes', () => {
    for (let round = 0; round < 600; round++) {
      checkDirectory(
        randomBytes(random(2000)),
        [1, 5, 65535][round % 3]!,
        geometries[round % geometries.length]!,
      )
    }
  })

  it('with one byte changed, at every place', () => {
    const good = concat([
      encodeEntry(),
      encodeEntry({ flags: 1 }),
      encodeEntry({ name: new Uint8Array(30).fill(65) }),
    ])
    for (let i = 0; i < good.length; i++) {
      for (const value of [0, 1, 0x7f, 0x80, 0xff, good[i]! ^ 4]) {
        const bytes = good.slice()
        bytes[i] = value
        checkDirectory(bytes, 3, goodGeometry)
      }
    }
  })

  it('cut at every place', () => {
    const good = concat([encodeEntry({ extraData: new Uint8Array(9) }), encodeEntry(), encodeEntry()])
    for (let length = 0; length <= good.length; length++)
      checkDirectory(good.subarray(0, length), 3, goodGeometry)
  })

  it('of the smallest entries, more than an image may have', () => {
    // 4 MiB of zeros are 174,762 entries of 24 bytes.
    const bytes = new Uint8Array(4 * 1024 * 1024)
    expect(parseBitmapDirectory(engine, bytes, 2 ** 32 - 1, goodGeometry)).toHaveLength(65535)
  })
})

describe('a bitmap table', () => {
  it('of random bytes', () => {
    for (let round = 0; round < 300; round++) {
      const mark = arenaMark(engine)
      const { clusterBits, fileBytes } = geometries[round % geometries.length]!
      const entries = random(3000)
      engine.scratch(() => {
        const decoder = createTableDecoder(engine, { clusterBits, fileBytes, bitmapBytes: fileBytes })
        decoder.window.bytes.set(randomBytes(entries * 8))
        let next = 7
        for (const run of decoder.decode(7, entries)) {
          if (run.firstEntry !== next || run.count < 1) throw new Error(`entry ${next}: ${run.firstEntry}`)
          next += run.count
          if (run.kind === 'invalid' && !run.violations.every(v => tableViolations.includes(v)))
            throw new Error('?')
          if (run.kind === 'data' && !(run.hostOffset <= fileBytes)) throw new Error(`${run.hostOffset}`)
        }
        expect(next).toBe(7 + entries)
      })
      expect(arenaMark(engine)).toBe(mark)
    }
  })
})

describe('an extension', () => {
  it('of random bytes', () => {
    for (let round = 0; round < 1000; round++) {
      const mark = arenaMark(engine)
      const extension = parseBitmapsExtension(engine, randomBytes(24), geometries[round % geometries.length]!)
      expect(extension.violations.every(violation => extensionViolations.includes(violation))).toBe(true)
      expect(Number.isFinite(extension.directoryOffset + extension.directorySize)).toBe(true)
      expect(arenaMark(engine)).toBe(mark)
    }
  })
})
