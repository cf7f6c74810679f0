// QEMU's bytes (block/file-posix.c): a permission that is held is a read lock on 100 + its number, one that must
// not be shared with others on 200 + its number. The numbers: 0 consistent read, 1 write, 2 unchanged write,
// 3 resize.
export const PERMISSION_BASE = 100
export const UNSHARED_BASE = 200
export const CONSISTENT_READ = 0
export const WRITE = 1
export const RESIZE = 3

/** What a QEMU that has a qcow2 image open for writing holds, in the order in which it takes them. */
export const WRITER_BYTES: readonly number[] = [
  PERMISSION_BASE + CONSISTENT_READ,
  PERMISSION_BASE + WRITE,
  PERMISSION_BASE + RESIZE,
  UNSHARED_BASE + WRITE,
  UNSHARED_BASE + RESIZE,
]

/**
 * How others use an image: they write to it or change its size; hold it so that nobody may even read; or read it and
 * want it to stay as it is.
 */
export type ImageUse = 'written' | 'held' | 'read'

/** The use that is in a writer's way. One who merely looks (`qemu-img info -U`) is not. */
export function useAgainstWriter(held: (byte: number) => boolean): ImageUse | undefined {
  if (held(PERMISSION_BASE + WRITE) || held(PERMISSION_BASE + RESIZE)) return 'written'
  if (held(UNSHARED_BASE + CONSISTENT_READ)) return 'held'
  if (held(UNSHARED_BASE + WRITE) || held(UNSHARED_BASE + RESIZE)) return 'read'
  return undefined
}
