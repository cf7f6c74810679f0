import { engineBenchmarks } from '../engine/operations.js'
import type { EngineResult } from '../engine/run.js'
import { processBenchmarks } from '../process/benchmarks.js'
import type { ProcessResult } from '../process/run.js'
import { registry } from '../registry.js'
import { megabytes, rate, ratio, spreadText, time } from './format.js'
import { enginePeers, groupBy, speedup, spread } from './ratios.js'
import type { Results } from './results.js'
import { judge } from './targets.js'

/** docs/benchmarks.md, as `npm run bench -- --write` writes it. */
export function renderMarkdown(results: Results): string {
  const { machine } = results
  return `${[
    '# Benchmarks',
    '<!-- Written by `npm run bench -- --write`: change packages/bench, not this file. -->',
    intro(results),
    '![How many times faster tidemark is, by work and peer](benchmarks.svg)',
    '## Targets',
    targetsTable(results),
    '## The command against qemu-img',
    processText,
    processTable(results.process),
    '## The engine',
    engineText,
    ...engineBenchmarks.flatMap(({ name, title }) => engineSection(name, title, results.engine)),
    '## How it is measured',
    methodText,
    '## Machine and versions',
    table(
      ['', ''],
      [
        ['processor', `${machine.cpu}, ${machine.cores} cores`],
        ['memory', `${(machine.memoryBytes / 2 ** 30).toFixed(0)} GiB`],
        ['system', machine.platform],
        ...Object.entries(machine.versions),
        ['measured', results.date],
      ],
    ),
    ...notMeasured(results),
    ...results.notes.map(note => `Note: ${note}.`),
    '## Run it again',
    again,
  ].join('\n\n')}\n`
}

const intro = ({
  quick,
}: Results) => `Every figure is a ratio to a named peer **in the same run**: absolute figures change with the machine, and stand beside.
Above 1× tidemark is the faster.${quick ? ' **These are figures of a quick run: rough ones.**' : ''}`

/** What the run left out or could not do is named: nobody should look for it in vain. */
function notMeasured({ engine, process }: Results): string[] {
  const measured = new Set([...engine, ...process].map(({ benchmark }) => benchmark))
  const missing = registry.filter(({ name }) => !measured.has(name))
  if (missing.length === 0) return []
  return [
    `Not measured in this run: ${missing.map(({ name, title }) => `\`${name}\` (${title})`).join(', ')}.`,
  ]
}

const processText = `Each program as a whole process: start, work, end. Output is thrown away; images are in the page cache.
\`tidemark map\` answers at once what takes QEMU a merge into one of the bitmaps, of a copy of the image, before anything
can read the result: that merge is what it is timed against. The share is tidemark's time ÷ the peer's: below 1× tidemark
is the faster, and the targets are upper bounds.`

const engineText = `\`@tidemark/bitmap-wasm\` in one process with all its peers, on the same bits and, but for fastbitset and
roaring-wasm, in the same memory. A cell is the median over the patterns, and in brackets the worst and the best of them
where they lie apart. Patterns: empty, 0.01 %, 0.1 %, 1 % and 50 % random, clustered (runs of some 256 bits, some 16,384
apart), alternating; at 512 MiB 1 % and clustered. *In an arena* operands lie in the engine's memory. *Streamed*
they lie elsewhere, and pass through a fixed arena in windows of 256 KiB, copied in and copied out, while peers work on
them in place: that is what bounded memory costs where bits are in memory already. (The command reads files straight
into the arena, so it does not pay the copy.)`

