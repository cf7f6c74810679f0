/** As `qemu-img convert` (-S 4k): smaller holes are not worth a write of their own. */
const BLOCK_BYTES = 4096
const zeroBlock = Buffer.alloc(BLOCK_BYTES)

/**
 * What of a piece is not zeros: alternating starts and ends, within the piece. Blocks lie where they lie on the disk.
 *
 * @param position of the piece on the disk
 */
export function storedParts(piece: Buffer, position: number): number[] {
  const parts: number[] = []
  const { length } = piece
  let stored = false
  for (let at = 0; at < length; ) {
    const end = Math.min(length, at + BLOCK_BYTES - ((position + at) % BLOCK_BYTES))
    // Most blocks of data have a byte here or there at their start: memcmp costs a call.
    const zero = piece[at] === 0 && piece.compare(zeroBlock, 0, end - at, at, end) === 0
    if (zero === stored) {
      parts.push(at)
      stored = !stored
    }
    at = end
  }
  if (stored) parts.push(length)
  return parts
}
