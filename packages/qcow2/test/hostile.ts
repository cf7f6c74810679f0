// Crafted images that lie, and what tests of them ask. Files are sparse, in memory: a hostile one costs its maker nothing.
import { buildQcow2, putU32, putU64, type Qcow2Spec } from '@tidemark/testkit'
import { expect } from 'vitest'
import {
  type DiskExtent,
  type GuestDisk,
  type ImageStorage,
  memoryStorage,
  type OpenDiskOptions,
  openChain,
  openDisk,
} from '../src/index.js'

export const KiB = 1024
export const MiB = 1024 * KiB
export const TiB = 2 ** 40
export const CLUSTER = 64 * KiB

/** Header fields to set, by their offsets; those of 64 bits as bigint. */
export type Fields = Readonly<Record<number, number | bigint>>

/** Cluster 0 of a sound image, with some fields changed: its tables are where a test puts them. */
export function header(spec: Qcow2Spec, fields: Fields = {}): Uint8Array {
  const { bytes, layout } = buildQcow2({ virtualSize: 0, ...spec })
  const cluster = bytes.slice(0, layout.clusterSize)
  for (const [at, value] of Object.entries(fields)) {
    if (typeof value === 'bigint') putU64(cluster, Number(at), value)
    else putU32(cluster, Number(at), value)
  }
  return cluster
}

/** Where the header has them. */
export const field = {
  size: 24,
  l1Size: 36,
  l1Offset: 40,
  refcountOffset: 48,
  refcountClusters: 56,
  nbSnapshots: 60,
  snapshotsOffset: 64,
} as const

export function words(...values: (bigint | number)[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8)
  for (const [i, value] of values.entries()) putU64(bytes, i * 8, value)
  return bytes
}

export async function diskOf(
  image: ImageStorage | Uint8Array,
  options: OpenDiskOptions = {},
): Promise<GuestDisk> {
  const storage = image instanceof Uint8Array ? memoryStorage(image) : image
  const open = async (path: string) => ({ storage, filename: path, namedAs: path })
  return openDisk(await openChain({ name: 'top', format: 'qcow2' }, { open }), options)
}

export async function read(disk: GuestDisk, offset = 0, length = disk.size - offset): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xaa)
  await disk.readInto(target, offset)
  return target
}

export async function extents(disk: GuestDisk, start?: number, length?: number): Promise<DiskExtent[]> {
  const all: DiskExtent[] = []
  for await (const chunk of disk.extents(start, length)) all.push(...chunk)
  return all
}

/** Time, and memory at the most that the system has seen of it; what is left behind counts as well. */
export async function within<T>(seconds: number, mebibytes: number, use: () => Promise<T>): Promise<T> {
  const before = { rss: process.memoryUsage.rss(), peak: process.resourceUsage().maxRSS * KiB }
  const began = performance.now()
  const result = await use()
  expect((performance.now() - began) / 1000).toBeLessThan(seconds)
  const { maxRSS } = process.resourceUsage()
  const grown = Math.max(
    process.memoryUsage.rss() - before.rss,
    maxRSS * KiB > before.peak ? maxRSS * KiB - before.rss : 0,
  )
  expect(grown / MiB).toBeLessThan(mebibytes)
  return result
}
