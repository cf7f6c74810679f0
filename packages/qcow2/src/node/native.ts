/** Calls of the C library that Node does not offer. Negative results are errnos, as the kernel gives them. */
export interface NativeCalls {
  /** lseek(2): the new position. Offsets are exact up to 2^53. */
  lseek(fd: number, offset: number, whence: number): number
}

// Linux's numbers, on every processor.
export const SEEK_END = 2
export const SEEK_DATA = 3
export const SEEK_HOLE = 4
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
  let lseek: (fd: number, offset: number, whence: number) => number
  try {
    lseek = library.func('int64_t lseek64(int fd, int64_t offset, int whence)')
  } catch {
    // musl has one lseek, of 64 bits.
    lseek = library.func('int64_t lseek(int fd, int64_t offset, int whence)')
  }
  return {
    lseek(fd, offset, whence) {
      const position = lseek(fd, offset, whence)
      return position === -1 ? -(koffi.errno() || EIO) : position
    },
  }
}
