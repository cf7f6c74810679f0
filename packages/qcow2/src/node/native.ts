/** Calls of the C library that Node does not offer. Negative results are errnos, as the kernel gives them. */
export interface NativeCalls {
  /** lseek(2): the new position. Offsets are exact up to 2^53. */
  lseek(fd: number, offset: number, whence: number): number
  /** fallocate(2), off this thread: it may wait for the disk. */
  fallocate(fd: number, mode: number, offset: number, length: number): Promise<number>
  /** Undefined on processors whose struct flock is not known here. */
  readonly ofdLocks?: OfdLockCalls
}

/** Locks of an open file description, by bytes: fcntl(2), "Open file description locks". None of them waits. */
export interface OfdLockCalls {
  /** F_OFD_SETLK: 0. */
  set(fd: number, type: LockType, start: number, length: number): number
  /** F_OFD_GETLK: the type of a lock that would be in the way of such a one, F_UNLCK where there is none. */
  get(fd: number, type: LockType, start: number, length: number): number
}

export type LockType = typeof F_RDLCK | typeof F_WRLCK | typeof F_UNLCK

// Linux's numbers, on every processor.
export const SEEK_END = 2
export const SEEK_DATA = 3
export const SEEK_HOLE = 4
/** FALLOC_FL_PUNCH_HOLE, which wants FALLOC_FL_KEEP_SIZE with it. */
export const PUNCH_HOLE_KEEP_SIZE = 3
export const F_RDLCK = 0
export const F_WRLCK = 1
export const F_UNLCK = 2
const F_OFD_GETLK = 36
const F_OFD_SETLK = 37
export const ENXIO = 6
export const EAGAIN = 11
export const EACCES = 13
const EIO = 5

let loaded: Promise<NativeCalls | undefined> | undefined

/**
 * The C library through koffi, an optional dependency: undefined where it is not installed, has no binary for this
 * processor and C library, or where this is not Linux. Whoever asks must be able to do without.
 *
 * Loaded when it is first asked for: that takes 15 ms, several times what a short command needs for all else.
 */
export function native(): Promise<NativeCalls | undefined> {
  loaded ??= load().catch(() => undefined)
  return loaded
}

async function load(): Promise<NativeCalls | undefined> {
  if (process.platform !== 'linux') return undefined
  // import() and not require(): it is found both from an ES module and from the CommonJS bundle of the command.
  const { default: koffi } = await import('koffi')
  // What this process has loaded already, whichever C library that is.
  const library = koffi.load(null)
  /** glibc's calls with offsets of 64 bits have names of their own; musl's have no others. */
  const withLargeOffsets = (name: string, declare: (name: string) => string) => {
    try {
      return library.func(declare(`${name}64`))
    } catch {
      return library.func(declare(name))
    }
  }
  const lseek = withLargeOffsets('lseek', name => `int64_t ${name}(int fd, int64_t offset, int whence)`)
  const fallocate = withLargeOffsets(
    'fallocate',
    name => `int ${name}(int fd, int mode, int64_t offset, int64_t length)`,
  )
  const fcntl = library.func('int fcntl(int fd, int command, ...)')
  const failure = () => -(koffi.errno() || EIO)
  return {
    lseek(fd, offset, whence) {
      const position: number = lseek(fd, offset, whence)
      return position === -1 ? failure() : position
    },
    fallocate: (fd, mode, offset, length) =>
      new Promise(resolve => {
        // koffi keeps errno for the callback, though the call was made on another thread.
        fallocate.async(fd, mode, offset, length, (error: unknown, result: number) => {
          resolve(error || result === -1 ? failure() : result)
        })
      }),
    ...(FLOCK_KNOWN.has(process.arch) ? { ofdLocks: ofdLockCalls(fcntl, failure) } : {}),
  }
}

/** Where struct flock is asm-generic/fcntl.h's with a long of 64 bits, least significant byte first. */
const FLOCK_KNOWN = new Set(['x64', 'arm64'])

function ofdLockCalls(
  fcntl: (fd: number, command: number, type: string, flock: Uint8Array) => number,
  failure: () => number,
): OfdLockCalls {
  const call = (fd: number, command: number, type: LockType, start: number, length: number): number => {
    // short l_type, l_whence; long l_start, l_len; int l_pid, which must be 0.
    const flock = new DataView(new ArrayBuffer(32))
    flock.setInt16(0, type, true)
    flock.setBigInt64(8, BigInt(start), true)
    flock.setBigInt64(16, BigInt(length), true)
    if (fcntl(fd, command, 'void *', new Uint8Array(flock.buffer)) === -1) return failure()
    return command === F_OFD_GETLK ? flock.getInt16(0, true) : 0
  }
  return {
    set: (fd, type, start, length) => call(fd, F_OFD_SETLK, type, start, length),
    get: (fd, type, start, length) => call(fd, F_OFD_GETLK, type, start, length),
  }
}
