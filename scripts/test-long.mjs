// npm run test:long: builds, then fuzzes images, kills edits and tells random histories to a real libvirt for ten
// minutes, or as many as given (npm run test:long -- 60), from a random seed. What fails says how to do that one case
// again.
import { env, prepare, root, runAndExit } from './workspace.mjs'

const [minutes = '10', ...args] = process.argv.slice(2)
if (!(Number(minutes) > 0)) {
  process.stderr.write('npm run test:long -- MINUTES\n')
  process.exit(2)
}
prepare()
runAndExit('vitest', ['run', '.fuzz.test.ts', 'histories.interop.test.ts', ...args], {
  cwd: root,
  env: { ...env, TIDEMARK_LONG: minutes },
})
