// Sound images with something wrong in them, by the thousand: bytes that are the real QEMU's, or a typed error; never
// another exception, a wait without end, or more memory than there is file.
//
// TIDEMARK_LONG=MINUTES goes on for so long, from a seed of its own; TIDEMARK_FUZZ=LABEL does one case again: the same,
// but for what QEMU makes up anew in the sound image (keys, salts and dates).
import { type BitmapEngine, createEngine } from '@tidemark/bitmap-wasm'
import { needs, type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { libraryCodecs, openDisk } from '../src/index.js'
import { nodeCodecs } from '../src/node/index.js'
import { type FuzzCase, fuzzCase } from './fuzz/cases.js'
import { makeCorpus, type Seed } from './fuzz/corpus.js'
import { compare, readWithQemu } from './fuzz/differential.js'
import {
  type Exercised,
  exercise,
  type Reader,
  type Verdict,
  Violation,
  WHOLE_BYTES,
} from './fuzz/exercise.js'
import { type Watchdog, watchdog } from './fuzz/watchdog.js'

const MiB = 2 ** 20
const minutes = Number(process.env.TIDEMARK_LONG ?? 0)
/** Beyond what ends a short test that hangs. */
const timeout = 600_000 + minutes * 60_000
const only = process.env.TIDEMARK_FUZZ
/** A short run is the same each time. */
const seed = only === undefined && minutes > 0 ? `long ${Date.now()}` : 'short'
const MUTANTS = 2500
const TWICE = 120
const BY_QEMU = 150
/** A short run is told of when it fails. */
const tell = (...what: unknown[]) => (seed === 'short' && !only ? undefined : console.log(...what))
/** Far above what is seen (150 MiB with the corpus), far below what one boastful field could ask for. */
const MAX_MEMORY = 400 * MiB

const peers = needs('qemu-img', 'qemu-io')
describe.skipIf(peers.skip)(`mutants, seed '${seed}'${peers.label}`, { timeout }, () => {
  let dir: TempDir
  let corpus: Seed[]
  let engine: BitmapEngine
  let dog: Watchdog
  const reader = (more: Partial<Reader> = {}): Reader => ({ engine, codecs: nodeCodecs, ...more })

  beforeAll(async () => {
    dir = tempDir()
    corpus = await makeCorpus(dir)
    engine = createEngine()
    dog = watchdog(30)
  })
  afterAll(async () => {
    await dog?.stop()
    dir?.remove()
  })

  /** What it says when it fails is enough to do it again. */
  const tried = async (fuzzed: FuzzCase, by: Reader): Promise<Exercised> => {
    dog.begin(fuzzed.label)
    try {
      return await exercise(fuzzed, by)
    } catch (cause) {
      const shown = cause instanceof Violation ? cause.message : `not a Qcow2Error: ${cause}`
      throw new Error(`${again(fuzzed)}: ${shown}`, { cause })
    }
  }
  const again = ({ label, what }: FuzzCase) => `TIDEMARK_FUZZ='${label}' (${what.join('; ')})`

  /** Cases of one kind, as many as asked for, or for a share of the minutes. */
  function* cases(kind: string, count: number, share: number): Generator<FuzzCase> {
    const end = performance.now() + minutes * 60_000 * share
    const labels = only === undefined ? undefined : [only]
    for (let i = 0; labels ? i < 1 : minutes > 0 ? performance.now() < end : i < count; i++) {
      yield fuzzCase(corpus, labels?.[i] ?? `${seed}/${kind}/${i}`)
    }
  }

  it('bytes or a typed error, within bounds', async () => {
    const outcomes: Record<string, number> = {}
    let mutants = 0
    let peak = 0
    const began = performance.now()
    for (const fuzzed of cases('bounds', MUTANTS, 0.5)) {
      const { verdict } = await tried(fuzzed, reader())
      const outcome = verdict.error?.code ?? 'read'
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
      if (++mutants % 50 === 0) {
        const { heapUsed, external } = process.memoryUsage()
        peak = Math.max(peak, heapUsed + external)
      }
    }
    const rate = Math.round((mutants / (performance.now() - began)) * 1000)
    tell(`${mutants} mutants, ${rate} a second, at most ${Math.round(peak / MiB)} MiB:`, outcomes)
    expect(peak).toBeLessThan(MAX_MEMORY)
    // Mutants that all fail at once, or not at all, would show nothing.
    if (only !== undefined) return
    expect(outcomes.read! / mutants).toBeGreaterThan(0.2)
    expect(outcomes.read! / mutants).toBeLessThan(0.8)
    expect(Object.keys(outcomes)).toEqual(
      expect.arrayContaining([
        'corrupt-image',
        'decompress-failed',
        'reference-denied',
        'unsupported-feature',
      ]),
    )
  })

  it('the same again, and by the codecs of a browser', async () => {
    for (const fuzzed of cases('twice', TWICE, 0.1)) {
      const digests: string[] = []
      for (const codecs of [nodeCodecs, nodeCodecs, libraryCodecs]) {
        const { digest } = await tried(fuzzCase(corpus, fuzzed.label), reader({ codecs, digest: true }))
        digests.push(digest)
      }
      expect(new Set(digests), again(fuzzed)).toEqual(new Set([digests[0]]))
    }
  })

  const judge = async (fuzzed: FuzzCase, verdict: Verdict, snapshot?: string): Promise<string> => {
    const theirs = await readWithQemu(fuzzed, dir, snapshot)
    const agreed = compare(verdict, theirs)
    if (agreed !== undefined) return snapshot === undefined ? agreed : `snapshots: ${agreed}`
    const ours = verdict.error?.message ?? `${verdict.bytes?.byteLength} bytes`
    const qemu = 'bytes' in theirs ? `${theirs.bytes.byteLength} bytes` : theirs.refused
    throw new Error(`${again(fuzzed)}, snapshot ${snapshot ?? 'none'}: ours ${ours}, QEMU's ${qemu}`)
  }

  it('the bytes that QEMU reads; what one of the two refuses is registered', async () => {
    const verdicts: Record<string, number> = {}
    const tally = (agreed: string) => (verdicts[agreed] = (verdicts[agreed] ?? 0) + 1)
    for (const fuzzed of cases('QEMU', BY_QEMU, 0.4)) {
      const { verdict, snapshots } = await tried(fuzzed, reader())
      const of = (each: Verdict, snapshot?: string) => judge(fuzzed, each, snapshot)
      // What is not read whole says nothing; but a disk that was not opened does.
      if (verdict.size <= WHOLE_BYTES) tally(await of(verdict))
      for (const [id, each] of snapshots) {
        if (/^\w+$/.test(id) && each.bytes !== undefined && each.size === verdict.size)
          tally(await of(each, id))
      }
    }
    tell('with QEMU:', verdicts)
    if (only === undefined) expect(verdicts['both read']).toBeGreaterThan(BY_QEMU / 10)
  })

  describe('a reader that does wrong is seen', () => {
    const planted: [string, (target: Uint8Array, offset: number) => void][] = [
      ['another byte', target => target.fill(target[0]! ^ 1, 0, 1)],
      [
        'another exception',
        (_, offset) => {
          if (offset > 0) throw new TypeError('planted')
        },
      ],
      [
        'a RangeError',
        () => {
          new DataView(new ArrayBuffer(1)).getUint32(0)
        },
      ],
    ]
    it.each(planted)('%s', async (_, fault) => {
      const wrong: typeof openDisk = async (...args) => {
        const disk = await openDisk(...args)
        return {
          size: disk.size,
          extents: disk.extents.bind(disk),
          close: disk.close,
          async readInto(target, offset, options) {
            await disk.readInto(target, offset, options)
            if (target.byteLength > 0) fault(target, offset)
          },
        }
      }
      let seen = 0
      for (let i = 0; i < 20; i++) {
        await exercise(fuzzCase(corpus, `planted/${i}`), reader({ openDisk: wrong })).catch(error => {
          expect(error).toBeInstanceOf(Violation)
          seen++
        })
      }
      expect(seen).toBeGreaterThan(3)
    })

    it('a map with a hole', async () => {
      const wrong: typeof openDisk = async (...args) => {
        const disk = await openDisk(...args)
        return {
          size: disk.size,
          readInto: disk.readInto.bind(disk),
          close: disk.close,
          async *extents() {
            for await (const chunk of disk.extents()) if (chunk.length > 1) yield chunk.slice(1)
          },
        }
      }
      const all = Array.from({ length: 20 }, (_, i) =>
        exercise(fuzzCase(corpus, `planted/${i}`), reader({ openDisk: wrong })),
      )
      const ended = await Promise.allSettled(all)
      const broken = ended.filter(each => each.status === 'rejected' && each.reason instanceof Violation)
      expect(broken.length).toBeGreaterThan(3)
    })
  })
})
