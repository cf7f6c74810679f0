import { copyFileSync, rmSync } from 'node:fs'
import {
  countDirtyBytes,
  everyDiskIncremental,
  sameBitmaps,
  sameData,
  sameDirty,
  sameDirtyBytes,
  sameMap,
} from './answers.js'
import { bareNode, type Command, qemuImg, tidemark } from './command.js'
import { type Gallery, hostOf, type ImageName } from './images.js'

/** What a target asks: a share of the peer's time, a peak in bytes. */
export interface ProcessTarget {
  /** tidemark's time ÷ the peer's, at most. */
  share?: number
  /** At most so many bytes of resident memory. */
  peakBytes?: number
}

/** The command as a whole process against another. */
export interface ProcessBenchmark {
  name: string
  title: string
  image?: ImageName
  /** `out` is a file that it may write. */
  tidemark(file: string, out: string): Command
  /** Who does the same work, or the nearest to it; none where only memory is looked at. */
  peer?: {
    name: string
    command(file: string, out: string): Command
    /** It changes the image: each run has a fresh copy. */
    writes?: boolean
    /** One run only, and none in a quick one: it takes a minute. */
    slow?: boolean
  }
  /** It changes the image: each run has a fresh copy. */
  writes?: boolean
  /** Both answers, outside the timer. @throws Error where they differ */
  check?(gallery: Gallery, files: { image: string; afterPeer: string | undefined }): void
  target?: ProcessTarget
  /** Runs of each; start-up is short, so it needs more. */
  rounds?: number
}

const MB = 1e6
const info = (file: string) => tidemark('info', '--output', 'json', file)
const qemuInfo = { name: 'qemu-img info', command: (file: string) => qemuImg('info', '--output=json', file) }
const merge = (source: string, destination: string) => ({
  name: 'qemu-img bitmap --merge',
  command: (file: string) => qemuImg('bitmap', '--merge', source, file, destination),
  writes: true,
})
const map = (file: string, names: readonly string[], ...args: string[]) =>
  tidemark('map', file, ...names.flatMap(name => ['--bitmap', name]), ...args)
const ofInfo: ProcessBenchmark['check'] = (_, { image }) => sameBitmaps(image)

const planAll = (script: string, ...args: string[]) =>
  tidemark('plan', 'backup', '--all', '--libvirt-root', hostOf(script), '--incremental', 'cp000', ...args)

const dump = (file: string, out: string) => tidemark('dump', '-o', out, file)
const convert = {
  name: 'qemu-img convert',
  command: (file: string, out: string) => qemuImg('convert', '-O', 'raw', file, out),
}
const nbdcopy = {
  name: 'nbdcopy',
  command: (file: string, out: string): Command => ({
    program: 'nbdcopy',
    args: ['--', '[', 'qemu-nbd', '-r', '-f', 'qcow2', file, ']', out],
  }),
}
const ofDump: ProcessBenchmark['check'] = (gallery, { image }) => sameData(image, path => gallery.path(path))

const dumps: readonly ProcessBenchmark[] = (
  [
    ['plain', 'data-plain', '1 GiB, all allocated'],
    ['half', 'data-half', '2 GiB, every other MiB allocated'],
    ['zlib', 'data-zlib', '512 MiB, zlib'],
    ['zstd', 'data-zstd', '512 MiB, zstd'],
  ] as const
).flatMap(([name, image, title]) => [
  {
    name: `dump-${name}`,
    title: `dump, ${title}`,
    image,
    tidemark: dump,
    peer: convert,
    check: ofDump,
    // 0.8 times as fast.
    ...(name === 'plain' ? { target: { share: 1 / 0.8 } } : {}),
  },
  { name: `dump-${name}-nbd`, title: `dump, ${title}`, image, tidemark: dump, peer: nbdcopy },
])

const edits: readonly ProcessBenchmark[] = (
  [
    ['1t', '1 TiB', 1],
    ['16t', '16 TiB', 0.33],
    ['1000-bitmaps', '1 TiB, one of 1,000 bitmaps', 0.05],
  ] as const
).flatMap(([image, title, share]) =>
  (
    [
      ['merge', (file: string) => ['bitmap', '--merge', 'b', file, 'a']],
      ['add', (file: string) => ['bitmap', '--add', file, 'new']],
      ['disable', (file: string) => ['bitmap', '--disable', file, 'a']],
    ] as const
  ).map(([action, args]) => ({
    name: `bitmap-${action}-${image}`,
    title: `bitmap --${action}, ${title}`,
    image,
    tidemark: (file: string) => tidemark(...args(file)),
    writes: true,
    peer: { name: 'qemu-img bitmap', command: (file: string) => qemuImg(...args(file)), writes: true },
    check: (_: Gallery, { image: ours, afterPeer }: { image: string; afterPeer: string | undefined }) => {
      if (afterPeer !== undefined) sameDirty(ours, afterPeer)
    },
    target: { share, peakBytes: 100 * MB },
  })),
)

