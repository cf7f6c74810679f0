import type { Progress } from './progress.js'
export function progressBar(_total: number): Progress {
  return { at() {}, end() {} }
}
