import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { compileNative } from './engine/native.js'
import { runEngine } from './engine/run.js'
import { isChosen } from './harness/chosen.js'
import { runProcesses } from './process/run.js'
import { registry } from './registry.js'
import { describeMachine } from './report/machine.js'
import { renderMarkdown } from './report/markdown.js'
import { renderPlot } from './report/plot.js'
import { loadResults, type Results, resultsFile, saveResults } from './report/results.js'
import { renderTerminal } from './report/terminal.js'

const usage = `Usage: npm run bench -- [--quick] [--only NAME] [--write]

  --quick      rough figures: fewer sizes, patterns and rounds
  --only NAME  one benchmark, or all whose names begin so (--list names them)
  --write      writes docs/benchmarks.md and docs/benchmarks.svg; with --only, with the others as last measured
  --render     the same from the last run of all, without measuring
  --list       what there is
`
const docs = (name: string): string => fileURLToPath(new URL(`../../../docs/${name}`, import.meta.url))

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
  else process.stderr.write(`${text}\n`)
}

function writeDocuments(results: Results): void {
  writeFileSync(docs('benchmarks.md'), renderMarkdown(results))
  writeFileSync(docs('benchmarks.svg'), renderPlot(results))
}

function measure(quick: boolean, only: string | undefined): { results: Results; failures: string[] } {
  const { kernels, note } = compileNative()
  // Processes first: this one is small then, and starting others costs it least.
  const processes = runProcesses({ quick, only, progress })
  const engine = runEngine({ quick, only, natives: kernels, progress })
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  const results = {
    date: new Date().toISOString().slice(0, 10),
    quick,
    machine: describeMachine(),
    notes: [...(note === undefined ? [] : [note]), ...processes.notes],
    engine,
    process: processes.results,
  }
  return { results, failures: processes.failures }
}

function main(): number {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      write: { type: 'boolean', default: false },
      render: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const { quick, only, write } = values
  if (values.help) return say(usage)
  if (values.list) return say(registry.map(({ name, title }) => `${name.padEnd(14)}  ${title}\n`).join(''))
  if (values.render) {
    writeDocuments(loadResults())
    return 0
  }
  if (only !== undefined && !registry.some(({ name }) => isChosen(name, only))) {
    throw new RangeError(`no benchmark ${only}: --list names them`)
  }
  if (write && quick) throw new RangeError('--write is for figures that hold: leave out --quick')
  const { results, failures } = measure(quick, only)
  say(renderTerminal(results))
  if (only === undefined || write) {
    const all = only === undefined ? results : merged(loadResults(), results)
    saveResults(all)
    process.stderr.write(`All figures: ${resultsFile}\n`)
    if (write) writeDocuments(all)
  }
  for (const failure of failures) process.stderr.write(`bench: ${failure}\n`)
  return failures.length > 0 ? 1 : 0
}

/** Each benchmark is a run of its own with its peers: its newer figures take the place of the older. */
function merged(older: Results, newer: Results): Results {
  const place = (name: string) => registry.findIndex(each => each.name === name)
  const join = <T extends { benchmark: string }>(before: readonly T[], after: readonly T[]): T[] =>
    [...before.filter(({ benchmark }) => !after.some(each => each.benchmark === benchmark)), ...after].sort(
      (a, b) => place(a.benchmark) - place(b.benchmark),
    )
  return {
    ...newer,
    notes: [...new Set([...older.notes, ...newer.notes])],
    engine: join(older.engine, newer.engine),
    process: join(older.process, newer.process),
  }
}

function say(text: string): number {
  process.stdout.write(text)
  return 0
}

try {
  process.exitCode = main()
} catch (error) {
  process.stderr.write(`bench: ${describe(error)}\n`)
  process.exitCode = 1
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause === undefined ? error.message : `${error.message}: ${describe(error.cause)}`
}
