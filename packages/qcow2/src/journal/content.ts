import type { Run } from '../edit/cluster-runs.js'
import type { NewDirectory } from '../edit/header-switch.js'
import { Qcow2Error } from '../errors.js'
import { fromHex, toHex } from './digest.js'

/** What a journal says of an image before anything is written to it. */
export interface JournalImage {
  /** Absolute. */
  readonly filename: string
  readonly clusterSize: number
  /** Cluster 0 as it was, without the zeros at its end. */
  readonly start: Uint8Array
  /** Where the new directory is to be; undefined: no bitmaps are left. */
  readonly directory: NewDirectory | undefined
  /** Clusters that are taken, and those that are given back in the end. */
  readonly taken: readonly Run[]
  readonly released: readonly Run[]
}

/** What is known when all of it is prepared, for each image: digests of its old directory and of all that is new. */
export interface JournalDigests {
  readonly before: string
  readonly taken: string
}

/** Where all images went, and only clusters are left to be freed. */
export type Direction = 'forward' | 'back'

const MAX_IMAGES = 4096
const MAX_NAME = 4096
const MAX_CLUSTER_BYTES = 2 ** 21
const MAX_CLUSTERS = 2 ** 44

export function imagesToJson(images: readonly JournalImage[]): string {
  const pairs = (runs: readonly Run[]) => runs.map(({ first, count }) => [first, count])
  return JSON.stringify({
    images: images.map(({ filename, clusterSize, start, directory, taken, released }) => ({
      filename,
      'cluster-size': clusterSize,
      start: toHex(start),
      directory: directory === undefined ? null : [directory.count, directory.offset, directory.bytes],
      taken: pairs(taken),
      released: pairs(released),
    })),
  })
}

export function digestsToJson(digests: readonly JournalDigests[]): string {
  return JSON.stringify({ digests: digests.map(({ before, taken }) => [before, taken]) })
}

export function directionToJson(direction: Direction): string {
  return JSON.stringify({ direction })
}

/** A journal may be of anybody's making. @throws {Qcow2Error} `journal-invalid`, with the place */
export function parseImages(json: string, journal: string): JournalImage[] {
  const is = checker(journal)
  const { images } = is.object(parsed(json, journal), 'images', ['images'])
  const names = new Set<string>()
  return is.array(images, 'images', 1, MAX_IMAGES).map((value, i) => {
    const at = `images[${i}]`
    const image = is.object(value, at, [
      'filename',
      'cluster-size',
      'start',
      'directory',
      'taken',
      'released',
    ])
    const filename = image.filename
    is.that(
      typeof filename === 'string' &&
        filename.startsWith('/') &&
        filename.length <= MAX_NAME &&
        !filename.includes('\0') &&
        !names.has(filename),
      `${at}.filename`,
    )
    names.add(filename as string)
    const clusterSize = is.number(image['cluster-size'], `${at}.cluster-size`, 512, MAX_CLUSTER_BYTES)
    is.that(Number.isInteger(Math.log2(clusterSize)), `${at}.cluster-size`)
    const { start } = image
    is.that(
      typeof start === 'string' && start.length <= clusterSize * 2 && /^(?:[0-9a-f]{2})*$/.test(start),
      `${at}.start`,
    )
    return {
      filename: filename as string,
      clusterSize,
      start: fromHex(start as string),
      directory: image.directory === null ? undefined : directory(image.directory, `${at}.directory`),
      taken: runs(image.taken, `${at}.taken`),
      released: runs(image.released, `${at}.released`),
    }
  })

  function directory(value: unknown, at: string): NewDirectory {
    const [count, offset, bytes] = is.array(value, at, 3, 3)
    return {
      count: is.number(count, `${at}[0]`, 1, 65535),
      offset: is.number(offset, `${at}[1]`, 512, Number.MAX_SAFE_INTEGER),
      bytes: is.number(bytes, `${at}[2]`, 1, 1024 * 65535),
    }
  }

  function runs(value: unknown, at: string): Run[] {
    let end = 1
    return is.array(value, at, 0, Number.POSITIVE_INFINITY).map((pair, i) => {
      const [from, many] = is.array(pair, `${at}[${i}]`, 2, 2)
      // Ascending, and never cluster 0.
      const first = is.number(from, `${at}[${i}][0]`, end, MAX_CLUSTERS)
      const count = is.number(many, `${at}[${i}][1]`, 1, MAX_CLUSTERS)
      end = first + count
      return { first, count }
    })
  }
}

/** @throws {Qcow2Error} `journal-invalid` */
export function parseDigests(json: string, images: number, journal: string): JournalDigests[] {
  const is = checker(journal)
  const { digests } = is.object(parsed(json, journal), 'commit', ['digests'])
  return is.array(digests, 'digests', images, images).map((pair, i) => {
    const [before, taken] = is.array(pair, `digests[${i}]`, 2, 2)
    for (const each of [before, taken]) {
      is.that(typeof each === 'string' && /^(?:[0-9a-f]{64})?$/.test(each), `digests[${i}]`)
    }
    return { before: before as string, taken: taken as string }
  })
}

/** @throws {Qcow2Error} `journal-invalid` */
export function parseDirection(json: string, journal: string): Direction {
  const is = checker(journal)
  const { direction } = is.object(parsed(json, journal), 'done', ['direction'])
  is.that(direction === 'forward' || direction === 'back', 'direction')
  return direction as Direction
}

function parsed(json: string, journal: string): unknown {
  try {
    return JSON.parse(json)
  } catch (cause) {
    throw new Qcow2Error(
      'journal-invalid',
      `${journal} is damaged: ${(cause as Error).message}`,
      { journal },
      { cause },
    )
  }
}

function checker(journal: string) {
  const that = (holds: boolean, at: string): void => {
    if (holds) return
    throw new Qcow2Error('journal-invalid', `${journal}: ${at} is not as tidemark writes it`, {
      journal,
      field: at,
    })
  }
  return {
    that,
    object(value: unknown, at: string, keys: readonly string[]): Record<string, unknown> {
      that(typeof value === 'object' && value !== null && !Array.isArray(value), at)
      that(Object.keys(value as object).join() === keys.join(), at)
      return value as Record<string, unknown>
    },
    array(value: unknown, at: string, least: number, most: number): unknown[] {
      that(Array.isArray(value) && value.length >= least && value.length <= most, at)
      return value as unknown[]
    },
    number(value: unknown, at: string, least: number, most: number): number {
      that(Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most, at)
      return value as number
    },
  }
}
