/** Calls of the C library that Node does not offer. Negative results are errnos, as the kernel gives them. */
export interface NativeCalls {
  /** lseek(2): the new position. Offsets are exact up to 2^53. */
  lseek(fd: number, offset: number, whence: number): number
  /** fallocate(2), off this thread: it may wait for the disk. */
  fallocate(fd: number, mode: number, offset: number, length: number): Promise<number>
}

// Linux's numbers, on every processor.
export const SEEK_END = 2
export const SEEK_DATA = 3
export const SEEK_HOLE = 4
/** FALLOC_FL_PUNCH_HOLE, which wants FALLOC_FL_KEEP_SIZE with it. */
export const PUNCH_HOLE_KEEP_SIZE = 3
export const ENXIO = 6
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
  }
}
