import { bytesOf, putU8, putU32, putU64, roundUp } from './bytes.js'
import type { Qcow2Layout } from './qcow2-layout.js'
import type { ExtensionSpec, FeatureName, Qcow2Spec } from './qcow2-spec.js'

/** Magics of the header extensions that the specification names. */
export const extensionMagic = {
  backingFormat: 0xe2792aca,
  dataFile: 0x44415441,
  luks: 0x0537be77,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
} as const

/** The table QEMU 7.2 writes into every new image. */
export const qemuFeatureNames: readonly FeatureName[] = [
  { type: 0, bit: 0, name: 'dirty bit' },
  { type: 0, bit: 1, name: 'corrupt bit' },
  { type: 0, bit: 2, name: 'external data file' },
  { type: 0, bit: 3, name: 'compression type' },
  { type: 0, bit: 4, name: 'extended L2 entries' },
  { type: 1, bit: 0, name: 'lazy refcounts' },
  { type: 2, bit: 0, name: 'bitmaps' },
  { type: 2, bit: 1, name: 'raw external data' },
]

/** Length of the fixed header: 72 in version 2, else what the specification or the test says. */
export function headerLength(spec: Qcow2Spec): number {
  if (spec.version === 2) return 72
  return spec.headerLength ?? roundUp(112 + (spec.headerTail?.length ?? 0), 8)
}

function featureTable(names: readonly FeatureName[]): Uint8Array {
  const data = new Uint8Array(names.length * 48)
  names.forEach(({ type, bit, name }, row) => {
    data.set([type, bit], row * 48)
    data.set(bytesOf(name).subarray(0, 46), row * 48 + 2)
  })
  return data
}

/** What only the placing of the clusters tells. */
export interface Placed {
  luksOffset: number
  nbBitmaps: number
  directory: { offset: number; size: number } | undefined
}

/** Whether the image gets a bitmaps extension. */
export function hasBitmapsExtension(spec: Qcow2Spec): boolean {
  return (spec.bitmaps?.length ?? 0) > 0 || spec.bitmapsExtension !== undefined
}

function bitmapsPayload(spec: Qcow2Spec, placed: Placed): Uint8Array {
  const raw = spec.bitmapsExtension
  const data = new Uint8Array(24)
  putU32(data, 0, raw?.nbBitmaps ?? placed.nbBitmaps)
  putU32(data, 4, raw?.reserved ?? 0)
  putU64(data, 8, raw?.directorySize ?? placed.directory?.size ?? 0)
  putU64(data, 16, raw?.directoryOffset ?? placed.directory?.offset ?? 0)
  return data
}

/** All extensions in QEMU's own order; unknown ones first or last. */
export function extensionList(spec: Qcow2Spec, placed: Placed): ExtensionSpec[] {
  const list: ExtensionSpec[] = (spec.extensions ?? []).filter(extension => extension.first)
  const add = (magic: number, data: Uint8Array): unknown => list.push({ magic, data })
  if (spec.backingFormat !== undefined) add(extensionMagic.backingFormat, bytesOf(spec.backingFormat))
  if (spec.dataFile) add(extensionMagic.dataFile, bytesOf(spec.dataFile.name))
  if (spec.luks) {
    const pointer = new Uint8Array(16)
    putU64(pointer, 0, placed.luksOffset)
    putU64(pointer, 8, spec.luks.length)
    add(extensionMagic.luks, pointer)
  }
  if (spec.featureNames) {
    add(
      extensionMagic.featureNames,
      featureTable(spec.featureNames === true ? qemuFeatureNames : spec.featureNames),
    )
  }
  if (hasBitmapsExtension(spec)) {
    const length = spec.bitmapsExtension?.length
    const data = bitmapsPayload(spec, placed)
    list.push({ magic: extensionMagic.bitmaps, data, ...(length === undefined ? {} : { length }) })
  }
  return [...list, ...(spec.extensions ?? []).filter(extension => !extension.first)]
}

/** The feature bits that the specification's fields ask for, with those it names itself. */
export function featureBits(spec: Qcow2Spec): {
  incompatible: bigint
  compatible: bigint
  autoclear: bigint
} {
  const consistent = spec.bitmapsConsistent ?? hasBitmapsExtension(spec)
  return {
    incompatible:
      (spec.incompatibleFeatures ?? 0n) | (spec.dataFile ? 4n : 0n) | (spec.compressionType ? 8n : 0n),
    compatible: spec.compatibleFeatures ?? 0n,
    autoclear: (spec.autoclearFeatures ?? 0n) | (consistent ? 1n : 0n) | (spec.dataFile?.raw ? 2n : 0n),
  }
}

/**
 * Writes cluster 0: the header, its extensions, END, and the backing file's name behind them.
 *
 * @throws RangeError when the whole does not fit into the first cluster.
 */
export function writeHeader(bytes: Uint8Array, spec: Qcow2Spec, layout: Qcow2Layout, placed: Placed): void {
  const version = spec.version ?? 3
  bytes.set([0x51, 0x46, 0x49, 0xfb])
  putU32(bytes, 4, version)
  putU32(bytes, 20, Math.log2(layout.clusterSize))
  putU64(bytes, 24, layout.virtualSize)
  putU32(bytes, 32, spec.cryptMethod ?? (spec.luks ? 2 : 0))
  putU32(bytes, 36, layout.l1.entries)
  putU64(bytes, 40, layout.l1.offset)
  putU64(bytes, 48, layout.refcountTable.offset)
  putU32(bytes, 56, layout.refcountTable.clusters)
  if (version === 3) {
    const bits = featureBits(spec)
    putU64(bytes, 72, bits.incompatible)
    putU64(bytes, 80, bits.compatible)
    putU64(bytes, 88, bits.autoclear)
    putU32(bytes, 96, spec.refcountOrder ?? 4)
    putU32(bytes, 100, headerLength(spec))
    if (headerLength(spec) > 104) putU8(bytes, 104, spec.compressionType ?? 0)
    if (spec.headerTail) bytes.set(spec.headerTail, 112)
  }
  let at = headerLength(spec)
  for (const { magic, data, length } of extensionList(spec, placed)) {
    layout.extensions.push({ magic, offset: at, dataOffset: at + 8, length: data.length })
    if (magic === extensionMagic.bitmaps) layout.bitmapsExtension = at + 8
    at = roundUp(at + 8 + data.length, 8)
    if (at > layout.clusterSize) throw new RangeError(`header extensions reach ${at} in cluster 0`)
    const entry = layout.extensions.at(-1)!
    putU32(bytes, entry.offset, magic)
    putU32(bytes, entry.offset + 4, length ?? data.length)
    bytes.set(data, entry.dataOffset)
  }
  // END is 8 zero bytes; nothing to write, but it needs its place, unless the cluster ends here.
  if (at < layout.clusterSize) at += 8
  if (spec.backingFile === undefined) return
  const name = bytesOf(spec.backingFile)
  if (at + name.length > layout.clusterSize) throw new RangeError('the backing file name leaves cluster 0')
  bytes.set(name, at)
  putU64(bytes, 8, at)
  putU32(bytes, 16, name.length)
  layout.backingFile = { offset: at, length: name.length }
}