export const processBenchmarks: readonly ProcessBenchmark[] = [
  {
    name: 'start-version',
    title: 'start-up: --version',
    tidemark: () => tidemark('--version'),
    peer: { name: 'node -e 0', command: () => bareNode },
    target: { share: 1.7 },
    rounds: 31,
  },
  {
    name: 'start-info',
    title: 'start-up: info on a small image',
    image: 'small',
    tidemark: file => tidemark('info', file),
    peer: { name: 'node -e 0', command: () => bareNode },
    target: { share: 2 },
    rounds: 31,
  },
  {
    name: 'info-1t',
    title: 'info, 1 TiB, two bitmaps of 64 KiB granularity (2 MiB each)',
    image: '1t',
    tidemark: info,
    peer: qemuInfo,
    check: ofInfo,
    rounds: 15,
  },
  {
    name: 'info-16t',
    title: 'info, 16 TiB, two bitmaps of 64 KiB granularity (32 MiB each)',
    image: '16t',
    tidemark: info,
    peer: qemuInfo,
    check: ofInfo,
    target: { share: 0.3 },
    rounds: 15,
  },
  {
    name: 'info-512m',
    title: 'info, 16 TiB, two bitmaps of 4 KiB granularity (512 MiB each)',
    image: '16t-512m',
    tidemark: info,
    peer: qemuInfo,
    check: ofInfo,
    target: { share: 0.03, peakBytes: 70 * MB },
  },
  {
    name: 'info-10000',
    title: 'info, 10,000 bitmaps',
    image: '10000-bitmaps',
    tidemark: info,
    peer: qemuInfo,
    check: ofInfo,
  },
  {
    name: 'info-65535',
    title: 'info, 65,535 bitmaps',
    image: '65535-bitmaps',
    tidemark: info,
    peer: { ...qemuInfo, slow: true },
    target: { share: 0.01 },
  },
  {
    name: 'union-extents',
    title: 'union of two 512 MiB bitmaps, as extents',
    image: '16t-512m',
    tidemark: file => map(file, ['a', 'b'], '--output', 'json'),
    peer: merge('b', 'a'),
    check: (gallery, { image, afterPeer }) => {
      const dirty = countDirtyBytes(
        map(image, ['a', 'b'], '--dirty', '--format', 'ndjson'),
        gallery.path('map'),
      )
      sameDirtyBytes(afterPeer, 'a', dirty)
    },
    target: { share: 0.15, peakBytes: 80 * MB },
  },
  {
    name: 'union-bytes',
    title: 'union of two 512 MiB bitmaps, counted',
    image: '16t-512m',
    tidemark: file => map(file, ['a', 'b'], '--count'),
    peer: merge('b', 'a'),
    target: { share: 0.15, peakBytes: 80 * MB },
  },
  {
    name: 'alternating',
    title: 'alternating 4 KiB bitmap (512 MiB) united into a 64 KiB one',
    image: '16t-alternating',
    tidemark: file => map(file, ['fine', 'coarse'], '--granularity', '64k', '--output', 'json'),
    peer: { ...merge('fine', 'coarse'), slow: true },
    check: (gallery, { image, afterPeer }) => {
      const united = map(image, ['fine', 'coarse'], '--granularity', '64k', '--dirty', '--format', 'ndjson')
      sameDirtyBytes(afterPeer, 'coarse', countDirtyBytes(united, gallery.path('map')))
    },
    target: { share: 0.03 },
  },
  {
    name: 'count-31',
    title: 'info --count, 31 bitmaps of 512 MiB',
    image: '16t-31x512m',
    tidemark: file => tidemark('info', '--count', '--output', 'json', file),
    target: { peakBytes: 80 * MB },
    rounds: 1,
  },
  {
    name: 'map-31',
    title: 'map, 31 bitmaps of 512 MiB united',
    image: '16t-31x512m',
    tidemark: file =>
      map(
        file,
        Array.from({ length: 31 }, (_, i) => `b${i}`),
        '--output',
        'json',
      ),
    target: { peakBytes: 80 * MB },
    rounds: 1,
  },
  {
    name: 'map-1t',
    title: 'map of a 1 TiB disk in 1,048,576 extents, tables strewn over the file',
    image: 'map-1t',
    tidemark: file => tidemark('map', '--output', 'json', file),
    peer: { name: 'qemu-img map', command: file => qemuImg('map', '--output=json', file) },
    check: (gallery, { image }) => sameMap(image, path => gallery.path(path)),
    target: { share: 1 },
  },
  {
    name: 'plan-500',
    title: 'plan backup --all, 500 domains of 2 disks with 31 checkpoints each',
    image: 'host-500',
    tidemark: script => planAll(script),
    peer: {
      name: 'qemu-img info, once for each image',
      command: script => ({ program: 'sh', args: ['-e', script] }),
      slow: true,
    },
    check: (_, { image }) => everyDiskIncremental(planAll(image, '--output', 'json'), 1000),
    target: { share: 1.5, peakBytes: 400 * MB },
    rounds: 3,
  },
  ...dumps,
  ...edits,
]

/** A fresh copy of an image, settled on disk so that its writing is not in the next one's time. */
export function freshCopy(from: string, to: string): void {
  rmSync(to, { force: true })
  copyFileSync(from, to)
}
