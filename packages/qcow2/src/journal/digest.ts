import type { Run } from '../edit/cluster-runs.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'

const PIECE_BYTES = 1024 * 1024

/** SHA-256, in hex. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  return toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)))
}

/**
 * A digest of what these clusters hold: of pieces of at most 1 MiB, each with the digest of those before it.
 *
 * @throws RangeError for clusters that are not within the storage
 */
export async function digestClusters(
  storage: ImageStorage,
  clusterSize: number,
  runs: readonly Run[],
  options: ReadOptions = {},
): Promise<string> {
  let digest = ''
  for (const { first, count } of runs) {
    for (let at = first * clusterSize; at < (first + count) * clusterSize; at += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, (first + count) * clusterSize - at)
      const piece = await readBytes(storage, at, length, options)
      const chained = new Uint8Array(digest.length + length)
      chained.set(new TextEncoder().encode(digest))
      chained.set(piece, digest.length)
      digest = await sha256(chained)
    }
  }
  return digest
}

export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0')
  return text
}

/** @param text an even number of hexadecimal digits */
export function fromHex(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length / 2)
  for (let i = 0; i < bytes.byteLength; i++) bytes[i] = Number.parseInt(text.slice(i * 2, i * 2 + 2), 16)
  return bytes
}
