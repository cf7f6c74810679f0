// Compiles assembly/ to dist/bitmap.wasm and inlines it, base64, into src/generated/wasm.ts. Inlined, because
// a URL beside the module breaks in several bundlers and costs a file read at start.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const root = fileURLToPath(new URL('..', import.meta.url))
const out = 'dist/bitmap.wasm'

await mkdir(`${root}/dist`, { recursive: true })
await mkdir(`${root}/src/generated`, { recursive: true })

const { error, stdout, stderr } = await asc.main([
  'assembly/index.ts',
  '--baseDir',
  root,
  '--outFile',
  out,
  '-O3',
  '--converge',
  '--noAssert',
  '--runtime',
  'stub',
  '--enable',
  'simd',
  '--importMemory',
  '--noExportMemory',
  '--zeroFilledMemory',
])
if (error) {
  process.stderr.write(`${stdout}${stderr}${error.message}\n`)
  process.exit(1)
}

const wasm = await readFile(`${root}/${out}`)
await writeFile(
  `${root}/src/generated/wasm.ts`,
  `// Made by scripts/build-wasm.mjs from assembly/.\nexport const wasmBase64 =\n  '${wasm.toString('base64')}'\n`,
)
