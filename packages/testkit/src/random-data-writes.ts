import type { Random } from './random.js'
import type { DataWrite } from './random-data-layer.js'

/** What a command does to the disk. */
export type WriteKind = (typeof writeKinds)[number]
export const writeKinds = [
  'plain',
  'overwrite',
  'subcluster',
  'end',
  'zeros',
  'zero',
  'unmap',
  'discard',
  'compressed',
] as const

/** Where and how `dataWrites` may write. */
export interface WriteChoices {
  size: number
  clusterSize: number
  hotspots: readonly number[]
  /** Nothing but data. */
  plain?: boolean
  /** Clusters that no command wrote; only there can a compressed one be put. Left out: no compressed ones. */
  untouched?: Set<number>
}

const KiB = 1024

interface Range {
  start: number
  length: number
}

/**
 * A handful of qemu-io's commands. Each writes bytes of its own, which repeat with a period that is no multiple
 * of a sector, so that no two sectors are alike and a reader that takes the wrong one is seen.
 *
 * `choices.untouched` holds the clusters written so far, and is kept up to date.
 */
export function dataWrites(random: Random, choices: WriteChoices): DataWrite[] {
  const { size, clusterSize, untouched: touched } = choices
  const done: Range[] = []
  const out: DataWrite[] = []
  const compressed = (): void => {
    const range = touched && freeClusters(random, choices, touched)
    if (range) add('compressed', range, '-c', textOf(random, range.length))
  }
  const add = (kind: WriteKind, { start, length }: Range, flags: string, pattern?: Uint8Array): void => {
    done.push({ start, length })
    if (touched) touch(touched, start, length, clusterSize)
    const how = pattern ? `${flags} -s PATTERN`.trim() : flags
    const command = kind === 'discard' ? 'discard -q' : `write -q ${how}`
    out.push({ kind, command: `${command} ${start} ${length}`, ...(pattern ? { pattern } : {}) })
  }
  const data = (kind: WriteKind, range: Range): void =>
    add(kind, range, '', random.bool(0.3) ? textOf(random, range.length) : noiseOf(random, range.length))

  // The first of all: later there may be no free cluster.
  if (touched) for (let n = random.int(1, 3); n > 0; n--) compressed()
  for (let n = random.int(1, 6); n > 0; n--) {
    const kind = choices.plain
      ? random.pick(['plain', 'plain', 'subcluster', 'end', 'zeros'] as const)
      : random.pick(writeKinds)
    const range = anyRange(random, choices)
    if (kind === 'plain') data(kind, range)
    else if (kind === 'zeros') add(kind, range, '-P 0')
    else if (kind === 'zero') add(kind, roughly(random, range, choices), '-z')
    else if (kind === 'unmap') add(kind, roughly(random, range, choices), '-z -u')
    else if (kind === 'discard') add(kind, roughly(random, range, choices), '')
    else if (kind === 'compressed') compressed()
    else if (kind === 'end') {
      const length = Math.min(size, random.int(1, 9) * 512)
      data(kind, { start: size - length, length })
    } else if (kind === 'subcluster') {
      if (clusterSize === 512) continue
      const length = random.int(1, Math.min(clusterSize / 512 - 1, 64)) * 512
      data(kind, clipped({ start: range.start, length }, size))
    } else {
      const earlier = done.length > 0 ? random.pick(done) : undefined
      if (!earlier) continue
      const shift = random.int(0, Math.floor((earlier.length - 1) / 512)) * 512
      data(kind, clipped({ start: earlier.start + shift, length: earlier.length }, size))
    }
  }
  return out
}

/** A few sectors up to a few clusters, half of the time at a hot spot. */
function anyRange(random: Random, { size, clusterSize, hotspots }: WriteChoices): Range {
  const near = Math.floor(random.pick(hotspots) / 512) * 512 + random.int(-8, 64) * 512
  const start = random.bool() ? random.int(0, size / 512 - 1) * 512 : Math.max(0, near)
  const most = Math.min(Math.max(4 * clusterSize, 64 * KiB), 2 ** 21)
  return clipped({ start, length: random.int(1, most / 512) * 512 }, size)
}

/** Zeroing and discarding tell whole clusters from parts: mostly whole ones. */
function roughly(random: Random, { start, length }: Range, { size, clusterSize }: WriteChoices): Range {
  if (random.bool(0.3)) return { start, length }
  const first = Math.floor(start / clusterSize) * clusterSize
  return clipped({ start: first, length: Math.ceil(length / clusterSize) * clusterSize }, size)
}

function clipped({ start, length }: Range, size: number): Range {
  const inside = Math.min(start, size - 512)
  return { start: inside, length: Math.min(length, size - inside) }
}

/** One to three whole clusters (the last may be cut by the disk's end) that nothing was written to. */
function freeClusters(
  random: Random,
  { size, clusterSize }: WriteChoices,
  touched: Set<number>,
): Range | undefined {
  const clusters = Math.ceil(size / clusterSize)
  const first = random.bool(0.2) ? clusters - 1 : random.int(0, clusters - 1)
  let count = 0
  const most = random.int(1, 3)
  while (count < most && first + count < clusters && !touched.has(first + count)) count++
  if (count === 0) return undefined
  const start = first * clusterSize
  return { start, length: Math.min(count * clusterSize, size - start) }
}

function touch(touched: Set<number>, start: number, length: number, clusterSize: number): void {
  const end = Math.ceil((start + length) / clusterSize)
  for (let cluster = Math.floor(start / clusterSize); cluster < end; cluster++) touched.add(cluster)
}

/** A prime just above 64 KiB: no multiple of a sector. */
const period = 65537

function noiseOf(random: Random, length: number): Uint8Array {
  return random.bytes(Math.min(length, period))
}

/** Runs of 8 equal words each: it shrinks to about a quarter even in 512 bytes, so QEMU keeps it compressed. */
function textOf(random: Random, length: number): Uint8Array {
  const out = new Uint8Array(Math.min(length, period))
  for (let at = 0; at < out.length; at += 64) {
    const word = random.bytes(8)
    for (let i = at; i < Math.min(at + 64, out.length); i++) out[i] = word[i % 8] as number
  }
  return out
}
