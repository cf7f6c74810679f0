// npm run bench:kills: builds, then kills both tools at each of their writes; arguments are passed on.
import { join } from 'node:path'
import { prepare, root, runAndExit } from './workspace.mjs'

prepare()
runAndExit(
  process.execPath,
  [join(root, 'packages', 'bench', 'dist', 'kills.js'), ...process.argv.slice(2)],
  {
    cwd: root,
  },
)
