import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { locksOf, readLockTable } from '../src/node/locks.js'
import { F_RDLCK, native } from '../src/node/native.js'

const calls = (await native())?.ofdLocks

describe.skipIf(calls === undefined)('the table of locks beside a program that locks all the time', () => {
  const dir = tempDir()
  const file = dir.file('held')
  let fd: number
  let churn: ChildProcess

  beforeAll(async () => {
    churn = spawn(process.execPath, [fileURLToPath(new URL('lock-churn.mjs', import.meta.url)), dir.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(churn.stdout!, 'data')
    fd = openSync(file, 'w+')
    calls!.set(fd, F_RDLCK, 101, 1)
  })
  afterAll(() => {
    churn.kill('SIGKILL')
    closeSync(fd)
    dir.remove()
  })

  it('is longer than the kernel gives at once', async () => {
    // Most of it comes and goes: a reading may well find it short, many do not.
    let longest = 0
    for (let i = 0; i < 100; i++) longest = Math.max(longest, (await readFile('/proc/locks')).byteLength)
    expect(longest).toBeGreaterThan(4096)
  })

  it('has a lock that is held', async () => {
    const stat = statSync(file)
    const rounds = 400
    let seen = 0
    for (let i = 0; i < rounds; i++) seen += Number(locksOf(await readLockTable(), stat)(101))
    expect(seen).toBe(rounds)
  })
})
