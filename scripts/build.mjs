// npm run build: dependencies as the lock file has them, all packages built.
import { prepare } from './workspace.mjs'

prepare()
