import type { Output } from './output.js'
import { stderr } from './stderr.js'

/** How far long work is, shown on a terminal. */
export interface Progress {
  /**
   * @param done of the total
   * @param moved bytes so far, for the rate: holes are passed at once
   */
  at(done: number, moved?: number): void
  /** Takes the bar away. May be called twice. */
  end(): void
}

/** Work that is done by then needs no bar. */
const PATIENCE_MS = 500

/** @returns undefined where nobody would see it, or wants to */
export function startProgress(
  total: number,
  { progress }: { readonly progress?: boolean },
  output: Output,
): Progress | undefined {
  if (progress === false || output.format === 'json' || !stderr().isTTY) return undefined
  if (process.env.TERM === 'dumb') return undefined
  const started = Date.now()
  let bar: Progress | undefined
  let state: 'early' | 'shown' | 'ended' = 'early'
  return {
    at(done, moved) {
      bar?.at(done, moved)
      if (state !== 'early' || Date.now() - started < PATIENCE_MS) return
      state = 'shown'
      import('./progress-bar.js').then(
        ({ progressBar }) => {
          if (state === 'shown') bar = progressBar(total, done, started)
        },
        () => {
          // The work goes on without.
        },
      )
    },
    end() {
      state = 'ended'
      bar?.end()
    },
  }
}
