import type { Random } from './random.js'
import { dataWrites, type WriteKind } from './random-data-writes.js'

/** How one layer of a chain is made and what is then done to it; decided before anything runs. */
export interface LayerPlan {
  format: 'qcow2' | 'raw'
  clusterSize: number
  compat: '0.10' | '1.1'
  refcountBits: number
  extendedL2: boolean
  lazyRefcounts: boolean
  preallocation: 'off' | 'metadata' | 'falloc'
  /** Not `none` where the layer holds compressed clusters. */
  compression: 'none' | 'zlib' | 'zstd'
  /** `convert` compresses all that the layer holds at its start, `write` single clusters later on. */
  compressedBy: 'none' | 'convert' | 'write'
  dataFile: 'none' | 'file' | 'raw'
  encryption: 'none' | 'aes-256' | 'aes-128'
  /** How the layer above, if any, names this one. */
  name: BackingName
  /** Guest bytes at the start and at the end. */
  firstSize: number
  size: number
  /** Bytes that a raw file lacks at its end: QEMU fills its last sector with zeros. */
  missingBytes: number
  steps: readonly Step[]
}

export type BackingName = (typeof backingNames)[number]
export const backingNames = ['relative', 'absolute', 'json', 'file'] as const

/** One run of a program on the layer. */
export type Step =
  | { do: 'write'; commands: readonly DataWrite[] }
  | { do: 'snapshot'; name: string; size: number }
  | { do: 'resize'; size: number; from: number; afterSnapshot: boolean }

/** A command of qemu-io; `PATTERN` in it stands for a file with `pattern`'s bytes. */
export interface DataWrite {
  kind: WriteKind
  command: string
  pattern?: Uint8Array
}

/** What the chain decides for a layer. */
export interface LayerPlace {
  /** Layers below this one. */
  below: readonly LayerPlan[]
  top: boolean
  /** The disk may have some GiB. */
  large: boolean
  /** Guest offsets that every layer writes to, so that layers hide parts of each other's clusters. */
  hotspots: readonly number[]
  encryption: LayerPlan['encryption']
}

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

/** A raw file at the bottom of a chain. */
export function planRaw(random: Random, place: LayerPlace): LayerPlan {
  const size = firstSize(random, 64 * KiB, place)
  const missingBytes = random.bool(0.3) ? random.int(1, 511) : 0
  const commands = dataWrites(random.fork('writes'), { size, clusterSize: 4096, plain: true, ...place })
  return {
    format: 'raw',
    clusterSize: 0,
    compat: '1.1',
    refcountBits: 0,
    extendedL2: false,
    lazyRefcounts: false,
    preallocation: 'off',
    compression: 'none',
    compressedBy: 'none',
    dataFile: 'none',
    encryption: 'none',
    name: random.pick(backingNames),
    firstSize: size,
    size,
    missingBytes,
    steps: [{ do: 'write', commands }],
  }
}

/** A qcow2 layer. What QEMU 7.2 refuses is never asked of it; the conditions below say what that is. */
export function planQcow2(random: Random, place: LayerPlace): LayerPlan {
  const { below, large } = place
  const clusterSize = 2 ** random.int(large ? 14 : 9, 21)
  const v3 = random.bool(0.82)
  const extendedL2 = v3 && clusterSize >= 16 * KiB && random.bool(0.35)
  const dataFile = !v3 || random.bool(0.75) ? 'none' : below.length === 0 && random.bool(0.6) ? 'raw' : 'file'
  // Preallocated clusters would hide the backing file, but for extended L2 entries, which say so for each part.
  const canPreallocate = !large && (below.length === 0 || extendedL2)
  const preallocation =
    canPreallocate && random.bool(0.4) ? random.pick(['metadata', 'falloc'] as const) : 'off'
  // Neither the compressed clusters of a data file nor those onto preallocated ones can be written.
  const compressed = dataFile === 'none' && preallocation === 'off' && random.bool(0.5)
  const locked = place.encryption !== 'none' || below.some(layer => layer.encryption !== 'none')
  const compressedBy = !compressed ? 'none' : !locked && random.bool() ? 'convert' : 'write'
  const compression = !compressed ? 'none' : v3 && random.bool(0.6) ? 'zstd' : 'zlib'
  const size = firstSize(random, clusterSize, place)
  const fixed = { clusterSize, extendedL2, dataFile, preallocation, compressedBy, compression } as const
  const refcountBits = v3 ? random.pick([1, 2, 4, 8, 16, 16, 32, 64]) : 16
  const { steps, lastSize } = planSteps(random, place, { ...fixed, v3, refcountBits, size })
  return {
    ...fixed,
    format: 'qcow2',
    compat: v3 ? '1.1' : '0.10',
    refcountBits,
    lazyRefcounts: v3 && random.bool(0.3),
    encryption: place.encryption,
    name: random.pick(backingNames),
    firstSize: size,
    size: lastSize,
    missingBytes: 0,
    steps,
  }
}

