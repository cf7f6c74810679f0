import type { Output } from './output.js'

/** How far long work is, on a terminal. */
export interface Progress {
  /**
   * @param done of the total
   * @param bytes moved so far, for the rate: holes are passed at once
   */
  at(done: number, bytes: number): void
  /** Takes the bar away. May be called twice. */
  end(): void
}

/** @returns undefined where nobody would see it */
export async function startProgress(
  total: number,
  { progress }: { readonly progress?: boolean },
  output: Output,
): Promise<Progress | undefined> {
  if (progress === false || output.format === 'json' || !process.stderr.isTTY) return undefined
  const { progressBar } = await import('./progress-bar.js')
  return progressBar(total)
}
