import { info, type QemuImgInfo, withoutBacking } from './qemu-img.js'
import { run } from './run.js'

/** nbdinfo's extent of a bitmap: type 0 `clean`, 1 `dirty`. Offsets and lengths are guest bytes. */
export interface DirtyExtent {
  offset: number
  length: number
  type: number
  description: string
}

/**
 * What a persistent bitmap of a qcow2 image says, by two programs that share no code with ours: qemu-nbd
 * exports it, nbdinfo maps it. nbdinfo starts qemu-nbd itself (systemd socket activation), so there is no
 * moment at which the server is not yet listening, and it ends with its one client.
 *
 * nbdinfo prints what it gets from block status replies, and may split one run where a reply ended (lengths
 * are 32-bit there); neighbours of the same type are therefore made one.
 *
 * The bitmap is looked up with qemu-img first, since libnbd leaves a folder in /tmp behind when a server refuses
 * to start. A backing image is not opened: qemu-nbd would look for the bitmap there too, which is never meant
 * here, and it need not be where the header says.
 *
 * @throws Error when the image itself lacks the bitmap, when it is in use (QEMU can't export it), or when
 * the extents do not cover the whole disk in order; RunError when QEMU can't open the image.
 */
export async function dirtyMap(file: string, bitmapName: string): Promise<DirtyExtent[]> {
  const image = await info(file, { format: 'qcow2' })
  const found = image['format-specific']?.data.bitmaps?.find(bitmap => bitmap.name === bitmapName)
  if (!found) throw new Error(`${file} has no bitmap ${JSON.stringify(bitmapName)}`)
  if (found.flags.includes('in-use')) throw new Error(`${file}: bitmap ${bitmapName} is in use`)
  return await exported(image, bitmapName)
}

/** `dirtyMap` of every bitmap of the image that is not in use, by name, in the directory's order. */
export async function dirtyMaps(file: string): Promise<Map<string, DirtyExtent[]>> {
  const image = await info(file, { format: 'qcow2' })
  const maps = new Map<string, DirtyExtent[]>()
  for (const { name, flags } of image['format-specific']?.data.bitmaps ?? []) {
    if (!flags.includes('in-use')) maps.set(name, await exported(image, name))
  }
  return maps
}

async function exported(image: QemuImgInfo, bitmapName: string): Promise<DirtyExtent[]> {
  const alone =
    image['backing-filename'] === undefined
      ? ['-f', 'qcow2', image.filename]
      : [withoutBacking(image.filename)]
  const server = ['qemu-nbd', '-r', '-B', bitmapName, ...alone]
  const context = `qemu:dirty-bitmap:${bitmapName}`
  const { stdout } = await run('nbdinfo', [`--map=${context}`, '--json', '--', '[', ...server, ']'])
  return mergedExtents(JSON.parse(stdout), image['virtual-size'])
}

/** Neighbours of one type become one extent. @throws Error unless they cover 0 … size without a gap. */
export function mergedExtents(extents: readonly DirtyExtent[], size: number): DirtyExtent[] {
  const merged: DirtyExtent[] = []
  let end = 0
  for (const extent of extents) {
    if (extent.offset !== end) throw new Error(`extents: ${extent.offset} follows ${end}`)
    end += extent.length
    const last = merged.at(-1)
    if (last && last.type === extent.type) last.length += extent.length
    else merged.push({ ...extent })
  }
  if (end !== size) throw new Error(`extents end at ${end}, the disk at ${size}`)
  return merged
}
