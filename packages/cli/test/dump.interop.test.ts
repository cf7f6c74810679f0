import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import {
  coverageOf,
  type DataSnapshot,
  type MapExtent,
  makeRandomDataImage,
  needs,
  qemuMap,
  Random,
  type RandomDataImage,
  rawDifference,
  rawOf,
  storedAsData,
  type TempDir,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bin, plainEnv, tidemark, tidemarkJson } from './cli.js'
import { inParallel } from './pool.js'

const peers = needs('qemu-img', 'qemu-io')
const IMAGES = 312
const PER_TEST = 13
/** Images that have a value of an axis, at least: seeds are fixed, so this is no matter of chance. */
const AT_LEAST = 10
/** What is written to stdout whole has no holes. */
const MOST_ON_STDOUT = 64 * 2 ** 20
const PAGE = 4096

/** The name if it is nobody's id, else the id: `--snapshot` looks for ids first, as QEMU does. */
const nameOf = (image: RandomDataImage, { id, name }: DataSnapshot): string =>
  image.snapshots.some(other => other.id === name) ? id : name

const keyOf = ({ passphraseFile }: RandomDataImage): string[] =>
  passphraseFile === undefined ? [] : ['--passphrase-file', passphraseFile]

/** Standard output as a file: a disk is not text. */
async function dumpToStdout(args: readonly string[], to: string, passphrase?: string): Promise<void> {
  const out = openSync(to, 'w')
  try {
    const child = spawn(process.execPath, [bin, 'dump', ...args], {
      stdio: ['pipe', out, 'pipe'],
      env: { ...process.env, ...plainEnv },
    })
    child.stdin!.end(passphrase ?? '')
    let stderr = ''
    child.stderr!.setEncoding('utf8').on('data', text => {
      stderr += text
    })
    const [status] = await once(child, 'close')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  } finally {
    closeSync(out)
  }
}

/** Bytes that a file takes which holds what is stored and nothing else, and what the file system needs to say so. */
function pagesOf(map: readonly MapExtent[]): number {
  let bytes = 16 * PAGE
  let end = 0
  for (const { start, length, zero } of map) {
    if (zero) continue
    const first = Math.max(end, Math.floor(start / PAGE) * PAGE)
    end = Math.ceil((start + length) / PAGE) * PAGE
    bytes += end - first
  }
  return bytes
}

describe.skipIf(peers.skip)(`guest data and maps of random chains are QEMU's${peers.label}`, () => {
  let dir: TempDir
  const seen: RandomDataImage[] = []
  let onStdout = 0
  let snapshots = 0
  beforeAll(() => {
    dir = tempDir()
  })
  afterAll(() => dir?.remove())

  /** The disk, or one as a snapshot has it, as a file and as a map. */
  const compareDisk = async (image: RandomDataImage, snapshot?: DataSnapshot): Promise<string> => {
    const of = snapshot ? { snapshot } : {}
    const args = [image.file, ...(snapshot ? ['--snapshot', nameOf(image, snapshot)] : [])]
    const what = `seed ${image.seed}: ${args.join(' ')}`
    const out = `${image.file}.out`
    const [raw, map] = await Promise.all([rawOf(image, of), qemuMap(image, of)])
    const dumped = await tidemark(['dump', ...args, ...keyOf(image), '-o', out])
    expect(dumped, what).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(await rawDifference(out, raw), what).toBe(undefined)
    const told = await tidemarkJson<MapExtent[]>(['map', ...args])
    // QEMU's map of a snapshot is that of a copy, whose holes are others.
    const [ours, theirs] = snapshot ? [told, map].map(storedAsData) : [told, map]
    expect(ours, what).toEqual(theirs)
    expect(statSync(out).blocks * 512, `${what}: holes`).toBeLessThanOrEqual(pagesOf(theirs!))
    rmSync(out)
    return raw
  }

  const compare = async (seed: string): Promise<void> => {
    const image = await makeRandomDataImage(seed, dir.path)
    for (const snapshot of image.snapshots) {
      await compareDisk(image, snapshot)
      snapshots++
    }
    const raw = await compareDisk(image)
    const random = new Random(seed).fork('stdout')
    if (image.size <= MOST_ON_STDOUT && random.bool(0.4)) {
      const { file, passphrase } = image
      const key = passphrase === undefined ? [] : ['--passphrase-file', '-']
      const piped = `${file}.piped`
      await dumpToStdout([file, ...key], piped, passphrase)
      expect(await rawDifference(piped, raw), `seed ${seed}: stdout`).toBe(undefined)
      const offset = random.int(0, image.size - 1)
      const length = random.int(1, image.size - offset)
      const range = ['--offset', String(offset), '--length', String(length)]
      await dumpToStdout([file, ...range, ...key], piped, passphrase)
      const part = readFileSync(raw).subarray(offset, offset + length)
      expect(part.equals(readFileSync(piped)), `seed ${seed}: ${range.join(' ')}`).toBe(true)
      onStdout++
    }
    seen.push(image)
    rmSync(image.dir, { recursive: true })
  }

  for (let first = 0; first < IMAGES; first += PER_TEST) {
    const seeds = Array.from({ length: PER_TEST }, (_, i) => `dump-${first + i}`)
    it(`seeds ${seeds[0]} … ${seeds.at(-1)}`, () => inParallel(seeds, 2, compare))
  }

  it('and the images were of every kind (run the whole file)', () => {
    expect(seen.length).toBe(IMAGES)
    const seldom = Object.entries(coverageOf(seen)).flatMap(([axis, values]) =>
      Object.entries(values)
        .filter(([, count]) => count < AT_LEAST)
        .map(([value, count]) => `${axis} ${value}: ${count}`),
    )
    expect(seldom).toEqual([])
    expect(onStdout).toBeGreaterThan(50)
    expect(snapshots).toBeGreaterThan(150)
  })
})
