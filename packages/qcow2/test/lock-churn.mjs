// Locks and unlocks bytes of its own files (in the folder given) without end: says "ready" once it does.
import { openSync } from 'node:fs'
import { join } from 'node:path'
import { native } from '../dist/node/native.js'

const { ofdLocks } = await native()
const files = Array.from({ length: 200 }, (_, i) => openSync(join(process.argv[2], `churn${i}`), 'w+'))
const all = type => {
  for (const fd of files) ofdLocks.set(fd, type, 100, 1)
}
all(0)
process.stdout.write('ready')
while (true) {
  all(2)
  all(0)
}
