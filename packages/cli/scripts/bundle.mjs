// A CommonJS file for the command line and one for each command: Node starts them in half the time that a tree of
// ES modules takes, and reads no more than what runs. What they share is in each of them, so nothing may depend on
// a class or a variable being the same one in two of them.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const { version } = JSON.parse(await readFile(`${root}/package.json`, 'utf8'))

/** The modules that program.ts, and those of its parts that are files of their own, import when a command runs. */
const parts = (await readdir(join(root, 'src'))).filter(name => /^program[\w-]*\.ts$/.test(name))
const program = (await Promise.all(parts.map(name => readFile(join(root, 'src', name), 'utf8')))).join('\n')
const imports = program.matchAll(/import\('\.\/commands\/([\w-]+)\.js'\)/g)
const commands = [...new Set(Array.from(imports, ([, name]) => name))]

/** Loaded from files of their own: a command when it runs, the progress bar when one is shown. */
const apart = {
  name: 'files-apart',
  setup(bundle) {
    bundle.onResolve({ filter: /^\.\/(commands\/[\w-]+|progress-bar)\.js$/, namespace: 'file' }, args => {
      if (args.kind === 'import-statement') return undefined
      const path = args.path.replace('./commands/', './').replace(/\.js$/, '.cjs')
      return { path, external: true }
    })
  },
}

/**
 * commander could start subcommands that are programs of their own. There are none here, and loading child_process
 * (and with it Node's network modules) takes a tenth of a short command's time.
 */
const noPrograms = {
  name: 'no-programs',
  setup(bundle) {
    bundle.onResolve({ filter: /^node:child_process$/ }, ({ path }) => ({ path, namespace: 'nothing' }))
    bundle.onLoad({ filter: /.*/, namespace: 'nothing' }, () => ({ contents: 'module.exports = {}' }))
  },
}

/** What openDisk takes where nobody gives it codecs; the commands give Node's, which are in Node. */
const nodeCodecsOnly = {
  name: 'node-codecs-only',
  setup(bundle) {
    bundle.onResolve({ filter: /\/library-codecs\.js$/ }, ({ path }) => ({ path, namespace: 'no-library' }))
    bundle.onLoad({ filter: /.*/, namespace: 'no-library' }, () => ({
      contents: 'export const libraryCodecs = undefined',
    }))
  },
}

/**
 * picocolors asks as it is loaded whether stdout is a terminal, for which Node makes the stream: 2 ms, though a command
 * may write nothing. output.ts asks for itself, of the stream that it colours.
 */
const colorsLater = {
  name: 'colors-later',
  setup(bundle) {
    bundle.onLoad({ filter: /picocolors\.js$/ }, async ({ path }) => {
      const asked = '(p.stdout || {}).isTTY'
      const source = await readFile(path, 'utf8')
      if (!source.includes(asked)) throw new Error(`${path} asks for the terminal otherwise`)
      return { contents: source.replace(asked, 'true') }
    })
  },
}

// Also the code caches of the bundle before: V8 tells them from those of another one by the length of the source alone.
await rm(join(root, 'dist'), { recursive: true, force: true })

const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: [
    { in: 'src/main.ts', out: 'tidemark' },
    ...commands.map(name => ({ in: `src/commands/${name}.ts`, out: name })),
    { in: 'src/progress-bar.ts', out: 'progress-bar' },
  ],
  outdir: 'dist',
  outExtension: { '.js': '.cjs' },
  plugins: [apart, noPrograms, nodeCodecsOnly, colorsLater],
  // Else esbuild would leave import() as it is, and Node would start its ES module loader for it.
  supported: { 'dynamic-import': false },
  // Has a binary of its own, and may be missing: see qcow2/src/node/native.ts.
  external: ['koffi'],
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20.19',
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'linked',
  sourcemap: 'linked',
  sourcesContent: false,
  define: { TIDEMARK_VERSION: JSON.stringify(version) },
  metafile: true,
  logLevel: 'warning',
})

// Whose code is in the bundle, under which terms: their licences ask for that.
const folders = new Set()
for (const input of Object.keys(metafile.inputs)) {
  const folder = /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(input)?.[0]
  if (folder !== undefined) folders.add(join(root, folder))
}
const notices = []
for (const folder of [...folders].sort()) {
  const { name, version: theirs, license } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'))
  const file = (await readdir(folder)).find(each => /^licen[cs]e/i.test(each))
  if (file === undefined) throw new Error(`${name} in ${dirname(folder)} has no licence file`)
  notices.push(`${name} ${theirs} (${license})\n\n${(await readFile(join(folder, file), 'utf8')).trim()}\n`)
}
notices.sort()
await writeFile(join(root, 'dist/THIRD-PARTY-NOTICES.txt'), notices.join(`\n${'-'.repeat(78)}\n\n`))

await import('./code-cache.mjs')
