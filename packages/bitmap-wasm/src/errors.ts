/** What a strict parser can meet. */
export type BitmapFormatCode =
  /** An entry of the bitmap directory has violations. */
  | 'directory-entry'
  /** The directory ends before its last entry begins. */
  | 'directory-short'
  /** Bytes are left after the directory's last entry: QEMU refuses that too. */
  | 'directory-size'
  /** An entry of a bitmap table has violations. */
  | 'table-entry'

/** Thrown by the strict modes at the first thing that QEMU would refuse, or read wrong. */
export class BitmapFormatError extends Error {
  override readonly name = 'BitmapFormatError'
  readonly code: BitmapFormatCode
  /** Of the entry, from 0; with `directory-short` and `directory-size` the number of entries that there are. */
  readonly index: number
  /** Where it begins, in bytes from the directory's or the table's start. */
  readonly offset: number
  /** Of that entry, see `entryViolations` and `tableViolations`. */
  readonly violations: readonly string[]

  constructor(code: BitmapFormatCode, index: number, offset: number, violations: readonly string[] = []) {
    const at = `at offset 0x${offset.toString(16)}`
    super(
      code === 'directory-short'
        ? `the bitmap directory ends ${at}, after ${index} entries`
        : code === 'directory-size'
          ? `the bitmap directory goes on ${at}, after its last entry`
          : `${code === 'table-entry' ? 'bitmap table' : 'bitmap directory'} entry ${index} ${at}: ${violations.join(', ')}`,
    )
    this.code = code
    this.index = index
    this.offset = offset
    this.violations = violations
  }
}
