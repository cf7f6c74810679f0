import { join } from 'node:path'
import { bitmap, create } from './qemu-img.js'
import { qemuIo } from './qemu-io.js'
import { Random } from './random.js'

/** An image that the real QEMU made, and what was done to it. */
export interface RandomImage {
  seed: number | string
  file: string
  /** Guest bytes: a multiple of 512, seldom of the cluster or of a granularity. */
  size: number
  clusterSize: number
  pattern: WritePattern
  bitmaps: { name: string; granularity: number; recording: boolean }[]
}

/** Where the guest wrote. */
export type WritePattern = (typeof patterns)[number]
const patterns = ['none', 'sparse', 'clustered', 'alternating', 'whole', 'tail'] as const

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

/**
 * Makes `DIR/<seed>.qcow2` by qemu-img and qemu-io, all of it decided by the seed: cluster size 512 B–2 MiB,
 * granularities 512 B–2 GiB, an odd disk size up to some GiB, a write pattern, 1–6 bitmaps added at different
 * moments between the writes, some then disabled, one merged from others, now and then with odd names.
 */
export async function makeRandomImage(seed: number | string, dir: string): Promise<RandomImage> {
  const random = new Random(seed).fork('image')
  const clusterBits = random.int(9, 21)
  const pattern = random.pick(patterns)
  const size = oddSize(random, clusterBits, pattern)
  const file = join(dir, `${seed}.qcow2`)
  await create(file, size, { clusterSize: 2 ** clusterBits })

  const image: RandomImage = { seed, file, size, clusterSize: 2 ** clusterBits, pattern, bitmaps: [] }
  const writes = writesOf(random.fork('writes'), pattern, size)
  const count = random.int(1, 6)
  const merged = count > 1 && random.bool(0.4)
  for (let i = 0; i < count; i++) {
    const last = i === count - 1
    const name = oddName(random, i)
    const granularity = 2 ** random.int(9, maxGranularityBits(random))
    const actions = ['--add', '-g', String(granularity)]
    if (last && merged) for (const other of image.bitmaps) actions.push('--merge', other.name)
    const recording = random.bool(0.75)
    if (!recording && random.bool()) actions.push('--disable')
    await bitmap(...actions, '--', file, name)
    const from = Math.floor((writes.length * i) / count)
    const due = writes.slice(from, Math.floor((writes.length * (i + 1)) / count))
    if (due.length > 0) await qemuIo(file, due)
    // Disabled after it recorded something, rather than from the start.
    if (!recording && !actions.includes('--disable')) await bitmap('--disable', '--', file, name)
    image.bitmaps.push({ name, granularity, recording })
  }
  return image
}

/** Small clusters get small disks: what QEMU keeps for each cluster would make it slow. */
function oddSize(random: Random, clusterBits: number, pattern: WritePattern): number {
  if (pattern === 'whole') return random.int(1, 8 * KiB) * 512
  const top = clusterBits <= 11 ? 64 * MiB : random.pick([3 * MiB, 100 * MiB, 5 * GiB])
  const size = random.int(1, top / 512) * 512
  return random.bool(0.9) ? size : Math.max(1, Math.round(size / 2 ** clusterBits)) * 2 ** clusterBits
}

/** Mostly fine ones, which make long bitmaps; now and then up to QEMU's 2 GiB. */
function maxGranularityBits(random: Random): number {
  return random.bool(0.7) ? 17 : 31
}

function oddName(random: Random, i: number): string {
  if (random.bool(0.7)) return `b${i}`
  return random.pick([
    `with spaces ${i} `,
    `größe-${i}-日本`,
    `-dash ${i}`,
    `back\\slash "quoted" ${i}`,
    `${i}${'n'.repeat(1022)}`,
  ])
}

/** qemu-io's commands, in sectors of the disk. */
function writesOf(random: Random, pattern: WritePattern, size: number): string[] {
  const sectors = size / 512
  const write = (first: number, count: number): string => {
    const start = Math.min(Math.max(0, first), sectors - 1)
    const length = Math.min(count, sectors - start) * 512
    return `write -q -P ${random.int(1, 255)} ${start * 512} ${length}`
  }
  const times = (n: number, one: (i: number) => string): string[] =>
    Array.from({ length: n }, (_, i) => one(i))
  const near = random.int(0, sectors - 1)
  const step = random.pick([2, 8, 128, 256, 1024])
  switch (pattern) {
    case 'none':
      return []
    case 'sparse':
      return times(random.int(1, 12), () => write(random.int(0, sectors - 1), random.int(1, 64)))
    case 'clustered':
      return times(random.int(2, 20), () => write(near + random.int(0, 2048), random.int(1, 300)))
    case 'alternating':
      return times(40, i => write(near + i * step * 2, step))
    case 'whole':
      return [write(0, sectors)]
    case 'tail':
      return [write(sectors - random.int(1, 3), 3), write(random.int(0, sectors - 1), 1)]
  }
}
