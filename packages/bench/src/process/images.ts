import { writeFileSync } from 'node:fs'
import { Random } from '@tidemark/testkit'
import { strewClusters } from '../engine/patterns.js'
import { type DataImageName, dataImages } from './data-images.js'
import { type Host, writeHost } from './host.js'
import { type StreamedBitmap, writeStreamedImage } from './image-writer.js'

const GiB = 2 ** 30
const TiB = 2 ** 40

export type BitmapImageName =
  | 'small'
  | '1t'
  | '16t'
  | '16t-512m'
  | '16t-alternating'
  | '16t-31x512m'
  | '1000-bitmaps'
  | '10000-bitmaps'
  | '65535-bitmaps'

/** A script that looks at each image of a host as vdsm does; the host is in the folder beside it (see `hostOf`). */
export type HostName = 'host-500'

export type ImageName = BitmapImageName | DataImageName | HostName

/** Runs of some 256 dirty granules, some 16,384 apart, as in the engine's benchmarks. */
function clustered(name: string, granularityBits: number): StreamedBitmap {
  const random = new Random(`bench/${name}`)
  const fill = (cluster: Uint8Array) => strewClusters(new Uint32Array(cluster.buffer), random)
  return { name, granularityBits, fill }
}

/** One cluster in 64 has bits; the others are holes, read as zeros all the same: 16 GiB would fill a disk. */
function mostlyHoles(name: string): StreamedBitmap {
  const { fill, ...rest } = clustered(name, 12)
  return {
    ...rest,
    fill(cluster, index) {
      if (index % 64 === 0) fill?.(cluster, index)
    },
  }
}

const many = (count: number): StreamedBitmap[] =>
  Array.from({ length: count }, (_, i) => ({ name: `b${i}`, granularityBits: 16 }))

const makers: Record<BitmapImageName, { virtualSize: number; bitmaps: () => StreamedBitmap[] }> = {
  small: { virtualSize: 10 * GiB, bitmaps: () => [clustered('a', 16), clustered('b', 16)] },
  '1t': { virtualSize: TiB, bitmaps: () => [clustered('a', 16), clustered('b', 16)] },
  '16t': { virtualSize: 16 * TiB, bitmaps: () => [clustered('a', 16), clustered('b', 16)] },
  '16t-512m': { virtualSize: 16 * TiB, bitmaps: () => [clustered('a', 12), clustered('b', 12)] },
  '16t-alternating': {
    virtualSize: 16 * TiB,
    bitmaps: () => [
      { name: 'fine', granularityBits: 12, fill: cluster => cluster.fill(0x55) },
      clustered('coarse', 16),
    ],
  },
  '16t-31x512m': {
    virtualSize: 16 * TiB,
    bitmaps: () => Array.from({ length: 31 }, (_, i) => mostlyHoles(`b${i}`)),
  },
  '1000-bitmaps': {
    virtualSize: TiB,
    bitmaps: () => [...many(998), clustered('a', 16), clustered('b', 16)],
  },
  '10000-bitmaps': { virtualSize: GiB, bitmaps: () => many(10_000) },
  '65535-bitmaps': { virtualSize: GiB, bitmaps: () => many(65_535) },
}

const hosts: Record<HostName, Host> = { 'host-500': { domains: 500, disks: 2, checkpoints: 31 } }

/** libvirt's root of the host whose script this is. */
export const hostOf = (script: string): string => `${script}.host`

/** One process for each image, as every script around qemu-img does it. */
function makeHost(name: HostName, script: string): number[] {
  const images = writeHost(hostOf(script), hosts[name])
  const lines = images.map(image => `qemu-img info --backing-chain --output=json -U '${image}'`)
  writeFileSync(script, `${lines.join('\n')}\n`)
  return []
}

export const imageNames = [
  ...Object.keys(makers),
  ...Object.keys(dataImages),
  ...Object.keys(hosts),
] as ImageName[]

/** An image on disk, and how many bits each of its bitmaps has. */
export interface MadeImage {
  file: string
  counts: number[]
}

function make(name: ImageName, file: string): number[] {
  if (name in hosts) return makeHost(name as HostName, file)
  if (name in dataImages) {
    dataImages[name as DataImageName](file)
    return []
  }
  const { virtualSize, bitmaps } = makers[name as BitmapImageName]
  return writeStreamedImage(file, { virtualSize, bitmaps: bitmaps() })
}

/** Makes images when they are first asked for. The folder is the caller's. */
export class Gallery {
  readonly #folder: string
  readonly #made = new Map<ImageName, MadeImage>()

  constructor(folder: string) {
    this.#folder = folder
  }

  image(name: ImageName): MadeImage {
    let made = this.#made.get(name)
    if (!made) {
      const file = `${this.#folder}/${name}.qcow2`
      made = { file, counts: make(name, file) }
      this.#made.set(name, made)
    }
    return made
  }

  /** A path in the same folder. */
  path(name: string): string {
    return `${this.#folder}/${name}`
  }
}
