// Ends a process whose one thread never comes back, and says which case it was at.
import { Worker } from 'node:worker_threads'

export interface Watchdog {
  /** The next case has begun. `label` is what makes it again. */
  begin(label: string): void
  stop(): Promise<unknown>
}

/** Room for a label. */
const LABEL_BYTES = 256

/** @param seconds for one case */
export function watchdog(seconds: number): Watchdog {
  const shared = new SharedArrayBuffer(8 + LABEL_BYTES)
  const state = new Int32Array(shared, 0, 2)
  const label = new Uint8Array(shared, 8)
  const worker = new Worker(
    `const { workerData: { shared, seconds } } = require('node:worker_threads')
    const { writeSync } = require('node:fs')
    const state = new Int32Array(shared, 0, 2)
    let last = -1, since = Date.now()
    setInterval(() => {
      const now = Atomics.load(state, 0)
      if (now !== last) { last = now; since = Date.now() }
      else if (Date.now() - since > seconds * 1000) {
        const label = new TextDecoder().decode(new Uint8Array(shared, 8).slice(0, Atomics.load(state, 1)))
        writeSync(2, \`\\nhangs for \${seconds} s: \${label}\\n\`)
        process.kill(process.pid, 'SIGKILL')
      }
    }, 500)`,
    { eval: true, workerData: { shared, seconds } },
  )
  worker.unref()
  return {
    begin(text) {
      const bytes = new TextEncoder().encode(text).subarray(0, LABEL_BYTES)
      label.set(bytes)
      Atomics.store(state, 1, bytes.length)
      Atomics.add(state, 0, 1)
    },
    stop: () => worker.terminate(),
  }
}
