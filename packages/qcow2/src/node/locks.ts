import { readFile, statSync } from 'node:fs'
import { openError } from './file-storage.js'
import { READER } from './lock-bytes.js'

/** The OFD locks on one file, as /proc/locks shows them. */
export interface ImageLocks {
  /** False where /proc/locks cannot be read: whether someone holds the image is then not known. */
  readonly known: boolean
  /** Somebody may write to the image or change its size, or forbids others to read: a running QEMU. */
  readonly writer: boolean
}

/**
 * Tells whether QEMU, or another program that follows its lock protocol, has an image open for writing. Where
 * this says `writer`, `qemu-img info` refuses a qcow2 image too ("Failed to get shared "write" lock"); of a raw one,
 * which has no metadata to be torn, it tells the size all the same.
 *
 * It looks, it does not take a lock: a writer can come a moment later.
 *
 * @param table of all locks, to look several images up in one: the kernel takes some 10 ms to make it
 * @throws {Qcow2Error} `image-missing`, or `read-failed` when the image cannot be looked at
 */
export async function readLocks(
  path: string,
  table: Promise<LockTable> = readLockTable(),
): Promise<ImageLocks> {
  let file: { dev: number; ino: number }
  try {
    file = statSync(path)
  } catch (cause) {
    throw openError(path, cause)
  }
  const { text } = await table
  if (text === undefined) return { known: false, writer: false }
  return { known: true, writer: holdsWriter(text, deviceKeys(file.dev), file.ino) }
}

/** The locks of all files, at one moment. */
export interface LockTable {
  /** As in /proc/locks; undefined where that cannot be read. */
  readonly text: string | undefined
}

/**
 * Reads the table in the thread pool, so that other work can go on meanwhile. Never rejects.
 *
 * The kernel gives it in pieces of a page, and finds its place by counting: when a lock before it goes away in between,
 * one that stays can fall out (a few of 100 readings beside a program that locks and unlocks all the time, up to five in
 * a row). What is longer than a page is read until it is three times the same, 16 times at most, and a lock seen in any
 * of them counts.
 */
export async function readLockTable(): Promise<LockTable> {
  let last = await readLockText()
  if (last === undefined || last.length < LOCK_PIECE) return { text: last }
  let text = last
  for (let readings = 1, same = 1; readings < 16 && same < 3; readings++) {
    const next = await readLockText()
    if (next === undefined) break
    if (next === last) {
      same++
      continue
    }
    same = 1
    text += next
    last = next
  }
  return { text }
}

/** A page of the kernel's, less the line that had no room in it. */
const LOCK_PIECE = 4096 - 128

function readLockText(): Promise<string | undefined> {
  return new Promise(resolve => {
    readFile('/proc/locks', 'ascii', (error, text) => resolve(error ? undefined : text))
  })
}

/** `MAJOR:MINOR` in hex, as /proc/locks writes it. */
function deviceKeys(dev: number): string {
  const hex = (n: number) => n.toString(16).padStart(2, '0')
  const major = (Math.floor(dev / 256) % 4096) + Math.floor(dev / 2 ** 44) * 4096
  const minor = (dev % 256) + (Math.floor(dev / 2 ** 20) % 2 ** 24) * 256
  return `${hex(major)}:${hex(minor)}`
}

/** Whether somebody holds a lock that tells of a writer, by the text of /proc/locks. */
export function holdsWriter(text: string, device: string, inode: number): boolean {
  return READER.useAgainst(heldBytes(text, device, inode)) !== undefined
}

/** Tells of one byte of an open file whether somebody holds a lock on it, this process too. */
export function locksOf({ text }: LockTable, file: { dev: number; ino: number }): (byte: number) => boolean {
  return text === undefined ? () => false : heldBytes(text, deviceKeys(file.dev), file.ino)
}

/**
 * Reads the text of /proc/locks: `1: OFDLCK ADVISORY READ -1 fe:00:2146437 100 101`, a `->` after the number
 * for those who wait.
 */
function heldBytes(text: string, device: string, inode: number): (byte: number) => boolean {
  const ranges: [first: number, last: number][] = []
  for (const line of text.split('\n')) {
    const match =
      /^\d+: OFDLCK\s+\S+\s+(READ|WRITE)\s+\S+\s+([0-9a-f]+:[0-9a-f]+):(\d+)\s+(\d+)\s+(\d+|EOF)/.exec(line)
    if (match === null || match[2] !== device || Number(match[3]) !== inode) continue
    ranges.push([Number(match[4]), match[5] === 'EOF' ? Number.POSITIVE_INFINITY : Number(match[5])])
  }
  return byte => ranges.some(([first, last]) => first <= byte && byte <= last)
}
