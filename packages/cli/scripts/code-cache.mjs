// Writes V8's code cache of the bundle's files, for the Node that runs this: see bin/load.cjs. Each command does its
// job once on the bundled example, for V8 keeps the functions that ran.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const load = fileURLToPath(new URL('../bin/load.cjs', import.meta.url))
const images = 'examples/webshop/images'
const folder = mkdtempSync(join(tmpdir(), 'tidemark-'))
const copy = join(folder, 'root.qcow2')

/** Last the command whose tidemark.cjs is kept: the most used one. */
const runs = [
  ['map', `${images}/root.qcow2`, '--bitmap', 'monday'],
  ['dump', `${images}/root.qcow2`],
  [
    ...['plan', 'backup', '--domain', 'webshop', '--incremental', 'monday'],
    ...['--libvirt-root', 'examples/webshop/libvirt'],
    ...['--map-source', `/var/lib/libvirt/images/webshop=${images}`],
  ],
  // koffi, and so a lock, may be missing where this is built.
  ['bitmap', '--unsafe-no-lock', '--add', '--merge', 'monday', copy, 'another'],
  ['info', `${images}/root.qcow2`],
]

const recorder = `
  const { load, loaded, cachePath } = require(${JSON.stringify(load)})
  process.on('exit', () => {
    for (const [name, { script }] of loaded) {
      require('node:fs').writeFileSync(cachePath(name), script.createCachedData())
    }
  })
  process.argv.splice(1, 0, 'tidemark')
  load('tidemark.cjs')`

copyFileSync(join(root, images, 'root.qcow2'), copy)
for (const args of runs) {
  const { status, stderr } = spawnSync(process.execPath, ['-e', recorder, '--', ...args], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  })
  if (status !== 0 && status !== 10) throw new Error(`tidemark ${args.join(' ')}: ${status}\n${stderr}`)
}
rmSync(folder, { recursive: true })
