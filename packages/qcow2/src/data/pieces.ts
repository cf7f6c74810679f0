import { CorruptImageError, hex } from '../errors.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'
import type { DiskLayer } from './layer.js'

/** Pieces that lie near each other are read together, but for so many bytes at most. */
const MAX_JOINED_BYTES = 1024 * 1024
/** Reads on their way at the same time. */
const PARALLEL = 8

/** A piece of what is wanted, and where it is. */
export interface Piece {
  readonly layer: DiskLayer
  readonly hostOffset: number
  readonly target: Uint8Array
}

/** Sorted by place; those near each other as one. */
export function near(pieces: Piece[]): Piece[][] {
  const joined: Piece[][] = []
  const files = new Map<ImageStorage, Piece[]>()
  for (const piece of pieces) {
    const of = files.get(piece.layer.data)
    if (of === undefined) files.set(piece.layer.data, [piece])
    else of.push(piece)
  }
  for (const [storage, of] of files) {
    of.sort((a, b) => a.hostOffset - b.hostOffset)
    let group: Piece[] = []
    let end = 0
    for (const piece of of) {
      const start = group[0]?.hostOffset ?? 0
      const reach = piece.hostOffset + piece.target.byteLength
      if (
        group.length > 0 &&
        piece.hostOffset - end <= (storage.nearBytes ?? -1) &&
        reach - start <= MAX_JOINED_BYTES
      ) {
        group.push(piece)
        end = Math.max(end, reach)
        continue
      }
      group = [piece]
      joined.push(group)
      end = reach
    }
  }
  return joined
}

export async function readJoined(pieces: readonly Piece[], options: ReadOptions): Promise<void> {
  const [first] = pieces
  if (first === undefined) return
  if (pieces.length === 1) return readPlain(first.layer.data, first.target, first.hostOffset, options)
  const start = first.hostOffset
  const end = pieces.reduce(
    (most, { hostOffset, target }) => Math.max(most, hostOffset + target.byteLength),
    0,
  )
  const bytes = new Uint8Array(end - start)
  await readPlain(first.layer.data, bytes, start, options)
  for (const { hostOffset, target } of pieces) {
    target.set(bytes.subarray(hostOffset - start, hostOffset - start + target.byteLength))
  }
}

/** A file may end within its last cluster, or its last sector: what is missing there was never written. */
async function readPlain(
  storage: ImageStorage,
  target: Uint8Array,
  offset: number,
  options: ReadOptions,
): Promise<void> {
  const there = Math.max(0, Math.min(target.byteLength, storage.size - offset))
  target.fill(0, there)
  if (there > 0) await storage.readInto(target.subarray(0, there), offset, options)
}

export async function readEncrypted(
  { layer, hostOffset, target }: Piece,
  options: ReadOptions,
): Promise<void> {
  const cipher = await layer.cipher(options)
  if (cipher === undefined) throw new Error('an encrypted layer has a cipher')
  const first = hostOffset - (hostOffset % 512)
  const end = Math.ceil((hostOffset + target.byteLength) / 512) * 512
  if (end > layer.data.size) {
    throw new CorruptImageError(layer.filename, {
      structure: 'encrypted cluster',
      offset: first,
      expected: `${end - first} bytes`,
      found: `the end of the file at ${hex(layer.data.size)}`,
    })
  }
  const whole = end - first === target.byteLength
  const sectors = whole ? target : new Uint8Array(end - first)
  if (whole) await layer.data.readInto(target, first, options)
  else sectors.set(await readBytes(layer.data, first, end - first, options))
  await cipher.decipher(sectors, first / 512)
  if (!whole) target.set(sectors.subarray(hostOffset - first, hostOffset - first + target.byteLength))
}

/** Some at a time, in order; the first failure ends all that has not begun, and is thrown when the rest has ended. */
export async function inParallel(
  work: readonly (() => Promise<void>)[],
  { signal }: ReadOptions,
): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < work.length) {
      signal?.throwIfAborted()
      try {
        await work[next++]!()
      } catch (error) {
        next = work.length
        throw error
      }
    }
  }
  const workers = Array.from({ length: Math.min(PARALLEL, work.length) }, worker)
  const ended = await Promise.allSettled(workers)
  for (const each of ended) if (each.status === 'rejected') throw each.reason
}
