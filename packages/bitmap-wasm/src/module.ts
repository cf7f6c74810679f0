import { wasmBase64 } from './generated/wasm.js'

/** Sizes, limits and masks that the AssemblyScript sources define: read from the module, never repeated here. */
type Constant =
  | 'HEAP_BASE'
  | 'MIN_CLUSTER_BITS'
  | 'MAX_CLUSTER_BITS'
  | 'EXTENSION_BYTES'
  | 'MAX_BITMAPS'
  | 'MAX_DIRECTORY_BYTES'
  | 'MIN_ENTRY_BYTES'
  | 'ENTRY_RECORD_BYTES'
  | 'RUN_RECORD_BYTES'
  | 'MAX_BITMAP_BYTES'
  | 'MAX_TABLE_ENTRIES'
  | 'MIN_GRANULARITY_BITS'
  | 'MAX_GRANULARITY_BITS'
  | 'MAX_NAME_BYTES'
  | 'FLAG_IN_USE'
  | 'FLAG_AUTO'
  | 'FLAG_EXTRA_DATA_COMPATIBLE'

/** The kernels, as the module exports them; pointers and lengths in bytes unless named otherwise. */
export interface Kernels {
  parseExtension(src: number, clusterBits: number, fileBytes: number, out: number): number
  parseDirectory(
    src: number,
    length: number,
    position: number,
    directoryBytes: number,
    maxEntries: number,
    clusterBits: number,
    sizeBytes: number,
    fileBytes: number,
    out: number,
  ): number
  decodeTable(
    src: number,
    entries: number,
    firstEntry: number,
    clusterBits: number,
    bitmapBytes: number,
    fileBytes: number,
    out: number,
    maxRuns: number,
  ): number
  union(dst: number, src: number, length: number): void
  intersection(dst: number, src: number, length: number): void
  difference(dst: number, src: number, length: number): void
  xor(dst: number, src: number, length: number): void
  complement(dst: number, bits: number): void
  maskTail(dst: number, bits: number, length: number): void
  count(src: number, length: number): number
  countRange(src: number, firstBit: number, bits: number): number
  mergeCount(operation: number, dst: number, src: number, length: number): number
  equals(a: number, b: number, length: number): number
  firstViolation(a: number, b: number, bits: number): number
  nextBit(src: number, from: number, bits: number, value: number): number
  fillRange(dst: number, firstBit: number, bits: number, value: number): void
  paint(
    src: number,
    extents: number,
    after: number,
    first: number,
    bits: number,
    granularity: number,
    limit: number,
    dst: number,
    value: number,
  ): number
  edges(
    src: number,
    bits: number,
    previous: number,
    base: number,
    granularity: number,
    out: number,
    maxEdges: number,
  ): number
  /** `position`: of the first fine bit, from the first one of src's first coarse bit. */
  refine(src: number, position: number, shift: number, dst: number, fineBits: number): void
  refineMerge(
    operation: number,
    src: number,
    position: number,
    shift: number,
    dst: number,
    fineBits: number,
  ): void
  coarsen(src: number, fineBits: number, shift: number, dst: number, dstBit: number): void
  readonly lastConsumed: WebAssembly.Global
  readonly lastEntries: WebAssembly.Global
  readonly lastBits: WebAssembly.Global
  readonly lastBit: WebAssembly.Global
  readonly lastEnd: WebAssembly.Global
}

// Compiled once, on first use; a WebAssembly.Module holds no state, so engines can share it.
let compiled: WebAssembly.Module | undefined

export function compileModule(): WebAssembly.Module {
  if (compiled === undefined) {
    const text = atob(wasmBase64)
    const bytes = new Uint8Array(text.length)
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
    compiled = new WebAssembly.Module(bytes)
  }
  return compiled
}

let constants: Record<string, unknown> | undefined

/** The value of a constant that the AssemblyScript sources export. */
export function wasmConstant(
  name: Constant | `EXT_${string}` | `ENTRY_${string}` | `TABLE_${string}`,
): number {
  constants ??= instantiate(new WebAssembly.Memory({ initial: 1, maximum: 1 }))
  const global = constants[name]
  const value: unknown = global instanceof WebAssembly.Global ? global.value : undefined
  // The masks of 64 bits are BigInts, signed ones at that: they are the kernels' own.
  if (typeof value !== 'number') throw new RangeError(`no constant ${name} of 32 bits in the module`)
  return value >>> 0
}

export function instantiate(memory: WebAssembly.Memory): Record<string, unknown> & Kernels {
  const instance = new WebAssembly.Instance(compileModule(), { env: { memory } })
  return instance.exports as unknown as Record<string, unknown> & Kernels
}
