// QEMU's bytes (block/file-posix.c): a permission that is held is a read lock on 100 + its number, one that must
// not be shared with others on 200 + its number. The numbers: 0 consistent read, 1 write, 2 unchanged write,
// 3 resize.
const PERMISSION_BASE = 100
const UNSHARED_BASE = 200
const CONSISTENT_READ = 0
const WRITE = 1
const RESIZE = 3

/**
 * How others use an image: they write to it or change its size; hold it so that nobody may even read; or read it and
 * want it to stay as it is.
 */
export type ImageUse = 'written' | 'held' | 'read'

/** What one holds who uses an image, and whom one does not bear. */
export interface LockRole {
  /** In the order in which QEMU takes them. */
  readonly bytes: readonly number[]
  /** How one does without locks, for who cannot have them. */
  readonly without: string
  /** The use that is in one's way. Who merely looks (`qemu-img info -U`) is in nobody's. */
  useAgainst(held: (byte: number) => boolean): ImageUse | undefined
}

/** QEMU that has a qcow2 image open for reading. */
export const READER: LockRole = {
  bytes: [PERMISSION_BASE + CONSISTENT_READ, UNSHARED_BASE + WRITE, UNSHARED_BASE + RESIZE],
  without: 'openFile',
  useAgainst(held) {
    if (held(PERMISSION_BASE + WRITE) || held(PERMISSION_BASE + RESIZE)) return 'written'
    return held(UNSHARED_BASE + CONSISTENT_READ) ? 'held' : undefined
  },
}

/** QEMU that has one open for writing. */
export const WRITER: LockRole = {
  bytes: [
    PERMISSION_BASE + CONSISTENT_READ,
    PERMISSION_BASE + WRITE,
    PERMISSION_BASE + RESIZE,
    UNSHARED_BASE + WRITE,
    UNSHARED_BASE + RESIZE,
  ],
  without: "lock: 'none'",
  useAgainst(held) {
    const use = READER.useAgainst(held)
    if (use !== undefined) return use
    return held(UNSHARED_BASE + WRITE) || held(UNSHARED_BASE + RESIZE) ? 'read' : undefined
  },
}
