import { readFileSync, writeFileSync } from 'node:fs'
import {
  buildQcow2,
  missingPeers,
  type Qcow2Spec,
  run,
  type TempDir,
  tempDir,
  writeQcow2,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { raw } from './raw.js'

interface Info {
  readonly findings: readonly { readonly code: string; readonly severity: string; readonly offset: number }[]
}

const hasQemu = missingPeers('qemu-img').length === 0
const good = { name: 'good', dirty: [1] }

describe('images that are not as they should be', () => {
  let dir: TempDir
  beforeAll(() => {
    dir = tempDir()
  })
  afterAll(() => dir?.remove())

  const errorOf = async (...args: string[]): Promise<[number, string]> => {
    const { status, error } = await tidemarkError(args)
    return [status, error.code]
  }

  describe('QEMU refuses them, info shows them and says why', () => {
    const cases: Record<string, readonly [Qcow2Spec, string, number]> = {
      'a flag that QEMU does not know': [{ bitmaps: [{ ...good, flags: 8 }] }, 'bitmap-flags-reserved', 0],
      'extra data that may not be ignored': [
        { bitmaps: [{ ...good, extraData: new Uint8Array(8) }] },
        'bitmap-extra-data',
        0,
      ],
      'a type that is none': [{ bitmaps: [{ ...good, type: 2 }] }, 'bitmap-type-unknown', 0],
      'a table at 0': [{ bitmaps: [{ ...good, claims: { tableOffset: 0 } }] }, 'bitmap-table-offset-zero', 0],
      'a table between clusters': [
        { bitmaps: [{ ...good, claims: { tableOffset: 0x50200 } }] },
        'bitmap-table-offset-unaligned',
        0,
      ],
      'a table of another size': [
        { bitmaps: [{ ...good, claims: { tableSize: 9 } }] },
        'bitmap-table-size-mismatch',
        0,
      ],
      'a granularity of 256 bytes': [
        { bitmaps: [{ name: 'g', granularityBits: 8 }] },
        'bitmap-granularity',
        0,
      ],
      'a table entry with reserved bits': [
        { bitmaps: [{ name: 'g', table: [0x2n] }] },
        'bitmap-table-reserved-bits',
        0,
      ],
      'two of one name': [{ bitmaps: [good, good] }, 'bitmap-name-duplicate', 0],
      'a directory in the void': [
        { bitmaps: [good], bitmapsExtension: { directoryOffset: 2 ** 40 } },
        'bitmaps-extension-past-end-of-file',
        0,
      ],
      '65,535 bitmaps claimed': [
        { bitmaps: [good], bitmapsExtension: { nbBitmaps: 65535, directorySize: 65535 * 24 } },
        'bitmaps-extension-past-end-of-file',
        0,
      ],
      'an extension longer than its cluster': [
        { extensions: [{ magic: 0x1234, data: new Uint8Array(8), length: 2 ** 31 }] },
        'extension-too-long',
        0,
      ],
      'an unknown incompatible feature': [{ incompatibleFeatures: 1n << 40n }, 'unsupported-feature', 63],
      'a refcount table of no size': [{ refcountOrder: 9 }, 'header-refcount-order', 0],
    }
    it.each(Object.entries(cases))('%s', async (name, [spec, code, status]) => {
      const file = dir.file(`${name}.qcow2`)
      // A width that the builder does not lay out is put in afterwards.
      const { bytes } = buildQcow2({ ...spec, refcountOrder: Math.min(spec.refcountOrder ?? 4, 6) })
      if (spec.refcountOrder !== undefined) bytes[99] = spec.refcountOrder
      writeFileSync(file, bytes)
      if (hasQemu) expect((await run('qemu-img', ['info', file], { accept: 'any' })).status).toBe(1)
      const { findings } = await tidemarkJson<Info>(['info', file], { status })
      expect(findings.map(finding => finding.code)).toContain(code)
      const human = await tidemark(['info', file])
      expect(human.status).toBe(status)
      expect(human.stdout).toMatch(/FINDING +AT/)
      expect(human.stdout).toMatch(/error +0x[0-9a-f]+ /)
    })

    it('a malformed entry leaves the other bitmaps readable', async () => {
      const file = dir.file('other.qcow2')
      writeQcow2(file, { bitmaps: [{ name: 'bad', type: 9 }, good] })
      expect(await tidemarkJson(['map', file, '--bitmap', 'good', '--dirty'])).toHaveLength(1)
      expect(await errorOf('map', file, '--bitmap', 'bad')).toEqual([1, 'corrupt-image'])
      const { stdout } = await tidemark(['info', '--count', file])
      expect(stdout).toMatch(/bad +64 KiB +corrupt +cannot be read/)
      expect(stdout).toMatch(/good +64 KiB +recording +64 KiB \(6.25 %\)/)
    })
  })

  it('stale bitmaps: told by info, refused by map unless --force', async () => {
    const file = dir.file('stale.qcow2')
    writeQcow2(file, { bitmapsConsistent: false, bitmaps: [good] })
    expect(await tidemarkJson(['info', file])).toMatchObject({
      'bitmaps-stale': true,
      'format-specific': { data: { 'bitmaps-stale': true } },
    })
    expect((await tidemark(['info', file])).stdout).toMatch(/good +64 KiB +stale/)
    expect(await errorOf('map', file, '--bitmap', 'good')).toEqual([1, 'bitmaps-stale'])
    const forced = await tidemark(['map', file, '--bitmap', 'good', '--force', '--dirty', '--output', 'json'])
    expect(forced.stderr).toMatch(/^warning: bitmap 'good' .* is stale/)
    expect(JSON.parse(forced.stdout)).toMatchObject([{ offset: 65536, length: 65536, type: 1 }])
  })

  it('no bitmap of that name: the names that there are', async () => {
    const file = dir.file('names.qcow2')
    writeQcow2(file, { bitmaps: [good] })
    const { status, error } = await tidemarkError(['map', file, '--bitmap', 'god'])
    expect([status, error.code]).toEqual([1, 'bitmap-missing'])
    expect(error.message).toContain("it has 'good'")
  })

  it.each([
    ['map', 'image-missing', 1],
    ['info', 'image-missing', 1],
  ] as const)('%s of no file: %s', async (command, code, status) => {
    expect(await errorOf(command, dir.file('none'), ...bitmapOf(command))).toEqual([status, code])
  })

  it.each(['info', 'map'])('%s of a folder, a device, a file below a file', async command => {
    for (const path of [dir.path, '/dev/null', '/dev/zero']) {
      expect(await errorOf(command, path, ...bitmapOf(command)), path).toEqual([1, 'read-failed'])
    }
  })

  it('a raw file has no bitmaps', async () => {
    writeFileSync(dir.file('text'), 'no image at all\n'.repeat(100))
    expect(await errorOf('map', dir.file('text'), '--bitmap', 'b')).toEqual([1, 'not-qcow2'])
    expect(await tidemarkJson(['info', dir.file('text')])).toMatchObject({ format: 'raw' })
  })

  it('other versions of the format are not supported', async () => {
    const { bytes } = buildQcow2({ bitmaps: [good] })
    for (const version of [0, 4, 255]) {
      bytes[7] = version
      const file = dir.file(`version-${version}.qcow2`)
      writeFileSync(file, bytes)
      expect(await errorOf('info', file)).toEqual([63, 'unsupported-feature'])
      expect(await errorOf('map', file, '--bitmap', 'good')).toEqual([63, 'unsupported-feature'])
    }
    const file = dir.file('an unknown incompatible feature.qcow2')
    writeQcow2(file, { incompatibleFeatures: 1n << 40n, bitmaps: [good] })
    expect(await errorOf('map', file, '--bitmap', 'good')).toEqual([63, 'unsupported-feature'])
    // Nothing overrules that.
    expect(await errorOf('map', file, '--bitmap', 'good', '--force')).toEqual([63, 'unsupported-feature'])
  })

  it('cut files: an error or findings, never a crash, never a map of what is not there', async () => {
    const { bytes, layout } = buildQcow2({ bitmaps: [{ name: 'good', dirty: [0, 15] }] })
    const file = dir.file('cut.qcow2')
    const tails = [layout.directory!.offset, layout.bitmaps[0]!.table.offset, layout.end]
    for (const length of [
      0,
      3,
      4,
      71,
      72,
      103,
      104,
      111,
      112,
      150,
      65535,
      65536,
      ...tails.flatMap(at => [at - 1, at, at + 1, at + 20]),
    ]) {
      if (length >= layout.end) continue
      writeFileSync(file, bytes.subarray(0, length))
      const shown = await tidemark(['info', '--count', file, '--output', 'json'])
      expect(shown.status, `${length}`).toBeLessThanOrEqual(1)
      expect(shown.stderr, `${length}`).not.toContain('fault in tidemark')
      if (length < 112) continue
      // The bitmap's data, 2 bytes, begin in the last cluster.
      const last = layout.bitmaps[0]!.data.get(0)!
      const map = await tidemark(['map', file, '--bitmap', 'good', '--output', 'json'])
      expect(map.status, `${length}`).toBe(length >= last + 2 ? 0 : 1)
      expect(map.stderr, `${length}`).not.toContain('fault in tidemark')
    }
  })

  it('names that would rewrite the terminal are shown as escapes, in JSON too', async () => {
    const evil = '\x1b[31mred\x07\r\n\x9b2J\u202egnp'
    const file = dir.file('evil.qcow2')
    writeQcow2(file, {
      backingFile: `b${evil}`,
      backingFormat: `f${evil.slice(0, 9)}`,
      bitmaps: [{ name: evil, flags: 3 }],
    })
    for (const args of [
      ['info', file],
      ['info', '--count', file],
      ['info', file, '--output', 'json'],
      ['info', '--backing-chain', file],
      ['map', file, '--bitmap', evil],
      ['map', file, '--bitmap', `no${evil}`],
      ['map', file, '--bitmap', `no${evil}`, '--output', 'json'],
      ['info', `no${evil}`],
    ]) {
      const { stdout, stderr } = await tidemark(args)
      expect(stdout, args[0]).not.toMatch(raw)
      expect(stderr, args[0]).not.toMatch(raw)
      expect(stdout + stderr).not.toContain('\u202e')
      expect(stdout + stderr).toMatch(/\\x1b\[31mred|\\u001b\[31mred/)
    }
    const json = await tidemarkJson(['info', file])
    expect(json).toMatchObject({ 'format-specific': { data: { bitmaps: [{ name: evil }] } } })
  })

  it('nothing is written to the images', async () => {
    const file = dir.file('still.qcow2')
    writeQcow2(file, { bitmaps: [good] })
    const before = readFileSync(file)
    await tidemark(['info', '--count', file])
    await tidemark(['map', file, '--bitmap', 'good', '--force'])
    expect(readFileSync(file).equals(before)).toBe(true)
  })
})

function bitmapOf(command: string): string[] {
  return command === 'map' ? ['--bitmap', 'b'] : []
}
