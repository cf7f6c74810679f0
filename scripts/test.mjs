// npm test: builds, then runs every test; arguments go to vitest (npm test -- packages/qcow2).
import { prepare, root, runAndExit } from './workspace.mjs'

prepare()
runAndExit('vitest', ['run', ...process.argv.slice(2)], { cwd: root })
