// Reads all that a reader can of a mutant, and looks whether it keeps its word.
import { createHash } from 'node:crypto'
import {
  type BitmapEngine,
  type ChainLayer,
  type Codecs,
  type DiskExtent,
  type GuestDisk,
  type ImageStorage,
  inspectImage,
  openChain,
  openDisk,
  Qcow2Error,
  type Qcow2ErrorCode,
  readSnapshots,
} from '../../src/index.js'
import type { FuzzCase } from './cases.js'
import { type Asked, mutantStorage } from './mutant.js'

/** Read whole up to here. */
export const WHOLE_BYTES = 12 * 2 ** 20
const MAX_EXTENTS = 20_000
const DEADLINE_MS = 5000
const MAX_ITERATIONS = 100_000

/** What a bad image may end with. */
const codes: readonly Qcow2ErrorCode[] = [
  'not-qcow2',
  'corrupt-image',
  'unsupported-feature',
  'image-missing',
  'reference-denied',
  'passphrase-missing',
  'passphrase-wrong',
  'snapshot-missing',
  'decompress-failed',
]

/** What came of one disk: its bytes or why there are none. */
export interface Verdict {
  readonly size: number
  /** Whole, if it is not too large. */
  readonly bytes: Uint8Array | undefined
  readonly error: Qcow2Error | undefined
}

export interface Exercised {
  /** The disk as it is now. */
  readonly verdict: Verdict
  /** The first snapshots' disks, by their ids. */
  readonly snapshots: ReadonlyMap<string, Verdict>
  /** The same image gives the same; empty unless asked for. */
  readonly digest: string
  readonly asked: Asked
}

export interface Reader {
  readonly engine: BitmapEngine
  readonly codecs: Codecs
  /** Whether it is asked for: that takes as long as all the rest. */
  readonly digest?: boolean
  /** Instead of the real one: to see that what is wrong with it is seen. */
  readonly openDisk?: typeof openDisk
}

/** The reader broke its word. */
export class Violation extends Error {}

/** @throws {Violation} */
export async function exercise(fuzzed: FuzzCase, reader: Reader): Promise<Exercised> {
  const { engine, codecs } = reader
  const deadline = AbortSignal.timeout(DEADLINE_MS)
  const asked: Asked = { reads: 0, bytes: 0, largest: 0 }
  const storages = new Map<string, ImageStorage>()
  for (const [name, mutant] of fuzzed.files) storages.set(name, mutantStorage(mutant, name, asked))
  const fileBytes = [...storages.values()].reduce((sum, { size }) => sum + size, 0)
  const hash = createHash('sha1')
  const note = (...what: unknown[]) => hash.update(JSON.stringify(what))
  const attempt = async <T>(use: () => Promise<T>): Promise<T | Qcow2Error> => {
    try {
      return await use()
    } catch (error) {
      if (deadline.aborted) throw new Violation(`not done in ${DEADLINE_MS} ms`)
      if (error instanceof Violation) throw error
      if (!(error instanceof Qcow2Error) || !codes.includes(error.code) || error.message === '') {
        throw new Violation(`an error that no image may give: ${error}`, { cause: error })
      }
      note(error.code)
      return error
    }
  }
  const open = async (path: string) => {
    const storage = storages.get(path.replace(/^(\.?\/)+/, ''))
    if (storage === undefined) throw new Qcow2Error('image-missing', `${path}: no such file`)
    return { storage, filename: path, namedAs: path }
  }
  const capped: Codecs = {
    ...codecs,
    pbkdf2(hash, passphrase, salt, iterations, bytes) {
      // Allowed, and too slow for here.
      if (iterations > MAX_ITERATIONS) throw new Qcow2Error('unsupported-feature', 'many iterations')
      return codecs.pbkdf2(hash, passphrase, salt, iterations, bytes)
    },
  }
  const passphrase = async () => new TextEncoder().encode(fuzzed.passphrase ?? 'none')

  await attempt(() => inspectImage(storages.get('top.qcow2')!, engine))
  const probe = fuzzed.random.bool()
  const chain = await openChain({ name: 'top.qcow2', format: 'qcow2' }, { open, engine, probe })
  const problem = chain.at(-1)?.problem
  if (problem !== undefined) await attempt(() => Promise.reject(problem))
  const disk = async (snapshot?: string): Promise<Verdict> => {
    asked.bytes = 0
    const options = { open, snapshot, passphrase, codecs: capped, signal: deadline }
    const opened = await attempt(() => (reader.openDisk ?? openDisk)(chain, options))
    if (opened instanceof Qcow2Error) return { size: -1, bytes: undefined, error: opened }
    // L1 and refcount tables, twice with the active one.
    within(asked.bytes, 4 * fileBytes, 'bytes read to open the disk')
    const verdict = await exerciseDisk(opened, { chain, storages, fuzzed, asked, attempt, signal: deadline })
    note(verdict.size, verdict.error?.code ?? 'read')
    if (reader.digest && verdict.bytes !== undefined) hash.update(verdict.bytes)
    return verdict
  }
  const verdict = await disk()
  const taken = new Map<string, Verdict>()
  const [top] = chain
  if (top?.inspection !== undefined && top.inspection.header.nbSnapshots > 0) {
    const { storage, header } = top.inspection
    const snapshots = await attempt(() => readSnapshots(storage, header, { signal: deadline }))
    if (!(snapshots instanceof Qcow2Error)) {
      for (const { id } of snapshots.slice(0, 4)) taken.set(id, await disk(id))
    }
  }
  return { verdict, snapshots: taken, digest: reader.digest ? hash.digest('hex') : '', asked }
}

