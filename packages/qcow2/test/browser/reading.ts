// Runs in a page or a worker: all that the package does with an image, over files that were chosen or over HTTP.
import {
  blobStorage,
  closeChain,
  type DiskExtent,
  type ImageOpener,
  type ImageStorage,
  openChain,
  openDisk,
  openHttp,
  Qcow2Error,
} from '@tidemark/qcow2'
import { dirty, info } from './metadata.js'

export interface Place {
  /** The image's name among the files that were chosen, or below `url`. */
  readonly name: string
  /** Over HTTP: the folder. */
  readonly url?: string
  /** Only so many bytes of a file: a Blob without a name. */
  readonly cut?: number
  readonly passphrase?: string
}

export interface Disk {
  readonly size: number
  readonly depth: number
  readonly extents: readonly DiskExtent[]
  readonly sha256: string
}

/** An error that has left the page. */
export interface Failure {
  readonly message: string
  /** Undefined unless it is a Qcow2Error. */
  readonly code: string | undefined
}

function open(place: Place, name: string, files: readonly File[]): Promise<ImageStorage> | ImageStorage {
  if (place.url !== undefined) return openHttp(new URL(place.url + name, location.href))
  const file = files.find(each => each.name === name)
  if (file === undefined) throw new Qcow2Error('reference-denied', `${name} was not chosen`)
  return blobStorage(place.cut === undefined || name !== place.name ? file : file.slice(0, place.cut))
}

/** Everything that is wrong comes back as a value: an error's class does not leave the page. */
async function attempt<T>(work: () => Promise<T>): Promise<T | Failure> {
  try {
    return await work()
  } catch (error) {
    return { message: (error as Error).message, code: error instanceof Qcow2Error ? error.code : undefined }
  }
}

async function openPlace(place: Place, files: readonly File[]) {
  // An image has its data file's name with a path. A page knows of no folders.
  const gate: ImageOpener = async path => {
    const filename = path.slice(path.lastIndexOf('/') + 1)
    return { storage: await open(place, filename, files), filename, namedAs: path }
  }
  const chain = await openChain({ name: place.name, format: 'qcow2' }, { open: gate })
  const { passphrase } = place
  const disk = await openDisk(chain, {
    open: gate,
    ...(passphrase === undefined ? {} : { passphrase: async () => new TextEncoder().encode(passphrase) }),
  })
  const close = async () => {
    await disk.close()
    await closeChain(chain)
  }
  return { chain, disk, close }
}

async function readDisk(place: Place, files: readonly File[]): Promise<Disk> {
  const { chain, disk, close } = await openPlace(place, files)
  const extents: DiskExtent[] = []
  for await (const some of disk.extents()) extents.push(...some)
  const bytes = new Uint8Array(disk.size)
  await disk.readInto(bytes, 0)
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  await close()
  const sha256 = [...hash].map(byte => byte.toString(16).padStart(2, '0')).join('')
  return { size: disk.size, depth: chain.length, extents, sha256 }
}

async function readPart(place: Place, offset: number, length: number, files: readonly File[]) {
  const { disk, close } = await openPlace(place, files)
  const bytes = new Uint8Array(length)
  await disk.readInto(bytes, offset)
  await close()
  return [...bytes]
}

export const jobsOver = (files: () => readonly File[]) => ({
  info: (place: Place) => attempt(async () => info(await open(place, place.name, files()))),
  dirty: (place: Place, bitmap: string) =>
    attempt(async () => dirty(await open(place, place.name, files()), bitmap)),
  disk: (place: Place) => attempt(() => readDisk(place, files())),
  part: (place: Place, offset: number, length: number) =>
    attempt(() => readPart(place, offset, length, files())),
})
