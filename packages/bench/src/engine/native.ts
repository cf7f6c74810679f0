import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { programPath, tempDir } from '@tidemark/testkit'
import koffi from 'koffi'

/**
 * gcc's code, called in this process on the very buffers that the engine works on: a child with buffers of its
 * own would have other pages, and could not take turns. A call costs 0.1 µs; the shortest work here takes 5.
 */
export interface NativeKernels {
  /** As it stands in tables. */
  name: string
  union(dst: Uint8Array, src: Uint8Array, words: number): void
  intersection(dst: Uint8Array, src: Uint8Array, words: number): void
  count(src: Uint8Array, words: number): number
  unionCount(dst: Uint8Array, src: Uint8Array, words: number): number
  /** 1 or 0. */
  equals(a: Uint8Array, b: Uint8Array, words: number): number
  subset(a: Uint8Array, b: Uint8Array, words: number): number
  coarsen16(dst: Uint8Array, src: Uint8Array, dstBytes: number): void
  refine16(dst: Uint8Array, src: Uint8Array, srcBytes: number): void
  /** How many edges; with a place for a hash, that too. */
  extents(
    src: Uint8Array,
    words: number,
    granularity: number,
    room: Float64Array,
    size: number,
    hash: Uint32Array | null,
  ): number
}

export const nativeTargets = [
  { name: 'C, AVX2', march: 'x86-64-v3' },
  { name: 'C, native', march: 'native' },
] as const

/** Compiles the kernels for both targets; without gcc, or on another processor, there are none, and a note. */
export function compileNative(): { kernels: NativeKernels[]; note?: string } {
  if (programPath('gcc') === undefined) return { kernels: [], note: 'no gcc: native C is left out' }
  if (process.arch !== 'x64') return { kernels: [], note: `native C is left out: it is built for x64 only` }
  const source = fileURLToPath(new URL('../../native/kernels.c', import.meta.url))
  const dir = tempDir()
  const kernels = nativeTargets.map(({ name, march }) => {
    const file = join(dir.path, `${march}.so`)
    const args = ['-O3', `-march=${march}`, '-std=c11', '-Wall', '-Werror', '-shared', '-fPIC', '-o', file]
    const { status, stderr } = spawnSync('gcc', [...args, source], { encoding: 'utf8' })
    if (status !== 0) throw new Error(`gcc -march=${march} failed: ${stderr}`)
    return bind(name, koffi.load(file))
  })
  // Linux keeps what is loaded.
  dir.remove()
  return { kernels }
}

function bind(name: string, library: ReturnType<typeof koffi.load>): NativeKernels {
  const two = 'uint64_t *dst, const uint64_t *src, size_t words'
  return {
    name,
    union: library.func(`void bench_union(${two})`),
    intersection: library.func(`void bench_intersection(${two})`),
    count: library.func('uint64_t bench_count(const uint64_t *src, size_t words)'),
    unionCount: library.func(`uint64_t bench_union_count(${two})`),
    equals: library.func('uint32_t bench_equals(const uint64_t *a, const uint64_t *b, size_t words)'),
    subset: library.func('uint32_t bench_subset(const uint64_t *a, const uint64_t *b, size_t words)'),
    coarsen16: library.func('void bench_coarsen16(uint8_t *dst, const uint16_t *src, size_t bytes)'),
    refine16: library.func('void bench_refine16(uint16_t *dst, const uint8_t *src, size_t bytes)'),
    extents: library.func(
      'uint64_t bench_extents(const uint64_t *src, size_t words, double granularity, double *room, size_t size, uint32_t *hash)',
    ),
  } as unknown as NativeKernels
}
