// Locks and unlocks bytes of its own files (in the folder given) without end: says "ready" once they are locked.
import { openSync } from 'node:fs'
import { join } from 'node:path'
import { native } from '../dist/node/native.js'

const { ofdLocks } = await native()
const files = Array.from({ length: 400 }, (_, i) => openSync(join(process.argv[2], `churn${i}`), 'w+'))
for (const fd of files) ofdLocks.set(fd, 0, 100, 1)
process.stdout.write('ready')
// A quarter is unlocked at a time: the table stays long, and all places in it move.
const quarters = [0, 1, 2, 3].map(quarter => files.filter((_, i) => i % 4 === quarter))
while (true) {
  for (const quarter of quarters) {
    for (const type of [2, 0]) for (const fd of quarter) ofdLocks.set(fd, type, 100, 1)
  }
}
