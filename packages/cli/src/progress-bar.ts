import { SingleBar } from 'cli-progress'
import type { Progress } from './progress.js'
import { stderr } from './stderr.js'
import { formatSize } from './units.js'

const UPDATE_MS = 100
/** What the time that is left is reckoned from: the last 10 seconds. */
const ETA_UPDATES = 100

/**
 * @param first done before there was a bar
 * @param started milliseconds since 1970
 */
export function progressBar(total: number, first: number, started: number): Progress {
  const stream = stderr()
  let rate: number | undefined
  const bar = new SingleBar({
    stream,
    clearOnComplete: true,
    hideCursor: true,
    etaBuffer: ETA_UPDATES,
    format: (_options, { progress, eta }) => {
      const percent = `${Math.floor(progress * 100)} %`.padStart(5)
      const speed = rate === undefined ? '' : `  ${formatSize(rate)}/s`
      const left = Number.isFinite(eta) ? `  ${formatTime(eta)} left` : ''
      const width = Math.min(40, (stream.columns || 80) - percent.length - speed.length - left.length - 3)
      const full = Math.floor(progress * width)
      return `${percent} ${width < 5 ? '' : `[${'='.repeat(full)}${' '.repeat(width - full)}]`}${speed}${left}`
    },
  })
  let updated = 0
  const end = () => {
    process.off('exit', end)
    bar.stop()
  }
  bar.start(total, first)
  // Ctrl-C ends the process where it is: the terminal shall have its cursor back.
  process.on('exit', end)
  return {
    at(done, moved) {
      const now = Date.now()
      if (now - updated < UPDATE_MS) return
      updated = now
      if (moved !== undefined) rate = Math.round(moved / ((now - started) / 1000))
      bar.update(done)
    },
    end,
  }
}

/** `42s`, `3m20s`, `2h05m` */
function formatTime(seconds: number): string {
  const two = (number: number) => String(Math.floor(number)).padStart(2, '0')
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`
  return `${Math.floor(seconds / 3600)}h${two((seconds % 3600) / 60)}m`
}