interface StepChoices
  extends Pick<LayerPlan, 'clusterSize' | 'extendedL2' | 'dataFile' | 'preallocation' | 'compressedBy'> {
  v3: boolean
  refcountBits: number
  size: number
}

/** Writes, and between them snapshots and resizes. */
function planSteps(
  random: Random,
  place: LayerPlace,
  choices: StepChoices,
): { steps: Step[]; lastSize: number } {
  const { clusterSize, refcountBits, preallocation, compressedBy } = choices
  // Each snapshot counts, one more while QEMU goes back to it, and compressed clusters in one host cluster each.
  const tooFew = refcountBits < (compressedBy === 'none' ? 2 : 16)
  const mostSnapshots = choices.dataFile !== 'none' || tooFew ? 0 : refcountBits === 2 ? 1 : 3
  const wanted = random.bool(place.top ? 0.7 : 0.15) ? random.int(1, 3) : 0
  let snapshots = Math.min(wanted, mostSnapshots)
  let resizes = random.bool(snapshots > 0 ? 0.6 : 0.3) ? random.int(1, 2) : 0
  let size = choices.size
  let taken = 0
  // Where clusters were written before, a compressed one is refused.
  const touched = preallocation === 'off' ? new Set<number>() : undefined
  const steps: Step[] = []
  for (let i = 0; ; i++) {
    const first = i === 0
    const commands = dataWrites(random.fork(`writes ${i}`), {
      size,
      clusterSize,
      hotspots: place.hotspots,
      plain: first && compressedBy === 'convert',
      ...(compressedBy === 'write' && touched ? { untouched: touched } : {}),
    })
    steps.push({ do: 'write', commands })
    if (snapshots === 0 && resizes === 0) return { steps, lastSize: size }
    if (snapshots > 0 && (resizes === 0 || random.bool(0.7))) {
      snapshots--
      taken++
      steps.push({ do: 'snapshot', name: snapshotName(random, taken), size })
    } else {
      resizes--
      // QEMU: "Can't resize a v2 image which has snapshots".
      if (!choices.v3 && taken > 0) continue
      const from = size
      // Behind the old end the backing file must not show, but version 2 has no zero clusters to hide it, and a
      // compressed cluster no subclusters.
      const canHide = choices.v3 && !(choices.extendedL2 && compressedBy !== 'none')
      const canGrow = canHide || place.below.length === 0
      size = Math.max(512, sectors(from * random.pick(canGrow ? [0.3, 0.8, 1.2, 2] : [0.3, 0.8])))
      if (size === from) continue
      steps.push({ do: 'resize', size, from, afterSnapshot: taken > 0 })
    }
  }
}

/** A number is an id to those who look for ids first; it must be found as a name all the same. */
function snapshotName(random: Random, nth: number): string {
  return random.bool(0.6)
    ? `s${nth}`
    : random.pick([`with space ${nth}`, `größe-日本-${nth}`, `a,b=${nth}`, `${nth + 1}`])
}

const sectors = (bytes: number): number => Math.floor(bytes / 512) * 512

/** As large as the layer below, or shorter or longer; at the bottom some MiB, now and then much less or more. */
function firstSize(random: Random, clusterSize: number, place: LayerPlace): number {
  const lower = place.below.at(-1)
  if (lower) {
    const factor = random.bool() ? 1 : random.bool() ? 0.3 + random.float() / 2 : 1.1 + random.float()
    return Math.max(512, Math.ceil((lower.size * factor) / 512) * 512)
  }
  if (place.large) return sectors(random.int(64 * MiB, 2 * GiB))
  if (random.bool(0.1)) return random.int(1, 100) * 512
  const most = Math.max(4 * MiB, 6 * clusterSize)
  const size = random.int(1, most / 512) * 512
  return random.bool(0.3) ? Math.ceil(size / clusterSize) * clusterSize : size
}
