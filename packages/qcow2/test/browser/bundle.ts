// What others do with the package for a browser: esbuild, the built package, nothing of Node.
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { type BuildOptions, build, type Metafile } from 'esbuild'

const here = fileURLToPath(new URL('.', import.meta.url))

export interface Chunk {
  readonly code: string
  /** Paths of the modules in it. */
  readonly inputs: readonly string[]
  /** Chunks that are loaded with it. */
  readonly imports: readonly string[]
  /** Chunks that are loaded when they are needed. */
  readonly lazy: readonly string[]
}

/** Chunks by the path they are served at: `/page.js`. */
export type Bundle = ReadonlyMap<string, Chunk>

const common = {
  absWorkingDir: here,
  outdir: here,
  bundle: true,
  // A module of Node is an error here.
  platform: 'browser',
  minify: true,
  write: false,
  metafile: true,
  logLevel: 'silent',
} as const satisfies BuildOptions

/** A script that is no module, all in one. @param name of a module in this folder */
export async function classicScript(name: string): Promise<string> {
  const { outputFiles } = await build({ ...common, entryPoints: [`${here}${name}.ts`], format: 'iife' })
  return outputFiles[0]!.text
}

/** @param source a module's text, or names of modules in this folder */
export async function bundle(source: { text: string } | readonly string[]): Promise<Bundle> {
  const entry: Pick<BuildOptions, 'stdin' | 'entryPoints'> =
    'text' in source
      ? { stdin: { contents: source.text, resolveDir: here, sourcefile: 'text.js' } }
      : { entryPoints: source.map(name => `${here}${name}.ts`) }
  const { outputFiles, metafile } = await build({ ...common, ...entry, format: 'esm', splitting: true })
  const chunks = outputFiles.map(({ path, text }): [string, Chunk] => {
    const name = path.slice(here.length)
    return [`/${name}`, chunkOf(text, metafile.outputs[name]!)]
  })
  return new Map(chunks)
}

function chunkOf(code: string, { inputs, imports }: Metafile['outputs'][string]): Chunk {
  const paths = (kind: string) => imports.filter(each => each.kind === kind).map(({ path }) => `/${path}`)
  return {
    code,
    // Modules of which nothing is left are listed too.
    inputs: Object.keys(inputs).filter(path => inputs[path]!.bytesInOutput > 0),
    imports: paths('import-statement'),
    lazy: paths('dynamic-import'),
  }
}

/** A chunk and all that is loaded with it. */
export function loadedWith(chunks: Bundle, name: string, seen = new Set<string>()): Set<string> {
  if (!seen.has(name)) {
    seen.add(name)
    for (const each of chunks.get(name)!.imports) loadedWith(chunks, each, seen)
  }
  return seen
}

/** Bytes as a server sends them. */
export function gzipBytes(chunks: Bundle, names: Iterable<string>): number {
  let bytes = 0
  for (const name of names) bytes += gzipSync(chunks.get(name)!.code, { level: 9 }).byteLength
  return bytes
}

/** Names of packages (and of folders of this one) whose code is in a chunk. */
export function packagesIn({ inputs }: Chunk): string[] {
  const names = inputs.map(path => {
    const inModules = path.split('node_modules/').at(-1)!
    if (inModules !== path) return inModules.split('/', inModules.startsWith('@') ? 2 : 1).join('/')
    return /^(?:\.\.\/)*(bitmap-wasm\/dist|dist\/\w+(?=\/)|dist|[\w-]+\.[jt]s)/.exec(path)?.[1] ?? path
  })
  return [...new Set(names)].sort()
}
