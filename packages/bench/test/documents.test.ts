import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { registry } from '../src/registry.js'
import { renderMarkdown } from '../src/report/markdown.js'
import { renderPlot } from '../src/report/plot.js'
import { enginePeers } from '../src/report/ratios.js'
import type { Results } from '../src/report/results.js'
import { judge } from '../src/report/targets.js'
import { renderTerminal } from '../src/report/terminal.js'

const doc = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../../../docs/${name}`, import.meta.url)), 'utf8')

describe('docs/benchmarks.md', () => {
  it('names every benchmark', () => {
    const text = doc('benchmarks.md')
    for (const { name } of registry) expect(text, name).toContain(`\`${name}\``)
  })

  it('says that its figures are of a whole run', () => {
    expect(doc('benchmarks.md')).not.toContain('quick run:')
  })

  it('has its plot beside it', () => {
    expect(doc('benchmarks.md')).toContain('](benchmarks.svg)')
    expect(doc('benchmarks.svg')).toMatch(/^<svg [\s\S]*<\/svg>\n$/)
  })
})

const once = (value: number) => ({ min: value, median: value, max: value, rounds: 1 })
const results: Results = {
  date: '2026-01-01',
  quick: true,
  machine: {
    cpu: 'a processor',
    cores: 2,
    memoryBytes: 2 ** 34,
    platform: 'linux x64',
    versions: { Node: 'v20' },
  },
  notes: ['no gcc: native C is left out'],
  engine: [
    {
      benchmark: 'union',
      size: '2 MiB',
      bytes: 2 ** 21,
      pattern: '1 %',
      times: {
        tidemark: once(100_000),
        'C, native': once(90_000),
        typedfastbitset: once(400_000),
        'plain JS': once(700_000),
      },
    },
  ],
  process: [
    {
      benchmark: 'info-512m',
      tidemark: { name: 'tidemark', ms: once(40), peakBytes: 71e6 },
      peer: { name: 'qemu-img info', ms: once(2000), peakBytes: 1.1e9 },
    },
    { benchmark: 'count-31', tidemark: { name: 'tidemark', ms: once(5000) } },
  ],
}

describe('a report', () => {
  it('judges by the targets', () => {
    expect(judge(results).map(({ work, found, reached }) => [work.slice(0, 12), found, reached])).toEqual([
      ['union, 2 MiB', '0.90×', false],
      ['union, 2 MiB', '4.00×', true],
      ['info, 16 TiB', '0.0200×', true],
      ['info, 16 TiB', '71 MB', false],
    ])
  })

  it('is a document with ratios and absolute figures', () => {
    const text = renderMarkdown(results)
    expect(text).toContain('2 of 4 reached')
    expect(text).toContain('| 2 MiB | 100 µs, 21.0 GB/s | 0.90× | 4.00× | 7.00× |')
    expect(text).toContain('| 40.0 ms | 71 MB | qemu-img info | 2.00 s | 1.10 GB | 0.0200× |')
    expect(text).toContain('Note: no gcc')
    expect(text).toContain('quick run')
  })

  it('is a table on a terminal', () => {
    const text = renderTerminal(results)
    expect(text).toMatch(/^union +2 MiB +1 % +100 µs +21.0 GB\/s +0.90×/m)
    expect(text).toMatch(/^info-512m +qemu-img info +40.0 ms +71 MB +2.00 s +1.10 GB +50.0×$/m)
  })

  it('is a plot with a bar for each peer that was there', () => {
    const svg = renderPlot(results)
    for (const peer of enginePeers) {
      expect(svg.includes(`>${peer}<`)).toBe(['C, native', 'typedfastbitset', 'plain JS'].includes(peer))
    }
    expect(svg).toContain('>50.0×<')
    expect(svg).toContain('prefers-color-scheme:dark')
  })
})