const methodText = `- **In turn.** Contenders run round by round, at least 3 rounds and up to 15, each time a batch of several milliseconds.
  Of the engine's rounds the fastest counts (the work is the same each time, what is above the minimum is somebody
  else's), of processes the median of at least 5 (start-up: 31). A run that takes a minute or more is done once.
- **Seeded.** The bits are the same each time.
- **Checked.** Before it is timed, each contender's answer (all bits, all extents) is compared with the others'; what
  QEMU merged is counted and compared with tidemark's union.
- **Native C** (\`packages/bench/native/kernels.c\`): the loops that a C engineer writes, no intrinsics, compiled as the
  bench starts by gcc \`-O3\` with \`-march=x86-64-v3\` (*C, AVX2*) and \`-march=native\` (*C, native*), and called in the same
  process on the engine's own buffers, so that it has the same pages and caches. A call costs 0.1 µs.
- **Libraries.** typedfastbitset gets views of the same memory. fastbitset keeps words in an array of numbers, which ends
  below 512 MiB. roaring-wasm is CRoaring: compressed, with work that depends on the bits, and a count that it keeps at
  hand; it takes part up to 32 MiB, and its fresh copy for each merge is not timed. (roaring, the native build of the
  same, fetches a binary from GitHub when it is installed, so it is no peer here.) None of them has extents, only single
  bits: the runs are put together in the callback.
- **Extents** are handed over in chunks of 8,192 by all, counted and thrown away. The C loop takes the edges of a word
  (\`w ^ (w << 1 | carry)\`) and each by \`ctz\`.
- **Memory** is the peak of the resident set as the kernel accounts it (GNU time). NODE_EXTRA_CA_CERTS is unset: Node
  parses that file at each start, which takes longer than to start.`

const again = `\`\`\`
npm run bench -- --quick        # a few minutes, rough
npm run bench                   # all of it
npm run bench -- --only union   # one; --list names them
npm run bench -- --write        # all of it, and these documents anew
\`\`\`

gcc, qemu-img and GNU time are used where they are there; what is missing is left out and named. All of it takes some
25 minutes, 4 GiB of memory and 4 GB below the folder for temporary files.`

function targetsTable(results: Results): string {
  const verdicts = judge(results)
  const reached = verdicts.filter(verdict => verdict.reached).length
  const rows = verdicts.map(({ work, target, found, reached }) => [
    work,
    target,
    found,
    reached ? 'reached' : '**missed**',
  ])
  return `${reached} of ${verdicts.length} reached.\n\n${table(['work', 'target', 'found', ''], rows)}`
}

function processTable(results: readonly ProcessResult[]): string {
  const rows = results.map(({ benchmark: name, tidemark, peer }) => [
    `\`${name}\``,
    processBenchmarks.find(each => each.name === name)?.title ?? '',
    time(tidemark.ms.median * 1e6),
    megabytes(tidemark.peakBytes),
    peer?.name ?? '–',
    peer ? time(peer.ms.median * 1e6) : '–',
    megabytes(peer?.peakBytes),
    peer ? shareText(tidemark.ms.median / peer.ms.median) : '–',
  ])
  return table(['', 'work', 'tidemark', 'peak', 'peer', 'time', 'peak', 'share'], rows)
}

/** Shares can be very small, and stand against targets such as 0.03×. */
function shareText(share: number): string {
  return share < 0.1 ? `${share.toFixed(4)}×` : ratio(share)
}

function engineSection(name: string, title: string, all: readonly EngineResult[]): string[] {
  const results = all.filter(({ benchmark }) => benchmark === name)
  if (results.length === 0) return []
  const peers = enginePeers.filter(peer => results.some(({ times }) => times[peer]))
  const rows = [...groupBy(results, ({ size }) => size)].map(([size, cases]) => {
    const typical = cases.find(({ pattern }) => pattern === '1 %') ?? cases[0]!
    const ns = typical.times.tidemark!.min
    return [
      size,
      `${time(ns)}, ${rate(typical.bytes, ns)}`,
      ...peers.map(peer => spreadText(spread(cases, peer))),
    ]
  })
  const section = [`### \`${name}\`: ${title}`, table(['size', 'tidemark, at 1 %', ...peers], rows)]
  if (name !== 'extents' && name !== 'coarsen-16' && name !== 'refine-16') return section
  return [
    ...section,
    'The work depends on the bits, so each pattern at 2 MiB by itself:',
    byPattern(results, peers),
  ]
}

function byPattern(results: readonly EngineResult[], peers: readonly string[]): string {
  const rows = results
    .filter(({ size }) => size === '2 MiB')
    .map(result => {
      const ns = result.times.tidemark!.min
      const cells = peers.map(peer => {
        const found = speedup(result, peer)
        return found === undefined ? '–' : ratio(found)
      })
      return [result.pattern, time(ns), ...cells]
    })
  return table(['pattern', 'tidemark', ...peers], rows)
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}