interface Surroundings {
  readonly chain: readonly ChainLayer[]
  readonly storages: ReadonlyMap<string, ImageStorage>
  readonly fuzzed: FuzzCase
  readonly asked: Asked
  readonly signal: AbortSignal
  readonly attempt: <T>(use: () => Promise<T>) => Promise<T | Qcow2Error>
}

async function exerciseDisk(disk: GuestDisk, around: Surroundings): Promise<Verdict> {
  const { attempt, signal, asked, chain, fuzzed } = around
  const { size } = disk
  if (!Number.isSafeInteger(size) || size < 0 || size % 512 !== 0)
    throw new Violation(`a disk of ${size} bytes`)
  const read = (offset: number, length: number) =>
    attempt(async () => {
      const target = new Uint8Array(length).fill(0xaa)
      const before = asked.bytes
      await disk.readInto(target, offset, { signal })
      const clusters = Math.max(...chain.map(layer => layer.inspection?.clusterSize ?? 512))
      // Data, compressed ones with what may follow them; pieces of tables.
      const most = chain.length * (3 * length + 8 * clusters + 2 ** 20)
      within(asked.bytes - before, most, `bytes read for ${length} bytes`)
      return target
    })
  const map = await mapOf(disk, around)
  let whole: Uint8Array | Qcow2Error | undefined
  if (size <= WHOLE_BYTES) {
    whole = await read(0, size)
    agree(map, whole, chain)
  }
  const { random } = fuzzed
  for (const extent of [...map.extents.slice(0, 4), ...sample(map.extents, random)]) {
    const length = Math.min(extent.length, 128 * 1024)
    const start = extent.start + random.pick([0, extent.length - length])
    const bytes =
      whole instanceof Uint8Array ? whole.subarray(start, start + length) : await read(start, length)
    told(extent, start, bytes, around)
  }
  for (let i = 0; i < 4 && size > 0; i++) {
    const offset = random.pick([0, random.int(0, size - 1), Math.max(0, size - random.int(1, 4096))])
    const length = Math.min(size - offset, random.int(1, random.pick([1, 1024, 200_000])))
    same(whole, await read(offset, length), offset)
  }
  if (whole instanceof Uint8Array) {
    const step = Math.max(random.int(1, Math.max(1, size)), Math.ceil(size / 40))
    for (let at = 0; at < size; at += step) same(whole, await read(at, Math.min(step, size - at)), at)
  }
  const error = whole instanceof Qcow2Error ? whole : map.error
  return { size, bytes: whole instanceof Uint8Array ? whole : undefined, error }
}

