// Runs in a page: what needs an image's metadata only. By itself it is the smallest program that is of use.
import {
  blobStorage,
  createEngine,
  dirtyExtents,
  findBitmap,
  type ImageStorage,
  inspectImage,
  openBitmap,
  openImage,
} from '@tidemark/qcow2'

/** What `qemu-img info` tells too. */
export async function info(storage: ImageStorage) {
  const { header, findings, bitmapDirectory, ...image } = await inspectImage(storage)
  return {
    virtualSize: image.virtualSize,
    clusterSize: image.clusterSize,
    compat: header.version === 2 ? '0.10' : '1.1',
    compressionType: header.compressionType === 1 ? 'zstd' : 'zlib',
    extendedL2: image.extendedL2,
    encrypted: image.encrypted,
    backingFile: image.backingFile,
    backingFormat: image.backingFormat,
    bitmaps: bitmapDirectory?.bitmaps.map(({ name, granularity }) => ({ name, granularity })),
    findings: findings.map(({ code }) => code),
  }
}

export type Info = Awaited<ReturnType<typeof info>>

/** Dirty extents as start, end, start, end, … */
export async function dirty(storage: ImageStorage, name: string): Promise<number[]> {
  const engine = createEngine()
  const image = await openImage(storage, engine)
  const all: number[] = []
  for await (const chunk of dirtyExtents(engine, [openBitmap(image, findBitmap(image, name), engine)])) {
    all.push(...chunk)
  }
  return all
}

export function chosenFiles(): readonly File[] {
  return [...(document.querySelector('input')?.files ?? [])]
}

export const metadataJobs = {
  info: () => info(blobStorage(chosenFiles()[0]!)),
  dirty: (name: string) => dirty(blobStorage(chosenFiles()[0]!), name),
}
