import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createEngine, createTableDecoder, type TableRun, type TableViolation } from '../src/index.js'
import { encodeTable } from './encode.js'

const engine = createEngine()

interface Table {
  raw: bigint[]
  clusterBits: number
  bitmapBytes: number
  fileBytes: number
  windowEntries: number
}

function naiveEntry(raw: bigint, index: number, table: Table): TableRun {
  const cluster = 1n << BigInt(table.clusterBits)
  const offset = raw & 0x00fffffffffffe00n
  const left = BigInt(table.bitmapBytes) - BigInt(index) * cluster
  const needed = left < 0n ? 0n : left < cluster ? left : cluster
  const violations: TableViolation[] = []
  if ((raw & 0xff000000000001fen) !== 0n) violations.push('reserved-bits')
  if (offset !== 0n && (raw & 1n) !== 0n) violations.push('ones-with-offset')
  if (offset % cluster !== 0n) violations.push('unaligned')
  if (offset !== 0n && offset + needed > BigInt(table.fileBytes)) violations.push('past-end-of-file')
  if (violations.length > 0) return { kind: 'invalid', firstEntry: index, count: 1, raw, violations }
  if (offset !== 0n) return { kind: 'data', firstEntry: index, count: 1, hostOffset: Number(offset) }
  return { kind: (raw & 1n) !== 0n ? 'ones' : 'zeros', firstEntry: index, count: 1 }
}

/** Runs join within a window, not across two. */
function naiveRuns(table: Table): TableRun[] {
  const runs: { -readonly [K in keyof TableRun]: TableRun[K] }[] = []
  for (const [index, raw] of table.raw.entries()) {
    const run = naiveEntry(raw, index, table)
    const last = runs.at(-1) as TableRun | undefined
    const joins =
      last !== undefined &&
      index % table.windowEntries !== 0 &&
      run.kind !== 'invalid' &&
      last.kind === run.kind &&
      (run.kind !== 'data' ||
        (last.kind === 'data' && last.hostOffset + last.count * 2 ** table.clusterBits === run.hostOffset))
    if (joins) runs[runs.length - 1] = { ...last, count: last.count + 1 } as TableRun
    else runs.push(run)
  }
  return runs as TableRun[]
}

function decodeInWindows(table: Table): TableRun[] {
  return engine.scratch(() => {
    const decoder = createTableDecoder(engine, table, table.windowEntries)
    const runs: TableRun[] = []
    for (let first = 0; first < table.raw.length; first += table.windowEntries) {
      const entries = table.raw.slice(first, first + table.windowEntries)
      encodeTable(entries, decoder.window.bytes)
      runs.push(...decoder.decode(first, entries.length))
    }
    return runs
  })
}

const clusterBits = fc.integer({ min: 9, max: 21 })

/** A piece of a table: runs, data side by side, strays and lies. */
const piece = (bits: number) =>
  fc.oneof(
    fc
      .tuple(fc.constantFrom(0n, 1n), fc.integer({ min: 1, max: 40 }))
      .map(([raw, n]) => Array<bigint>(n).fill(raw)),
    fc
      .tuple(fc.bigInt({ min: 0n, max: 64n }), fc.integer({ min: 1, max: 40 }))
      .map(([first, n]) => Array.from({ length: n }, (_, i) => (first + BigInt(i)) << BigInt(bits))),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(raw => [raw]),
    fc.nat(63).map(bit => [1n << BigInt(bit)]),
    fc.bigInt({ min: 0n, max: 2n ** 47n }).map(clusters => [(clusters << 9n) & 0x00fffffffffffe00n]),
  )

const tables = clusterBits.chain(bits =>
  fc.record({
    raw: fc.array(piece(bits), { maxLength: 30 }).map(parts => parts.flat()),
    clusterBits: fc.constant(bits),
    bitmapBytes: fc.oneof(fc.nat(2 ** bits * 3), fc.nat(2 ** 30)),
    fileBytes: fc.oneof(fc.nat(2 ** bits * 50), fc.constantFrom(2 ** 40, 2 ** 52, 2 ** 53 - 1)),
    windowEntries: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(4096)),
  }),
)

describe('createTableDecoder', () => {
  it('equals the model of one entry after the other', () => {
    fc.assert(
      fc.property(tables, table => {
        expect(decodeInWindows(table)).toEqual(naiveRuns(table))
      }),
      { numRuns: 400 },
    )
  })

  it('resumes where its room for runs was full, without splitting a run', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1500, maxLength: 2000 }), lengths => {
        const raw = lengths.flatMap((n, i) => Array<bigint>(n).fill(BigInt(i & 1))).slice(0, 4096)
        const table = { raw, clusterBits: 16, bitmapBytes: 2 ** 40, fileBytes: 2 ** 40, windowEntries: 4096 }
        expect(decodeInWindows(table)).toEqual(naiveRuns(table))
      }),
      { numRuns: 10 },
    )
  })
})
