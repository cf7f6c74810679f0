import { type BackingName, backingNames, type LayerPlan } from './random-data-layer.js'
import { writeKinds } from './random-data-writes.js'

/** Every value that each axis of random data images has. */
export const dataAxes = {
  clusterSize: Array.from({ length: 13 }, (_, i) => String(2 ** (9 + i))),
  compat: ['0.10', '1.1'],
  refcountBits: ['1', '2', '4', '8', '16', '32', '64'],
  extendedL2: ['off', 'on'],
  lazyRefcounts: ['off', 'on'],
  preallocation: ['off', 'metadata', 'falloc'],
  compression: ['none', 'zlib', 'zstd'],
  compressedBy: ['none', 'convert', 'write'],
  dataFile: ['none', 'file', 'raw'],
  encryption: ['none', 'aes-256', 'aes-128'],
  /** Layers below the top. */
  depth: ['0', '1', '2', '3', '4', '5'],
  /** What is at the bottom; `raw-bytes` is a raw file that ends within a sector. */
  bottom: ['qcow2', 'raw', 'raw-bytes'],
  /** A backing file beside the overlay on it. */
  backingSize: ['same', 'shorter', 'longer'],
  backingName: backingNames,
  /** Whether an overlay is in the folder of its backing file. */
  folder: ['same', 'other'],
  /** Of the top layer's disk: whole clusters or not. */
  tail: ['whole', 'part'],
  disk: ['small', 'large'],
  /** Of the top layer. */
  snapshots: ['0', '1', '2', '3'],
  /** Whether a snapshot's disk has another size than the image's now. */
  snapshotSize: ['same', 'shorter', 'longer'],
  resize: ['none', 'grown', 'shrunk', 'grown-after-snapshot', 'shrunk-after-snapshot'],
  writes: writeKinds,
} as const satisfies Record<string, readonly string[]>

export type DataAxis = keyof typeof dataAxes

/** Which values of each axis an image has; an axis of layers may have several. */
export type DataFeatures = Record<DataAxis, readonly string[]>

/** For each value of each axis, how many of the images have it: 0 for one that none has. */
export function coverageOf(
  images: readonly { features: DataFeatures }[],
): Record<DataAxis, Record<string, number>> {
  const counted = Object.entries(dataAxes).map(([axis, values]) => [
    axis,
    Object.fromEntries(
      values.map(value => [
        value,
        images.filter(({ features }) => features[axis as DataAxis].includes(value)).length,
      ]),
    ),
  ])
  return Object.fromEntries(counted)
}

/** The features of a chain, given bottom first. */
export function featuresOf(
  plans: readonly LayerPlan[],
  folders: readonly string[],
  large: boolean,
): DataFeatures {
  const top = plans.at(-1)!
  const qcow2 = plans.filter(plan => plan.format === 'qcow2')
  const links = plans.slice(1).map((overlay, i) => ({ overlay, backing: plans[i]!, i }))
  const each = (value: (plan: LayerPlan) => string | number | boolean): string[] =>
    unique(qcow2.map(plan => named(value(plan))))
  const snapshots = top.steps.filter(step => step.do === 'snapshot')
  const resizes = plans.flatMap(plan => plan.steps).filter(step => step.do === 'resize')
  return {
    clusterSize: each(plan => plan.clusterSize),
    compat: each(plan => plan.compat),
    refcountBits: each(plan => plan.refcountBits),
    extendedL2: each(plan => plan.extendedL2),
    lazyRefcounts: each(plan => plan.lazyRefcounts),
    preallocation: each(plan => plan.preallocation),
    compression: each(plan => plan.compression),
    compressedBy: each(plan => plan.compressedBy),
    dataFile: each(plan => plan.dataFile),
    encryption: each(plan => plan.encryption),
    depth: [String(plans.length - 1)],
    bottom: [plans[0]!.format === 'qcow2' ? 'qcow2' : plans[0]!.missingBytes > 0 ? 'raw-bytes' : 'raw'],
    backingSize: unique(links.map(({ overlay, backing }) => sized(backing.size, overlay.size))),
    backingName: unique(links.map(({ backing }): BackingName => backing.name)),
    folder: unique(links.map(({ i }) => (folders[i] === folders[i + 1] ? 'same' : 'other'))),
    tail: [top.size % top.clusterSize === 0 ? 'whole' : 'part'],
    disk: [large ? 'large' : 'small'],
    snapshots: [String(snapshots.length)],
    snapshotSize: unique(snapshots.map(step => sized(step.size, top.size))),
    resize:
      resizes.length === 0
        ? ['none']
        : unique(
            resizes.map(
              ({ size, from, afterSnapshot }) =>
                `${size > from ? 'grown' : 'shrunk'}${afterSnapshot ? '-after-snapshot' : ''}`,
            ),
          ),
    writes: unique(
      plans
        .flatMap(plan => plan.steps)
        .flatMap(step => (step.do === 'write' ? step.commands.map(({ kind }) => kind) : [])),
    ),
  }
}

const unique = (values: readonly string[]): string[] => [...new Set(values)]

const named = (value: string | number | boolean): string =>
  typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value)

const sized = (one: number, other: number): string =>
  one === other ? 'same' : one < other ? 'shorter' : 'longer'
