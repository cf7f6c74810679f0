// Zstandard frames (RFC 8878, section 3.1.1) from outside: where each ends and what it asks for, so that a decoder is
// given whole frames that fit, and nothing that follows them.

/** As libzstd's decoder has it, unless told otherwise. */
const MAX_WINDOW_BYTES = 2 ** 27 + 1
/** Where the output is the window, so that none is allocated: libzstd's limit in 32 bits. */
const MAX_CLAIMED_WINDOW_BYTES = 2 ** 31 - 1
/** A cluster is one frame. QEMU takes any number; without a limit, thousands of empty ones cost seconds. */
const MAX_FRAMES = 256
const BLOCK_HEADER_BYTES = 3

export interface ZstdFrame {
  readonly bytes: Uint8Array
  /** Undefined where the frame does not say. */
  readonly contentSize: number | undefined
  /** What a decoder that streams would allocate. */
  readonly windowSize: number
  /** No block holds anything. */
  readonly empty: boolean
}

/** Decodes one frame to at most `left` bytes, at least 1. */
export type DecodeFrame = (frame: ZstdFrame, left: number) => Promise<Uint8Array>

/**
 * Decodes frames until `size` bytes are there, as QEMU does (qcow2_zstd_decompress): what follows the last one that is
 * needed is not looked at.
 *
 * @throws Error for what is no frame, is cut off, needs a dictionary or too large a window, or holds too much
 */
export async function decodeFrames(
  input: Uint8Array,
  size: number,
  decode: DecodeFrame,
): Promise<Uint8Array> {
  let out: Uint8Array | undefined
  let done = 0
  let at = 0
  for (let frames = 0; done < size; frames++) {
    if (frames === MAX_FRAMES) throw new Error(`zstd: more than ${MAX_FRAMES} frames`)
    const skippable = skippableFrameEnd(input, at)
    if (skippable !== undefined) {
      at = skippable
      continue
    }
    const frame = frameAt(input, at, size - done)
    at += frame.bytes.byteLength
    const content = await decode(frame, size - done)
    // zstddec gives nothing, and no error, for a frame that it cannot decode.
    if (
      content.byteLength !== (frame.contentSize ?? content.byteLength) ||
      (content.byteLength === 0 && !frame.empty)
    ) {
      throw new Error('zstd: a frame is corrupt')
    }
    if (content.byteLength === size) return content
    out ??= new Uint8Array(size)
    out.set(content, done)
    done += content.byteLength
  }
  return out!
}

/** Skippable frames (section 3.1.2): magic number, size, anything. */
function skippableFrameEnd(input: Uint8Array, at: number): number | undefined {
  if (at + 8 > input.byteLength) return undefined
  const magic = littleEndian(input, at, 4)
  return magic >= 0x184d2a50 && magic <= 0x184d2a5f ? at + 8 + littleEndian(input, at + 4, 4) : undefined
}

function frameAt(input: Uint8Array, start: number, left: number): ZstdFrame {
  const need = (end: number) => {
    if (end > input.byteLength) throw new Error('zstd: the stream ends too early')
  }
  need(start + 5)
  if (littleEndian(input, start, 4) !== 0xfd2fb528) throw new Error('zstd: no frame where one must be')
  const descriptor = input[start + 4]!
  if ((descriptor & 8) !== 0) throw new Error('zstd: a reserved bit is set')
  const singleSegment = (descriptor & 0x20) !== 0
  const sizeFlag = descriptor >> 6
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!
  const sizeBytes = sizeFlag === 0 ? (singleSegment ? 1 : 0) : 2 ** sizeFlag
  const dictionaryAt = start + 5 + (singleSegment ? 0 : 1)
  const sizeAt = dictionaryAt + dictionaryBytes
  let at = sizeAt + sizeBytes
  need(at)
  if (littleEndian(input, dictionaryAt, dictionaryBytes) !== 0) {
    throw new Error('zstd: the frame needs a dictionary')
  }
  const contentSize =
    sizeBytes === 0 ? undefined : littleEndian(input, sizeAt, sizeBytes) + (sizeFlag === 1 ? 256 : 0)
  if (contentSize !== undefined && contentSize > left) {
    throw new Error(`zstd: a frame of ${contentSize} bytes where ${left} belong`)
  }
  const windowSize = contentSize !== undefined && singleSegment ? contentSize : windowOf(input[start + 5]!)
  // A frame that is known to fit is decoded in one go; so in libzstd.
  const limit = contentSize === undefined ? MAX_WINDOW_BYTES : MAX_CLAIMED_WINDOW_BYTES
  if (windowSize > limit) throw new Error(`zstd: a window of ${windowSize} bytes (limit ${limit})`)
  let empty = true
  for (let last = false; !last; ) {
    need(at + BLOCK_HEADER_BYTES)
    const header = littleEndian(input, at, BLOCK_HEADER_BYTES)
    const type = (header >> 1) & 3
    if (type === 3) throw new Error('zstd: a block of a reserved type')
    const size = header >> 3
    last = (header & 1) !== 0
    empty &&= size === 0
    // A run-length block: one byte, so many times.
    at += BLOCK_HEADER_BYTES + (type === 1 ? 1 : size)
    need(at)
  }
  if ((descriptor & 4) !== 0) at += 4
  need(at)
  return { bytes: input.subarray(start, at), contentSize, windowSize, empty }
}

/** Section 3.1.1.1.2. */
function windowOf(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3))
  return base + (base / 8) * (descriptor & 7)
}

function littleEndian(bytes: Uint8Array, at: number, length: number): number {
  let value = 0
  for (let i = length - 1; i >= 0; i--) value = value * 256 + bytes[at + i]!
  return value
}
