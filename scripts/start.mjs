// npm start: builds, then runs `tidemark` with the arguments given, or plans the bundled example's backup.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { prepare, root, runAndExit } from './workspace.mjs'

prepare()
const tidemark = join(root, 'packages', 'cli', 'bin', 'tidemark.cjs')
const args = process.argv.slice(2)
if (args.length > 0) {
  // Paths are relative to where the user stands, which npm has left.
  runAndExit(process.execPath, [tidemark, ...args], { cwd: process.env.INIT_CWD ?? process.cwd() })
}

const example = [
  'plan backup --domain webshop --incremental monday',
  '--libvirt-root examples/webshop/libvirt',
  '--map-source /var/lib/libvirt/images/webshop=examples/webshop/images',
]
process.stderr.write(`$ tidemark ${example.join(' \\\n    ')}\n\n`)
const run = [tidemark, ...example.join(' ').split(' ')]
const { status } = spawnSync(process.execPath, run, { cwd: root, stdio: 'inherit' })
// 10 is the answer that the example is there to show: one of its disks needs a full backup.
process.exit(status === 10 ? 0 : (status ?? 1))
