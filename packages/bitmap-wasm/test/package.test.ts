// What the package promises as a whole; judged by what is built, since that is what others get.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { createEngine } from '../src/index.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const scripts = readdirSync(`${root}/dist`, { recursive: true, encoding: 'utf8' }).filter(f =>
  f.endsWith('.js'),
)
const read = (path: string) => readFileSync(`${root}/${path}`, 'utf8')

function wasmExports(): WebAssembly.Exports {
  const module = new WebAssembly.Module(readFileSync(`${root}/dist/bitmap.wasm`))
  return new WebAssembly.Instance(module, { env: { memory: new WebAssembly.Memory({ initial: 1 }) } }).exports
}

describe('the exports', () => {
  it('are these', () => {
    const names = [...read('dist/index.d.ts').matchAll(/\{([^}]*)\}/g)].flatMap(([, list]) =>
      list!.split(','),
    )
    expect(
      names
        .map(name => name.trim())
        .filter(Boolean)
        .sort(),
    ).toEqual([
      'BitmapFormatError',
      'DirectoryReader',
      'ExtentExtractor',
      'ExtentPainter',
      'bitmapLimits',
      'createEngine',
      'createTableDecoder',
      'entryViolations',
      'extensionViolations',
      'extentsOf',
      'paintExtents',
      'parseBitmapDirectory',
      'parseBitmapsExtension',
      'tableRunKinds',
      'tableViolations',
      'type BitmapEngine',
      'type BitmapFormatCode',
      'type BitmapsExtension',
      'type DirectoryEntry',
      'type DirectoryGeometry',
      'type DirectoryReaderOptions',
      'type DirectoryRecords',
      'type EngineOptions',
      'type EntryViolation',
      'type ExtensionViolation',
      'type Extent',
      'type ExtentOptions',
      'type Lane',
      'type MergeOperation',
      'type PaintWindow',
      'type PaintedWindow',
      'type TableDecoder',
      'type TableGeometry',
      'type TableRun',
      'type TableRuns',
      'type TableViolation',
    ])
  })

  it('are there at run time', async () => {
    const built = (await import(`${root}/dist/index.js`)) as Record<string, unknown>
    expect(Object.keys(built).sort()).toEqual([
      'BitmapFormatError',
      'DirectoryReader',
      'ExtentExtractor',
      'ExtentPainter',
      'bitmapLimits',
      'createEngine',
      'createTableDecoder',
      'entryViolations',
      'extensionViolations',
      'extentsOf',
      'paintExtents',
      'parseBitmapDirectory',
      'parseBitmapsExtension',
      'tableRunKinds',
      'tableViolations',
    ])
  })
})

