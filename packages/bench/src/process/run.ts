import { spawnSync } from 'node:child_process'
import { rmSync, statSync } from 'node:fs'
import { missingPeers, tempDir } from '@tidemark/testkit'
import { isChosen } from '../harness/chosen.js'
import { type Summary, summarise } from '../harness/statistics.js'
import { freshCopy, type ProcessBenchmark, processBenchmarks } from './benchmarks.js'
import { type Command, timeCommand, weighCommand } from './command.js'
import { Gallery } from './images.js'

/** A program's milliseconds, and its peak resident memory in bytes. */
export interface Measured {
  name: string
  ms: Summary
  peakBytes?: number
}

export interface ProcessResult {
  benchmark: string
  tidemark: Measured
  peer?: Measured
}

export interface ProcessRunOptions {
  quick: boolean
  only?: string | undefined
  progress(text: string): void
}

const ROUNDS = 5
const QUICK_ROUNDS = 1
const MOST_READ_AHEAD = 64 * 2 ** 30

/** Measures the command against its peers, in turn. */
export function runProcesses({ quick, only, progress }: ProcessRunOptions): {
  results: ProcessResult[]
  notes: string[]
  failures: string[]
} {
  const notes: string[] = []
  const noQemu = missingPeers('qemu-img').length > 0
  if (noQemu) notes.push('no qemu-img: it is left out')
  const noNbdcopy = missingPeers('nbdinfo', 'qemu-nbd').length > 0
  if (noNbdcopy) notes.push('no nbdcopy or qemu-nbd: they are left out')
  if (missingPeers('time').length > 0) notes.push('no GNU time: memory was not measured')
  const dir = tempDir()
  try {
    const gallery = new Gallery(dir.path)
    const chosen = processBenchmarks.filter(({ name }) => isChosen(name, only))
    const results: ProcessResult[] = []
    const failures: string[] = []
    for (const benchmark of chosen) {
      progress(benchmark.title)
      const leaveOut =
        (noQemu && benchmark.peer?.name.startsWith('qemu-img')) ||
        (noNbdcopy && benchmark.peer?.name === 'nbdcopy')
      const { peer, ...alone } = benchmark
      const lone = leaveOut || (quick && peer?.slow)
      try {
        results.push(measure(lone || !peer ? alone : benchmark, gallery, quick))
      } catch (error) {
        // One that fails must not cost the minutes that the others took.
        failures.push(`${benchmark.name} failed: ${error instanceof Error ? error.message.trim() : error}`)
      }
    }
    return { results, notes, failures }
  } finally {
    dir.remove()
  }
}

function measure(benchmark: ProcessBenchmark, gallery: Gallery, quick: boolean): ProcessResult {
  const { peer } = benchmark
  const image = benchmark.image ? gallery.image(benchmark.image).file : ''
  const copy = peer?.writes ? gallery.path('copy.qcow2') : image
  const out = gallery.path('out')
  // What was just written must not be written back while another is timed; and holes, which nobody has written, are
  // in the page cache only once they were read: 16 GiB of them take a minute the first time.
  spawnSync('sync')
  // One of which only tables are read is half a terabyte of holes.
  if (image && statSync(image).size < MOST_READ_AHEAD) spawnSync('cat', [image], { stdio: 'ignore' })
  const rounds = quick ? Math.min(QUICK_ROUNDS, benchmark.rounds ?? ROUNDS) : (benchmark.rounds ?? ROUNDS)
  const own = benchmark.writes ? gallery.path('own.qcow2') : image
  const ours = track('tidemark', benchmark.tidemark(own, out), gallery.path('rss'))
  const theirs = peer && track(peer.name, peer.command(copy, out), gallery.path('rss'))
  for (let round = 0; round < rounds; round++) {
    ours.run(() => fresh(benchmark.writes === true, image, own))
    if (!theirs || (peer.slow && round > 0)) continue
    theirs.run(() => fresh(peer.writes === true, image, copy))
  }
  benchmark.check?.(gallery, { image: own, afterPeer: peer ? copy : undefined })
  if (peer?.writes) rmSync(copy)
  if (benchmark.writes) rmSync(own)
  rmSync(out, { force: true })
  return {
    benchmark: benchmark.name,
    tidemark: ours.measured(),
    ...(theirs ? { peer: theirs.measured() } : {}),
  }
}

function fresh(writes: boolean, image: string, copy: string): void {
  if (!writes) return
  freshCopy(image, copy)
  spawnSync('sync')
}

/** Short runs are timed alone and weighed once more afterwards: GNU time itself takes a millisecond. */
function track(name: string, command: Command, scratchFile: string) {
  const times: number[] = []
  let peakBytes: number | undefined
  return {
    /** @param prepare done before each start, outside the timer */
    run(prepare: () => void) {
      prepare()
      if (times.length === 0) {
        const weighed = weighCommand(command, scratchFile)
        peakBytes = weighed.peakBytes
        // The first run of all is a warm-up, unless it is so long that it is the only one.
        if (weighed.ms > 1000) times.push(weighed.ms)
        else {
          prepare()
          times.push(timeCommand(command))
        }
      } else times.push(timeCommand(command))
    },
    measured: (): Measured => ({
      name,
      ms: summarise(times),
      ...(peakBytes === undefined ? {} : { peakBytes }),
    }),
  }
}
