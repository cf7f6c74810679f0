import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { EngineResult } from '../engine/run.js'
import type { ProcessResult } from '../process/run.js'
import type { Machine } from './machine.js'

/** One run: all that the documents are made from. */
export interface Results {
  date: string
  quick: boolean
  machine: Machine
  notes: string[]
  engine: EngineResult[]
  process: ProcessResult[]
}

/** Where a run's figures are kept: under node_modules, out of git. */
export const resultsFile = fileURLToPath(
  new URL('../../../../node_modules/.cache/tidemark-bench/results.json', import.meta.url),
)

export function saveResults(results: Results): void {
  mkdirSync(dirname(resultsFile), { recursive: true })
  writeFileSync(resultsFile, `${JSON.stringify(results, undefined, 1)}\n`)
}

/** @throws Error when nothing was measured yet */
export function loadResults(): Results {
  return JSON.parse(readFileSync(resultsFile, 'utf8')) as Results
}