interface DiskMap {
  readonly extents: readonly DiskExtent[]
  readonly error: Qcow2Error | undefined
}

/** Side by side from 0 to the disk's end, or to where an error is told. */
async function mapOf(disk: GuestDisk, { attempt, signal }: Surroundings): Promise<DiskMap> {
  const extents: DiskExtent[] = []
  const ended = await attempt(async () => {
    let at = 0
    for await (const chunk of disk.extents(0, disk.size, { signal })) {
      if (chunk.length === 0) throw new Violation('an empty chunk of extents')
      for (const extent of chunk) {
        const before = extents.at(-1)
        if (extent.start !== at || !(extent.length > 0)) {
          throw new Violation(`extents: ${JSON.stringify(extent)} after ${JSON.stringify(before)}`)
        }
        at += extent.length
        extents.push(extent)
      }
      if (extents.length > MAX_EXTENTS) return
    }
    if (at !== disk.size) throw new Violation(`extents end at ${at} of ${disk.size}`)
  })
  return { extents, error: ended instanceof Qcow2Error ? ended : undefined }
}

/** The map and the data are judged alike; but only data can be broken within a cluster. */
function agree(map: DiskMap, whole: Uint8Array | Qcow2Error, chain: readonly ChainLayer[]): void {
  const encrypted = chain.some(({ inspection }) => inspection?.encrypted)
  if (map.error !== undefined && !(whole instanceof Qcow2Error)) {
    throw new Violation(`all is read, but the map says ${map.error.message}`)
  }
  if (whole instanceof Qcow2Error && map.error === undefined) {
    if (!encrypted && whole.code !== 'decompress-failed') {
      throw new Violation(`there is a map, but reading says ${whole.message}`)
    }
  }
}

/** What an extent says of the bytes is so. */
function told(extent: DiskExtent, start: number, bytes: Uint8Array | Qcow2Error, around: Surroundings): void {
  const say = (what: string) => new Violation(`${JSON.stringify(extent)}, from ${start}: ${what}`)
  if (!extent.zero && extent.offset === undefined) return
  if (bytes instanceof Qcow2Error) throw say(bytes.message)
  if (extent.zero) {
    if (Buffer.compare(bytes, new Uint8Array(bytes.byteLength)) !== 0) throw say('not zeros')
    return
  }
  const layer = around.chain[extent.depth]!
  const name = layer.inspection?.dataFile ?? layer.filename
  const mutant = around.fuzzed.files.get(name.replace(/^(\.?\/)+/, ''))!
  const host = extent.offset! + start - extent.start
  const stored = new Uint8Array(bytes.byteLength)
  stored.set(mutant.read(host, Math.max(0, Math.min(bytes.byteLength, mutant.size - host))))
  if (Buffer.compare(bytes, stored) !== 0) throw say('not what is stored there')
}

function same(
  whole: Uint8Array | Qcow2Error | undefined,
  part: Uint8Array | Qcow2Error,
  offset: number,
): void {
  if (!(whole instanceof Uint8Array)) return
  if (part instanceof Qcow2Error) throw new Violation(`a part of a disk that is read whole: ${part.message}`)
  if (Buffer.compare(part, whole.subarray(offset, offset + part.byteLength)) !== 0) {
    throw new Violation(`${part.byteLength} bytes at ${offset} are not those of the whole`)
  }
}

function sample<T>(all: readonly T[], random: FuzzCase['random']): T[] {
  return all.length <= 4 ? [] : Array.from({ length: 6 }, () => random.pick(all))
}

function within(found: number, most: number, what: string): void {
  if (found > most) throw new Violation(`${found} ${what}, more than ${most}`)
}
