import { fstat } from 'node:fs'
import { constants } from 'node:os'
import { promisify } from 'node:util'
import { Qcow2Error } from '../errors.js'
import type { ImageUse, LockRole } from './lock-bytes.js'
import { locksOf, readLockTable } from './locks.js'
import { EACCES, EAGAIN, F_RDLCK, F_UNLCK, F_WRLCK, native, type OfdLockCalls } from './native.js'

/**
 * Takes the locks on an open file that QEMU takes for a qcow2 image that it has open. They belong to the descriptor:
 * whatever else this process opens and closes, they last until it is closed, and end with the process however that
 * ends. Nobody is waited for.
 *
 * Each takes them first and looks at others' then, so of several at a time at most one keeps them. All may be refused,
 * as QEMUs are.
 *
 * @param lock `none`: takes none, only looks whether others use the image
 * @throws {Qcow2Error} `image-locked` when others use it in a way that does not bear this one; `lock-unavailable`
 * where locks are required and none can be taken. Nothing is held then.
 */
export async function lockImage(
  fd: number,
  name: string,
  lock: 'required' | 'none',
  role: LockRole,
): Promise<void> {
  const calls = (await native())?.ofdLocks
  if (lock === 'required' && calls !== undefined) return takeAll(calls, fd, name, role)
  refuse(name, await isLocked(fd, role))
  if (lock === 'required') throw unavailable(name, whyNoCalls(), role)
}

/**
 * How others use an open image, if in a way that does not bear one of this role. It looks, and takes nothing. Undefined too
 * where nobody can tell.
 *
 * By the kernel's word on this very file; where it cannot be asked, by /proc/locks, which tells of this process's own
 * locks too, and knows files of some layered file systems by other numbers than fstat.
 */
export async function isLocked(fd: number, role: LockRole): Promise<ImageUse | undefined> {
  const calls = (await native())?.ofdLocks
  if (calls !== undefined) return role.useAgainst(byte => inTheWay(calls, fd, byte) === true)
  const [table, file] = await Promise.all([readLockTable(), promisify(fstat)(fd)])
  return role.useAgainst(locksOf(table, file))
}

/** Without a pause in between: nothing else of this process may see half of it. */
function takeAll(calls: OfdLockCalls, fd: number, name: string, role: LockRole): void {
  try {
    for (const byte of role.bytes) take(calls, fd, name, byte, role)
    refuse(
      name,
      role.useAgainst(byte => {
        const answer = inTheWay(calls, fd, byte)
        if (typeof answer === 'boolean') return answer
        throw unavailable(name, answer, role)
      }),
    )
  } catch (error) {
    for (const byte of role.bytes) calls.set(fd, F_UNLCK, byte, 1)
    throw error
  }
}

function take(calls: OfdLockCalls, fd: number, name: string, byte: number, role: LockRole): void {
  const result = calls.set(fd, F_RDLCK, byte, 1)
  // QEMU's are read locks, which bear each other. Whoever has a write lock here wants to be alone.
  if (result === -EAGAIN || result === -EACCES) refuse(name, 'held')
  // As QEMU: it refuses a file whose file system knows no locks.
  if (result < 0) throw unavailable(name, `its file system refuses locks (${errnoName(result)})`, role)
}

/** Whether others hold a lock on a byte, or why nobody can tell. One's own are never in one's way. */
function inTheWay(calls: OfdLockCalls, fd: number, byte: number): boolean | string {
  const result = calls.get(fd, F_WRLCK, byte, 1)
  if (result < 0) return `its file system does not tell of locks (${errnoName(result)})`
  return result !== F_UNLCK
}

/** libuv's table, behind util.getSystemErrorName, lacks ENOLCK. */
function errnoName(result: number): string {
  const known = Object.entries(constants.errno).find(([, errno]) => errno === -result)
  return known?.[0] ?? `errno ${-result}`
}

const USES: Record<ImageUse, string> = {
  written: 'another process has it open for writing',
  held: 'another process has it for itself',
  read: 'another process reads it and wants nobody to write to it',
}

function refuse(name: string, use: ImageUse | undefined): void {
  if (use === undefined) return
  throw new Qcow2Error('image-locked', `${name}: ${USES[use]}`, { image: name, use })
}

function unavailable(name: string, why: string, { without }: LockRole): Qcow2Error {
  return new Qcow2Error(
    'lock-unavailable',
    `${name} cannot be locked against writers: ${why}; where nothing else uses it, ${without} does without`,
    { image: name, why },
  )
}

function whyNoCalls(): string {
  if (process.platform !== 'linux') return `QEMU's locks are Linux's, and this is ${process.platform}`
  return `the optional package koffi is missing, or has nothing for this system (${process.arch})`
}
