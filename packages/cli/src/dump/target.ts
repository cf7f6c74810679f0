/** Where a dump goes. Positions are those of the disk, in bytes. */
export interface DumpTarget {
  /** Pieces come in order, one after the other. The bytes are used again when the promise settles. */
  write(bytes: Buffer, position: number): Promise<void>
  /** Undefined where what is not written reads as zeros anyway. */
  readonly zeros: ((position: number, length: number) => Promise<void>) | undefined
  /** All is there: makes it last. */
  finish(): Promise<void>
  /** It failed, or ended otherwise: leaves nothing behind that is not whole. Never throws. */
  discard(): void
}
