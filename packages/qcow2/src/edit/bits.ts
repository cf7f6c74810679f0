import type { BitmapEngine, Lane } from '@tidemark/bitmap-wasm'
import { unitedWindows } from '../bitmaps/combine.js'
import type { PersistentBitmap } from '../bitmaps/directory.js'
import { type BitmapSource, openBitmap } from '../bitmaps/source.js'
import { WINDOW_BYTES } from '../bitmaps/terms.js'
import { widenedSource } from '../bitmaps/widened.js'
import { Qcow2Error } from '../errors.js'
import { entryOffset, putU64, sameBytes } from '../format/bytes.js'
import type { ImageInspection } from '../image/inspect.js'
import { type ReadOptions, readBytes } from '../storage/storage.js'
import { type BitsTerm, bitmapBytes, type FutureBitmap } from './actions.js'

/** What becomes of each cluster of a bitmap: a column of these. */
export const fate = {
  /** All clear: stored nowhere. */
  zeros: 0,
  /** As it is on disk: its cluster stays where it is. */
  kept: 1,
  /** Other bits than before: a new cluster. */
  written: 2,
} as const

/** A changed bitmap's clusters, as they will be. */
export interface BitsPlan {
  /** A {@link fate} for each table entry. */
  readonly fates: Uint8Array
  /** Clusters to write. */
  readonly written: number
  /** Host offset of each cluster on disk, 0 for none: what the old table has, cut or filled up to the new length. */
  readonly before: Float64Array
}

/** Looks through the bits of a bitmap that changes, without keeping them: what must be written, and what stays. */
export async function planBits(
  image: ImageInspection,
  engine: BitmapEngine,
  bitmap: FutureBitmap & { readonly bits: readonly BitsTerm[] },
  options: ReadOptions = {},
): Promise<BitsPlan> {
  const { clusterSize } = image
  const bytes = bitmapBytes(image.virtualSize, bitmap.granularityBits)
  const fates = new Uint8Array(Math.ceil(bytes / clusterSize))
  const before = await tableOf(image, bitmap.origin, fates.length, options)
  let stored: Uint8Array | undefined
  let written = 0
  for await (const { index, content } of clusterContents(image, engine, bitmap, options)) {
    const part = content.subarray(0, Math.min(clusterSize, bytes - index * clusterSize))
    let same = false
    if (before[index] !== 0) {
      stored ??= new Uint8Array(clusterSize)
      same = await isStored(image, before[index]!, part, stored, options)
    }
    fates[index] = same ? fate.kept : fate.written
    if (!same) written++
  }
  return { fates, written, before }
}

async function tableOf(
  image: ImageInspection,
  origin: PersistentBitmap | undefined,
  entries: number,
  options: ReadOptions,
): Promise<Float64Array> {
  const offsets = new Float64Array(entries)
  if (origin === undefined) return offsets
  const bytes = await readBytes(
    image.storage,
    origin.tableOffset,
    Math.min(entries, origin.tableSize) * 8,
    options,
  )
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < bytes.byteLength / 8; i++) {
    offsets[i] = entryOffset(view, i * 8)
  }
  return offsets
}

/**
 * A changed bitmap's table as it is stored.
 *
 * @param offsets of its clusters that are written, in order
 */
export function encodeTable({ fates, before }: BitsPlan, offsets: Float64Array): Uint8Array {
  const bytes = new Uint8Array(fates.length * 8)
  const view = new DataView(bytes.buffer)
  let next = 0
  for (let i = 0; i < fates.length; i++) {
    putU64(
      view,
      i * 8,
      fates[i] === fate.written ? offsets[next++]! : fates[i] === fate.kept ? before[i]! : 0,
    )
  }
  return bytes
}

/** @param stored room for a cluster */
async function isStored(
  { storage }: ImageInspection,
  offset: number,
  content: Uint8Array,
  stored: Uint8Array,
  options: ReadOptions,
): Promise<boolean> {
  // A file may end within its last cluster: then that is written anew, whole.
  if (offset + content.byteLength > storage.size) return false
  // What differs mostly does so early: the rest need not be read.
  for (let at = 0, end = PEEK_BYTES; at < content.byteLength; at = end, end = content.byteLength) {
    const there = stored.subarray(at, Math.min(end, content.byteLength))
    await storage.readInto(there, offset + at, options)
    if (!sameBytes(there, content.subarray(at, at + there.byteLength))) return false
  }
  return true
}

const PEEK_BYTES = 4096

/**
 * The clusters of a bitmap that have a bit set, in order; those between them are all clear. A cluster is whole, filled
 * up with zeros behind the bitmap's end, and good until the next is asked for.
 *
 * @throws {Qcow2Error} whatever reading the bitmaps throws
 */
export async function* clusterContents(
  image: ImageInspection,
  engine: BitmapEngine,
  { bits, granularityBits }: { readonly bits: readonly BitsTerm[]; readonly granularityBits: number },
  { signal }: ReadOptions = {},
): AsyncGenerator<{ readonly index: number; readonly content: Uint8Array }, void, undefined> {
  if (bits.length === 0) return
  const { clusterSize } = image
  const mark = engine.mark()
  try {
    const sources = bits.map(term => sourceOf(engine, term))
    const cluster = new Uint8Array(clusterSize)
    let filled = 0
    let dirty = false
    let index = 0
    for await (const { state, lane, bits: count } of unitedWindows(
      engine,
      sources,
      2 ** granularityBits,
      signal,
    )) {
      const bytes = Math.ceil(count / 8)
      if (state === 'ones') setAll(lane, count)
      for (let at = 0; at < bytes; ) {
        const some = Math.min(bytes - at, clusterSize - filled)
        const part = lane.bytes.subarray(at, at + some)
        if (state !== 'zeros' && engine.nextSet(engine.subLane(lane, at, some), 0, some * 8) >= 0) {
          // Mostly a window has whole clusters: they need not be put together.
          if (some === clusterSize) yield { index, content: part }
          else {
            if (!dirty) cluster.fill(0)
            cluster.set(part, filled)
            dirty = true
          }
        }
        at += some
        filled += some
        if (filled < clusterSize) continue
        if (dirty) yield { index, content: cluster }
        index++
        filled = 0
        dirty = false
      }
    }
    if (dirty) yield { index, content: cluster }
  } finally {
    engine.release(mark)
  }
}

function sourceOf(engine: BitmapEngine, { image, bitmap, widenBits }: BitsTerm): BitmapSource {
  return widenedSource(engine, openBitmap(image, bitmap, engine), 2 ** widenBits)
}

function setAll(lane: Lane, bits: number): void {
  const bytes = Math.ceil(bits / 8)
  lane.bytes.fill(0xff, 0, bytes)
  if (bits % 8 !== 0) lane.bytes[bytes - 1] = 2 ** (bits % 8) - 1
}

/** What an engine for edits needs: the windows of a union, one for what is widened, one more in it. */
export const EDIT_ARENA_BYTES = 16 * WINDOW_BYTES

/** The bits came out otherwise the second time: somebody writes where only this process should. */
export function changedMeanwhile(image: ImageInspection, name: string): Qcow2Error {
  return new Qcow2Error('read-failed', `a bitmap that '${name}' is made of changed while it was read`, {
    image: image.storage.name,
    bitmap: name,
  })
}
