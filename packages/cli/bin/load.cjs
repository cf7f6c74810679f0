// Runs a file of the bundle, with the machine code's forerunner that V8 made of it when it was built (its code cache):
// a third of a short command's time would else go into compiling. V8 takes a cache of its own version only; without
// one a file is compiled as ever.
const { readFileSync } = require('node:fs')
const { wrap } = require('node:module')
const { dirname, join } = require('node:path')
const { Script } = require('node:vm')

const dist = join(__dirname, '../dist')
const loaded = new Map()

/** Where the code of a file of the bundle is kept for the Node that runs. */
function cachePath(name) {
  return join(dist, `${name}.${process.versions.v8}-${process.arch}.cache`)
}

/** @param {string} name of a file in dist/ */
function load(name) {
  const known = loaded.get(name)
  if (known !== undefined) return known.module.exports
  const filename = join(dist, name)
  const script = new Script(wrap(readFileSync(filename, 'utf8')), { filename, cachedData: cached(name) })
  const module = { exports: {} }
  loaded.set(name, { script, module })
  const requires = path =>
    path.startsWith('./') ? load(path.slice(2)) : path === 'koffi' ? koffi() : require(path)
  script
    .runInThisContext()
    .call(module.exports, module.exports, requires, module, filename, dirname(filename))
  return module.exports
}

/**
 * koffi without its loader, which takes 5 ms to find the binary; that loads in one. The loader is asked where the binary
 * is not where npm and pnpm put it, or not this system's.
 */
function koffi() {
  if (process.platform === 'linux' && process.arch === 'x64') {
    try {
      const beside = '../@koromix/koffi-linux-x64/linux_x64/koffi.node'
      return require(join(dirname(require.resolve('koffi')), beside))
    } catch {}
  }
  return require('koffi')
}

function cached(name) {
  try {
    return readFileSync(cachePath(name))
  } catch {
    return undefined
  }
}

module.exports = { load, loaded, cachePath }
