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
  const requires = path => (path.startsWith('./') ? load(path.slice(2)) : require(path))
  script
    .runInThisContext()
    .call(module.exports, module.exports, requires, module, filename, dirname(filename))
  return module.exports
}

function cached(name) {
  try {
    return readFileSync(cachePath(name))
  } catch {
    return undefined
  }
}

module.exports = { load, loaded, cachePath }
