import { createCipheriv, createDecipheriv, createHash, pbkdf2 } from 'node:crypto'
import * as zlib from 'node:zlib'
import type { BlockCipher, Codecs } from '../data/codecs.js'
import { decodeFrames, type ZstdFrame } from '../data/zstd-frames.js'
import { decodeWithZstddec } from '../data/zstd-library.js'

/**
 * Node's own zlib, libzstd (since 22.15 and 23.8; before, a library's) and OpenSSL. Inflating runs in Node's thread
 * pool, so that several clusters are inflated at a time.
 */
export const nodeCodecs: Codecs = {
  inflateRaw,
  zstd: (input, size) => decodeFrames(input, size, decodeFrame),
  pbkdf2: (hash, passphrase, salt, iterations, bytes) =>
    new Promise((resolve, reject) => {
      pbkdf2(passphrase, salt, iterations, bytes, hash, (error, key) => {
        if (error) reject(error)
        else resolve(key)
      })
    }),
  digest: async (hash, data) => createHash(hash).update(data).digest(),
  aes: async key => opensslAes(key),
}

/** zlib refuses smaller pieces of output. */
const MIN_CHUNK_BYTES = 64

/**
 * Not `zlib.inflateRaw`: for a stream that gives more than `size` it throws, where QEMU takes what it needs. One piece
 * of output of this very size does as QEMU does.
 */
function inflateRaw(input: Uint8Array, size: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const stream = zlib.createInflateRaw({ chunkSize: Math.max(size, MIN_CHUNK_BYTES) })
    let got = 0
    stream.on('error', error => reject(new Error(`inflate: ${error.message}`)))
    stream.on('end', () => reject(new Error(`inflate: ${got} of ${size} bytes`)))
    stream.on('data', (piece: Buffer) => {
      got += piece.byteLength
      if (got < size) return
      resolve(piece.subarray(0, size))
      stream.destroy()
    })
    stream.end(input)
  })
}

type ZstdDecompress = (
  input: Uint8Array,
  options: { maxOutputLength: number; chunkSize: number },
  done: (error: Error | null, result: Uint8Array) => void,
) => void

// Not in the types of the oldest Node that is supported.
const { zstdDecompress } = zlib as { zstdDecompress?: ZstdDecompress }

/** Node's decoder streams, so it allocates the window; the library's writes where the output is. */
const MAX_STREAMED_WINDOW_BYTES = 8 * 1024 * 1024

function decodeFrame(frame: ZstdFrame, left: number): Promise<Uint8Array> {
  if (zstdDecompress === undefined || frame.windowSize > MAX_STREAMED_WINDOW_BYTES) {
    return decodeWithZstddec(frame, left)
  }
  return new Promise((resolve, reject) => {
    const options = { maxOutputLength: left, chunkSize: Math.max(left, MIN_CHUNK_BYTES) }
    zstdDecompress(frame.bytes, options, (error, result) => {
      if (error) reject(new Error(`zstd: ${error.message}`))
      else resolve(result)
    })
  })
}

function opensslAes(key: Uint8Array): BlockCipher {
  const algorithm = `aes-${key.byteLength * 8}-ecb`
  // Without padding, whole blocks go in and come out; nothing is kept from one call to the next.
  const encipher = createCipheriv(algorithm, key, null).setAutoPadding(false)
  const decipher = createDecipheriv(algorithm, key, null).setAutoPadding(false)
  return {
    encrypt: blocks => blocks.set(encipher.update(blocks)),
    decrypt: blocks => blocks.set(decipher.update(blocks)),
  }
}
