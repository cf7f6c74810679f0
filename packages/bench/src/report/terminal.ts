import Table from 'cli-table3'
import type { EngineResult } from '../engine/run.js'
import type { ProcessResult } from '../process/run.js'
import { megabytes, rate, ratio, time } from './format.js'
import { enginePeers, speedup } from './ratios.js'
import type { Results } from './results.js'
import { judge } from './targets.js'

const plain = {
  chars: Object.fromEntries(
    [
      ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
      ['left', 'left-mid', 'mid', 'mid-mid', 'middle', 'right', 'right-mid'],
    ]
      .flat()
      .map(name => [name, '']),
  ),
  style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
}

/** All figures as tables, for the terminal. Ratios: the peer's time ÷ tidemark's. */
export function renderTerminal(results: Results): string {
  const parts = [
    ...(results.process.length > 0 ? [processes(results.process)] : []),
    ...(results.engine.length > 0 ? [engine(results.engine)] : []),
    verdicts(results),
    ...results.notes.map(note => `Note: ${note}`),
  ]
  return `${parts.filter(part => part !== '').join('\n\n')}\n`
}

function engine(results: readonly EngineResult[]): string {
  const rows = results.map(result => {
    const ns = result.times.tidemark!.min
    const cells = enginePeers.map(peer => {
      const found = speedup(result, peer)
      return found === undefined ? '' : ratio(found)
    })
    return [result.benchmark, result.size, result.pattern, time(ns), rate(result.bytes, ns), ...cells]
  })
  return grid(['ENGINE', 'SIZE', 'PATTERN', 'TIDEMARK', '', ...enginePeers], rows, 3)
}

function processes(results: readonly ProcessResult[]): string {
  const rows = results.map(({ benchmark, tidemark, peer }) => [
    benchmark,
    peer?.name ?? '',
    time(tidemark.ms.median * 1e6),
    megabytes(tidemark.peakBytes),
    ...(peer
      ? [time(peer.ms.median * 1e6), megabytes(peer.peakBytes), ratio(peer.ms.median / tidemark.ms.median)]
      : ['', '', '']),
  ])
  return grid(['COMMAND', 'PEER', 'TIDEMARK', 'PEAK', 'PEER', 'PEAK', 'FASTER'], rows, 2)
}

function verdicts(results: Results): string {
  const judged = judge(results)
  if (judged.length === 0) return ''
  const rows = judged.map(({ work, target, found, reached }) => [
    work,
    target,
    found,
    reached ? '' : 'missed',
  ])
  return grid(['TARGET', '', 'FOUND', ''], rows, 2)
}

/** Words to the left, figures (from column `numbers` on) to the right. */
function grid(head: readonly string[], rows: readonly string[][], numbers: number): string {
  const table = new Table({
    ...plain,
    head: [...head],
    colAligns: head.map((_, i) => (i < numbers ? 'left' : 'right')),
  })
  table.push(...rows)
  return table
    .toString()
    .split('\n')
    .map(line => line.trimEnd())
    .join('\n')
}