describe('the package', () => {
  it('has no dependencies at run time', () => {
    const manifest = JSON.parse(read('package.json')) as Record<string, unknown>
    expect(manifest).not.toHaveProperty('dependencies')
    expect(manifest).not.toHaveProperty('peerDependencies')
    expect(manifest).not.toHaveProperty('optionalDependencies')
  })

  it('imports nothing but its own files, and nothing of Node', () => {
    expect(scripts).toContain('index.js')
    for (const script of scripts) {
      const text = read(`dist/${script}`)
      const sources = [...text.matchAll(/(?:from|import|require)\s*\(?\s*['"]([^'"]+)['"]/g)].map(
        ([, from]) => from,
      )
      expect(
        sources.filter(from => !from!.startsWith('./')),
        script,
      ).toEqual([])
      expect(text, script).not.toMatch(/\b(?:process|Buffer|require|__dirname|globalThis)\b/)
    }
  })

  it('is small', () => {
    // A kernel for each shift, and a fused count for each operation: five times what one loop for all would take.
    expect(statSync(`${root}/dist/bitmap.wasm`).size).toBeLessThanOrEqual(22 * 1024)
    const bytes = scripts.reduce((sum, script) => sum + statSync(`${root}/dist/${script}`).size, 0)
    expect(bytes).toBeLessThanOrEqual(96 * 1024)
  })
})

describe('the module', () => {
  it('that is inlined is the one that was built', () => {
    const base64 = read('dist/generated/wasm.js').match(/'([A-Za-z0-9+/=]+)'/)![1]!
    expect(Buffer.from(base64, 'base64').equals(readFileSync(`${root}/dist/bitmap.wasm`))).toBe(true)
  })

  it('imports its memory and nothing else, and exports none', () => {
    const module = new WebAssembly.Module(readFileSync(`${root}/dist/bitmap.wasm`))
    expect(WebAssembly.Module.imports(module)).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }])
    expect(WebAssembly.Module.exports(module).filter(({ kind }) => kind === 'memory')).toEqual([])
  })

  it('has the specification’s numbers', () => {
    const numbers: Record<string, number | bigint> = {}
    for (const [name, value] of Object.entries(wasmExports())) {
      if (!(value instanceof WebAssembly.Global) || name === 'HEAP_BASE' || name.startsWith('last')) continue
      numbers[name] = typeof value.value === 'bigint' ? BigInt.asUintN(64, value.value) : value.value
    }
    expect(numbers).toEqual({
      MIN_CLUSTER_BITS: 9,
      MAX_CLUSTER_BITS: 21,
      // "Bitmaps extension"
      EXTENSION_BYTES: 24,
      MAX_BITMAPS: 65535,
      MAX_DIRECTORY_BYTES: 67107840,
      MIN_ENTRY_BYTES: 24,
      EXT_COUNT_ZERO: 0x01,
      EXT_COUNT_TOO_LARGE: 0x02,
      EXT_RESERVED_NOT_ZERO: 0x04,
      EXT_DIRECTORY_TOO_LARGE: 0x08,
      EXT_DIRECTORY_TOO_SMALL: 0x10,
      EXT_OFFSET_ZERO: 0x20,
      EXT_OFFSET_UNALIGNED: 0x40,
      EXT_PAST_END_OF_FILE: 0x80,
      // "Bitmap directory"
      FLAG_IN_USE: 1,
      FLAG_AUTO: 2,
      FLAG_EXTRA_DATA_COMPATIBLE: 4,
      MIN_GRANULARITY_BITS: 9,
      MAX_GRANULARITY_BITS: 31,
      MAX_NAME_BYTES: 1023,
      MAX_TABLE_ENTRIES: 0x8000000,
      MAX_BITMAP_BYTES: 512 * 1024 * 1024,
      ENTRY_RECORD_BYTES: 48,
      ENTRY_TRUNCATED: 0x0001,
      ENTRY_TABLE_OFFSET_ZERO: 0x0002,
      ENTRY_TABLE_OFFSET_UNALIGNED: 0x0004,
      ENTRY_TABLE_PAST_END_OF_FILE: 0x0008,
      ENTRY_TABLE_SIZE_ZERO: 0x0010,
      ENTRY_TABLE_TOO_LARGE: 0x0020,
      ENTRY_TABLE_SIZE_MISMATCH: 0x0040,
      ENTRY_FLAGS_RESERVED: 0x0080,
      ENTRY_TYPE_UNKNOWN: 0x0100,
      ENTRY_GRANULARITY: 0x0200,
      ENTRY_NAME_EMPTY: 0x0400,
      ENTRY_NAME_TOO_LONG: 0x0800,
      ENTRY_EXTRA_DATA: 0x1000,
      // "Bitmap table"
      TABLE_RESERVED_MASK: 0xff000000000001fen,
      TABLE_OFFSET_MASK: 0x00fffffffffffe00n,
      TABLE_ALL_ONES: 1n,
      RUN_RECORD_BYTES: 32,
      RUN_ZEROS: 0,
      RUN_ONES: 1,
      RUN_DATA: 2,
      RUN_INVALID: 3,
      TABLE_RESERVED_BITS: 1,
      TABLE_ONES_WITH_OFFSET: 2,
      TABLE_UNALIGNED: 4,
      TABLE_PAST_END_OF_FILE: 8,
    })
  })
})

describe('an engine’s memory', () => {
  it.each([undefined, 64, 65536, 65537, 5_000_000])('is fixed (arena of %s bytes)', arenaBytes => {
    const made: { descriptor: WebAssembly.MemoryDescriptor; memory: WebAssembly.Memory }[] = []
    const Memory = WebAssembly.Memory
    WebAssembly.Memory = class extends Memory {
      constructor(descriptor: WebAssembly.MemoryDescriptor) {
        super(descriptor)
        made.push({ descriptor, memory: this })
      }
    }
    try {
      const engine = arenaBytes === undefined ? createEngine() : createEngine({ arenaBytes })
      const { descriptor, memory } = made.find(({ memory }) => memory.buffer === engine.lane(0).bytes.buffer)!
      expect(descriptor.maximum).toBe(descriptor.initial)
      expect(() => memory.grow(1)).toThrow(RangeError)
      // No more than asked for, but for the module's own page and what a page takes to be whole.
      expect(descriptor.initial).toBeLessThanOrEqual(Math.ceil(engine.arenaBytes / 65536) + 1)
    } finally {
      WebAssembly.Memory = Memory
    }
  })
})
