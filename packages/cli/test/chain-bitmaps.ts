import { copyFileSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type DirtyExtent, qemuImg, run } from '@tidemark/testkit'
import { tidemarkJson } from './cli.js'
import { type ByteSet, byteSet, combine, operations } from './sets.js'

/** A bitmap as it lies in an image: flags and granularity by qemu-img, bits by `tidemark map`. */
export interface StoredBitmap {
  readonly name: string
  readonly granularity: number
  readonly flags: readonly string[]
  readonly bits: ByteSet
}

/** All bitmaps of an image, by name. */
export async function storedBitmaps(file: string): Promise<Map<string, StoredBitmap>> {
  const { bitmaps = [] } = (await qemuImg.info(file))['format-specific']!.data
  const found = new Map<string, StoredBitmap>()
  for (const { name, granularity, flags } of [...bitmaps].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const map = await tidemarkJson<DirtyExtent[]>(['map', '--bitmap', name, file])
    found.set(name, { name, granularity, flags, bits: byteSet(map) })
  }
  return found
}

/** What is compared exactly even where bits may differ. */
export function outlines(bitmaps: ReadonlyMap<string, StoredBitmap>): unknown {
  return [...bitmaps.values()].map(({ name, granularity, flags }) => ({ name, granularity, flags }))
}

export function lacks(bits: ByteSet, wanted: ByteSet): ByteSet {
  return combine(wanted, bits, operations.difference)
}

/** A folder of qcow2 images, copied, with the copies' backing files the copies. */
export async function copyImages(from: string, to: string): Promise<void> {
  mkdirSync(to)
  const names = readdirSync(from)
  for (const name of names) copyFileSync(join(from, name), join(to, name))
  for (const name of names) {
    const { 'backing-filename': backing } = await qemuImg.info(join(to, name))
    if (backing === undefined) continue
    const there = backing.replace(`${from}/`, `${to}/`)
    await run('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', there, join(to, name)])
  }
}
