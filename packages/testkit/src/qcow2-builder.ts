import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { putU64 } from './bytes.js'
import {
  directoryEntryLength,
  type PlacedBitmap,
  type PreparedBitmap,
  placeBitmap,
  prepareBitmap,
  writeBitmap,
} from './qcow2-bitmap.js'
import { headerLength, writeHeader } from './qcow2-header.js'
import {
  ClusterAllocator,
  l1Entries,
  type Qcow2Layout,
  refcountSize,
  writeRefcounts,
} from './qcow2-layout.js'
import type { Qcow2Spec } from './qcow2-spec.js'

/** An image and the places of its parts, so that a test can patch bytes. */
export interface BuiltQcow2 {
  bytes: Uint8Array
  layout: Qcow2Layout
}

/**
 * Crafts a qcow2 image byte by byte: metadata only, no guest data. It shares no code with any reader, so
 * that reader and builder can't be wrong in the same way. By default `qemu-img check` finds nothing in it.
 *
 * Order in the file: header, refcount table, refcount blocks, L1 table, LUKS header, bitmap directory, then
 * each bitmap's table with its data clusters behind it.
 *
 * @throws RangeError for what can't be laid out: the header leaves cluster 0, the L1 table passes 32 MiB, a
 * dirty bit lies behind the disk.
 * @example
 * const { bytes, layout } = buildQcow2({ virtualSize: 1e9, bitmaps: [{ name: 'b0', dirty: [0, 7] }] })
 */
export function buildQcow2(spec: Qcow2Spec = {}): BuiltQcow2 {
  const clusterSize = 2 ** (spec.clusterBits ?? 16)
  const virtualSize = spec.virtualSize ?? 2 ** 20
  const refcountOrder = spec.refcountOrder ?? 4
  if (spec.version === 2 && refcountOrder !== 4) throw new RangeError('version 2 has 16-bit refcounts only')
  if (headerLength(spec) > clusterSize) throw new RangeError('the header is longer than a cluster')
  // Extended L2 entries (incompatible bit 4) have 16 bytes.
  const l2EntryBytes = ((spec.incompatibleFeatures ?? 0n) & 16n) === 0n ? 8 : 16
  const l1Size = spec.l1Size ?? l1Entries(virtualSize, clusterSize, l2EntryBytes)

  // Placed twice: first to count the clusters, then, with the refcount structures' size known, for real.
  const prepared = (spec.bitmaps ?? []).map(bitmap => prepareBitmap(bitmap, virtualSize, clusterSize))
  const counted = place(spec, prepared, l1Size, new ClusterAllocator(clusterSize, 0))
  const refcounts = refcountSize(1 + counted.end / clusterSize, clusterSize, refcountOrder)
  const blocksOffset = (1 + refcounts.tableClusters) * clusterSize
  const first = blocksOffset + refcounts.blocks * clusterSize
  const placed = place(spec, prepared, l1Size, new ClusterAllocator(clusterSize, first))

  const layout: Qcow2Layout = {
    clusterSize,
    virtualSize,
    refcountTable: { offset: clusterSize, clusters: refcounts.tableClusters },
    refcountBlocks: Array.from({ length: refcounts.blocks }, (_, i) => blocksOffset + i * clusterSize),
    l1: { offset: placed.l1Offset, entries: l1Size },
    extensions: [],
    bitmaps: placed.bitmaps.map(bitmap => bitmap.layout),
    ...(placed.directory ? { directory: placed.directory } : {}),
    end: placed.end,
  }
  const bytes = new Uint8Array(placed.end)
  writeHeader(bytes, spec, layout, { ...placed, nbBitmaps: placed.bitmaps.length })
  for (const [i, offset] of layout.refcountBlocks.entries()) putU64(bytes, clusterSize + i * 8, offset)
  writeRefcounts(bytes, layout.refcountBlocks, placed.end / clusterSize, clusterSize, refcountOrder)
  for (const bitmap of placed.bitmaps) writeBitmap(bytes, bitmap)
  return { bytes: cut(bytes, spec, clusterSize), layout }
}

interface Placement {
  l1Offset: number
  luksOffset: number
  directory: { offset: number; size: number } | undefined
  bitmaps: PlacedBitmap[]
  end: number
}

function place(
  spec: Qcow2Spec,
  prepared: readonly PreparedBitmap[],
  l1Size: number,
  clusters: ClusterAllocator,
): Placement {
  const l1Offset = clusters.take(Math.max(1, l1Size * 8))
  const luksOffset = spec.luks ? (spec.luks.offset ?? clusters.take(spec.luks.length)) : 0
  const size = prepared.reduce((sum, bitmap) => sum + directoryEntryLength(bitmap.spec), 0)
  const directory = size > 0 ? { offset: clusters.take(size), size } : undefined
  let entryOffset = directory?.offset ?? 0
  const bitmaps = prepared.map(bitmap => {
    const placed = placeBitmap(bitmap, entryOffset, clusters)
    entryOffset += placed.layout.entry.length
    return placed
  })
  return { l1Offset, luksOffset, directory, bitmaps, end: clusters.end }
}

function cut(bytes: Uint8Array, spec: Qcow2Spec, clusterSize: number): Uint8Array {
  const kept = spec.lastClusterBytes
  const short = kept === undefined ? bytes : bytes.subarray(0, bytes.length - clusterSize + kept)
  if (spec.fileLength === undefined) return short
  const out = new Uint8Array(spec.fileLength)
  out.set(short.subarray(0, spec.fileLength))
  return out
}

/** Writes an image to a file, with holes where there is nothing but zeros. */
export function writeSparse(file: string, bytes: Uint8Array): void {
  const piece = 65536
  const zeros = Buffer.alloc(piece)
  const fd = openSync(file, 'w')
  try {
    ftruncateSync(fd, bytes.length)
    for (let at = 0; at < bytes.length; at += piece) {
      const part = bytes.subarray(at, Math.min(at + piece, bytes.length))
      if (zeros.compare(part, 0, part.length, 0, part.length) === 0) continue
      for (let done = 0; done < part.length; ) {
        done += writeSync(fd, part, done, part.length - done, at + done)
      }
    }
  } finally {
    closeSync(fd)
  }
}

/** Builds an image right into a file. */
export function writeQcow2(file: string, spec: Qcow2Spec = {}): BuiltQcow2 {
  const built = buildQcow2(spec)
  writeSparse(file, built.bytes)
  return built
}
