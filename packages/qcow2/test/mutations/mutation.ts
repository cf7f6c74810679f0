// Images with one field wrong, each named by what is wrong: for the differential test against QEMU.
import {
  buildQcow2,
  extensionMagic,
  getU32,
  putU8,
  putU32,
  putU64,
  type Qcow2Layout,
  type Qcow2Spec,
} from '@tidemark/testkit'

export type Patch = (bytes: Uint8Array, layout: Qcow2Layout) => void

export interface Mutation {
  readonly name: string
  readonly spec?: Qcow2Spec
  readonly patch?: Patch
}

export function mutate({ spec, patch }: Mutation): Uint8Array {
  const { bytes, layout } = buildQcow2({ ...base, ...spec })
  patch?.(bytes, layout)
  return bytes
}

const base: Qcow2Spec = {
  featureNames: true,
  bitmaps: [
    { name: 'b0', dirty: [0, 3] },
    { name: 'b1', granularityBits: 9, flags: 0, dirty: [1] },
  ],
}
export const plain: Qcow2Spec = { bitmaps: [] }
export const backed: Qcow2Spec = { backingFile: 'base.img', backingFormat: 'raw' }

export const header8 = (name: string, at: number, value: number, spec?: Qcow2Spec): Mutation => ({
  name: `${name} ${value}`,
  ...(spec && { spec }),
  patch: bytes => putU8(bytes, at, value),
})
export const header32 = (name: string, at: number, value: number, spec?: Qcow2Spec): Mutation => ({
  name: `${name} ${value}`,
  ...(spec && { spec }),
  patch: bytes => putU32(bytes, at, value),
})
export const header64 = (name: string, at: number, value: number | bigint, spec?: Qcow2Spec): Mutation => ({
  name: `${name} 0x${value.toString(16)}`,
  ...(spec && { spec }),
  patch: bytes => putU64(bytes, at, value),
})
/** A field of the bitmaps extension's payload. */
export const extension32 = (name: string, at: number, value: number): Mutation => ({
  name: `${name} ${value}`,
  patch: (bytes, layout) => putU32(bytes, layout.bitmapsExtension! + at, value),
})
export const extension64 = (
  name: string,
  at: number,
  value: (layout: Qcow2Layout) => number | bigint,
): Mutation => ({
  name,
  patch: (bytes, layout) => putU64(bytes, layout.bitmapsExtension! + at, value(layout)),
})
/** A field of the first bitmap's directory entry. */
export const entry = (
  name: string,
  put: (bytes: Uint8Array, at: number, layout: Qcow2Layout) => void,
  spec?: Qcow2Spec,
): Mutation => ({
  name,
  ...(spec && { spec }),
  patch: (bytes, layout) => put(bytes, layout.bitmaps[0]!.entry.offset, layout),
})
export const unknown = (length: number, claimed = length) => ({
  magic: 0x12345678,
  data: new Uint8Array(length),
  length: claimed,
})
export const inUse = { bitmaps: [{ name: 'b0', flags: 3, dirty: [0] }] }
export const crypto =
  (length: number, offset: number): Patch =>
  (bytes, layout) => {
    const { dataOffset } = layout.extensions.find(({ magic }) => magic === extensionMagic.luks)!
    putU32(bytes, dataOffset - 4, length)
    putU64(bytes, dataOffset, getU32(bytes, dataOffset + 4) + offset)
  }
