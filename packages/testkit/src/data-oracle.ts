import { copyFileSync, rmSync, statSync } from 'node:fs'
import type { MapExtent, QemuImgInfo } from './qemu-img.js'
import { type DataLayer, type DataSnapshot, openArgsOf, type RandomDataImage } from './random-data-image.js'
import { run } from './run.js'

/** A snapshot of an image, as its name or by what `makeRandomDataImage` says of it. */
export interface OfSnapshot {
  snapshot?: DataSnapshot
}

/**
 * The disk as a raw file: `qemu-img convert -O raw`, with holes where QEMU knows of zeros.
 *
 * A snapshot's disk is what going back to it gives. `convert -l` agrees only where the disk had today's size:
 * else QEMU 7.2 keeps that size, cuts the snapshot's disk or lets the backing file show behind its end. So there
 * a copy of the image goes back and is converted.
 *
 * @returns the path of the raw file, in the image's own folder.
 */
export async function rawOf(image: RandomDataImage, { snapshot }: OfSnapshot = {}): Promise<string> {
  if (!snapshot) return await converted(image.openArgs, `${image.file}.raw`)
  const to = `${image.file}.${snapshot.id}.raw`
  if (snapshot.size !== image.size) {
    return await wentBack(image, snapshot, openArgs => converted(openArgs, to))
  }
  const args = ['-l', `snapshot.name=${snapshot.name.replaceAll(',', ',,')}`]
  return await converted(image.openArgs, to, args)
}

/**
 * `qemu-img map --output=json`. It has no option for a snapshot, so a copy of the image goes back to it. That frees
 * clusters, and with them what QEMU may take for a sign of preallocation: stored clusters of a snapshot can be `zero`
 * here, or not, whatever the image's own holes are. `storedAsData` makes such maps comparable.
 */
export async function qemuMap(image: RandomDataImage, { snapshot }: OfSnapshot = {}): Promise<MapExtent[]> {
  if (snapshot) return await wentBack(image, snapshot, mapped)
  return await mapped(image.openArgs)
}

/** A map in which all that has a place in a qcow2 file is data, whether or not that file has a hole there. */
export function storedAsData(map: readonly MapExtent[]): MapExtent[] {
  const out: MapExtent[] = []
  for (const extent of map) {
    const next = { ...extent, zero: extent.zero && !extent.data }
    const last = out.at(-1)
    if (last && goesOn(last, next)) last.length += next.length
    else out.push(next)
  }
  return out
}

const goesOn = (last: MapExtent, next: MapExtent): boolean =>
  last.depth === next.depth &&
  last.present === next.present &&
  last.zero === next.zero &&
  last.data === next.data &&
  next.offset === (last.offset === undefined ? undefined : last.offset + last.length)

/** `qemu-img info` of a chain's layer (default: the top), its key given where it needs one. */
export async function qemuInfo(
  image: RandomDataImage,
  layer: DataLayer = image.layers[0]!,
): Promise<QemuImgInfo> {
  // It leaves the backing file alone, and so refuses a key for it.
  const openArgs = openArgsOf(layer.file, [layer], image.passphraseFile)
  return JSON.parse((await run('qemu-img', ['info', '--output=json', ...openArgs])).stdout)
}

/** The internal snapshots that `qemu-img info` lists. Their disks' sizes are not among what it tells. */
export async function qemuInfoSnapshots(image: RandomDataImage): Promise<{ id: string; name: string }[]> {
  const info = await qemuInfo(image)
  const snapshots = (info.snapshots ?? []) as { id: string; name: string }[]
  return snapshots.map(({ id, name }) => ({ id, name }))
}

/**
 * Compares two raw files byte for byte by `qemu-img compare`, which knows holes: some GiB cost nothing.
 *
 * @returns undefined, or what differs.
 */
export async function rawDifference(a: string, b: string): Promise<string | undefined> {
  const sizes = [statSync(a).size, statSync(b).size]
  if (sizes[0] !== sizes[1]) return `sizes ${sizes.join(' and ')}`
  const args = ['compare', '-f', 'raw', '-F', 'raw', a, b]
  const { status, stdout } = await run('qemu-img', args, { accept: [0, 1] })
  return status === 0 ? undefined : stdout.trim()
}

async function converted(
  openArgs: readonly string[],
  to: string,
  args: readonly string[] = [],
): Promise<string> {
  await run('qemu-img', ['convert', '-O', 'raw', ...args, ...openArgs, to])
  return to
}

async function mapped(openArgs: readonly string[]): Promise<MapExtent[]> {
  return JSON.parse((await run('qemu-img', ['map', '--output=json', ...openArgs])).stdout)
}

let copies = 0

async function wentBack<T>(
  image: RandomDataImage,
  snapshot: DataSnapshot,
  look: (openArgs: readonly string[]) => Promise<T>,
): Promise<T> {
  // Beside the image, for its backing file's relative name; its own, for several may go back at the same time.
  const copy = `${image.file}.back${copies++}`
  copyFileSync(image.file, copy)
  try {
    const openArgs = openArgsOf(copy, image.layers, image.passphraseFile)
    // An id is looked for before a name, and a name can be another's id.
    await run('qemu-img', ['snapshot', '-a', snapshot.id, ...openArgs])
    return await look(openArgs)
  } finally {
    rmSync(copy)
  }
}
