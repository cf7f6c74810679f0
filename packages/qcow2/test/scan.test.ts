import { buildQcow2 } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { createEngine, inspectImage, memoryStorage, scanBitmapTables } from '../src/index.js'

const engine = createEngine()

/** The findings of an image whose bitmap has these raw table entries; granularity 512, so 16 clusters of bits. */
async function scan(table: readonly (bigint | 'zeros' | 'ones')[], flags = 2) {
  const { bytes } = buildQcow2({
    clusterBits: 9,
    virtualSize: 512 * 8 * 512 * table.length,
    bitmaps: [{ name: 'b', granularityBits: 9, flags, table }],
  })
  return scanBitmapTables(await inspectImage(memoryStorage(bytes)), engine)
}

it('inspects a directory of 65,535 wrong entries without running out of stack', async () => {
  const entry = { granularityBits: 40, flags: 0xff8, type: 9, table: [] }
  const bitmaps = Array.from({ length: 65_535 }, (_, i) => ({ ...entry, name: `b${i}` }))
  const { bytes } = buildQcow2({ clusterBits: 9, virtualSize: 512, bitmaps })
  const { findings } = await inspectImage(memoryStorage(bytes))
  expect(findings.length).toBe(3 * 65_535)
})

describe('scanBitmapTables', () => {
  it('finds nothing in a sound table', async () => {
    expect(await scan(['zeros', 'ones', 'zeros'])).toEqual([])
  })

  it.each([
    ['reserved-bits', 0x2n],
    ['reserved-bits', 1n << 56n],
    ['ones-with-offset', 0x201n],
    ['past-end-of-file', 1n << 40n],
  ])('names %s and where it is', async (violation, raw) => {
    const [finding, ...rest] = await scan(['zeros', raw])
    expect(finding).toMatchObject({
      code: `bitmap-table-${violation}`,
      severity: 'error',
      field: 'entry 1',
      bitmap: 'b',
      found: `0x${raw.toString(16)}`,
    })
    expect(finding!.offset % 512).toBe(8)
    expect(rest).toEqual([])
  })

  it('only warns where QEMU does not look: in-use bitmaps', async () => {
    expect(await scan([0x2n], 1)).toMatchObject([{ severity: 'warning' }])
  })

  it('does not say the same a thousand times', async () => {
    const findings = await scan(Array.from({ length: 1000 }, () => 0x2n))
    expect(findings).toHaveLength(9)
    expect(findings[8]).toMatchObject({ code: 'bitmap-table-entries' })
    expect(findings[8]!.message).toContain('992 more')
  })
})
