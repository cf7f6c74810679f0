// npm run bench: builds, then measures; arguments are passed on (npm run bench -- --quick).
import { join } from 'node:path'
import { prepare, root, runAndExit } from './workspace.mjs'

prepare()
runAndExit(process.execPath, [join(root, 'packages', 'bench', 'dist', 'main.js'), ...process.argv.slice(2)], {
  cwd: root,
})
