import { Qcow2Error } from '../errors.js'
import type { BlockCipher, Codecs, HashName } from './codecs.js'
import { loaded } from './load.js'
import { decodeFrames } from './zstd-frames.js'
import { decodeWithZstddec } from './zstd-library.js'

/**
 * For any platform with WebCrypto and WebAssembly: a browser, or Node. What the platform lacks comes from libraries,
 * each loaded when it is first needed.
 */
export const libraryCodecs: Codecs = {
  inflateRaw: inflateWithPako,
  zstd: (input, size) => decodeFrames(input, size, decodeWithZstddec),
  pbkdf2: webPbkdf2,
  digest: async (hash, data) =>
    new Uint8Array(await subtle().digest(webHash[hash], data as Uint8Array<ArrayBuffer>)),
  aes: nobleAes,
}

/** zlib itself in JavaScript, so that the same streams are good and bad as in QEMU (qcow2_zlib_decompress). */
async function inflateWithPako(input: Uint8Array, size: number): Promise<Uint8Array> {
  const { ZStream, Z_FINISH, Z_OK, zlibInflate, zlibInflateInit2, Z_STREAM_END, Z_BUF_ERROR } = await loaded(
    'pako',
    () => import('pako'),
  )
  const stream = new ZStream()
  const output = new Uint8Array(size)
  Object.assign(stream, {
    input,
    next_in: 0,
    avail_in: input.byteLength,
    output,
    next_out: 0,
    avail_out: size,
  })
  // No zlib header. QEMU writes a window of 12 bits; the largest reads any.
  const started = zlibInflateInit2(stream, -15)
  const status = started === Z_OK ? zlibInflate(stream, Z_FINISH) : started
  if (status !== Z_STREAM_END && status !== Z_BUF_ERROR) {
    throw new Error(`inflate: ${stream.msg || `status ${status}`}`)
  }
  if (stream.avail_out !== 0) throw new Error(`inflate: ${size - stream.avail_out} of ${size} bytes`)
  return output
}

const webHash: Record<HashName, string> = {
  sha1: 'SHA-1',
  sha256: 'SHA-256',
  sha384: 'SHA-384',
  sha512: 'SHA-512',
}

function subtle(): SubtleCrypto {
  const { crypto } = globalThis
  if (crypto?.subtle === undefined) {
    throw new Qcow2Error(
      'codec-unavailable',
      'no WebCrypto here, which LUKS needs: a page has it only over https',
    )
  }
  return crypto.subtle
}

async function webPbkdf2(
  hash: HashName,
  passphrase: Uint8Array,
  salt: Uint8Array,
  iterations: number,
  bytes: number,
): Promise<Uint8Array> {
  const key = await subtle().importKey('raw', passphrase as Uint8Array<ArrayBuffer>, 'PBKDF2', false, [
    'deriveBits',
  ])
  const algorithm = {
    name: 'PBKDF2',
    hash: webHash[hash],
    salt: salt as Uint8Array<ArrayBuffer>,
    iterations,
  }
  return new Uint8Array(await subtle().deriveBits(algorithm, key, bytes * 8))
}

/** WebCrypto's AES has neither ECB nor XTS. */
async function nobleAes(key: Uint8Array): Promise<BlockCipher> {
  const { ecb } = await loaded('@noble/ciphers', () => import('@noble/ciphers/aes.js'))
  const own = key.slice()
  // An object of noble's enciphers once, lest a nonce be used twice; ECB has none.
  const cipher = () => ecb(own, { disablePadding: true })
  return {
    encrypt: blocks => blocks.set(cipher().encrypt(blocks)),
    decrypt: blocks => blocks.set(cipher().decrypt(blocks)),
  }
}
