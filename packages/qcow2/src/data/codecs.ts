/**
 * What guest data needs beside reading: done by the platform where it can, else by a library. Inputs are not touched,
 * and must not be until the promise settles.
 */
export interface Codecs {
  /**
   * Inflates one compressed cluster: raw deflate (RFC 1951), as QEMU's zlib compression writes it. `input` may go on
   * after the stream's end, with bytes of no meaning.
   *
   * @param size bytes that must come out, at least 1. Never more are made, whatever the input says; of a longer stream
   *   the first `size`, as in QEMU
   * @throws Error for a stream that is broken before it has given `size` bytes, or gives fewer
   */
  inflateRaw(input: Uint8Array, size: number): Promise<Uint8Array>
  /**
   * The same for Zstandard frames (RFC 8878), one or several; but a frame that gives more than `size` bytes is broken,
   * as in QEMU.
   */
  zstd(input: Uint8Array, size: number): Promise<Uint8Array>
  /** PBKDF2 with HMAC (RFC 8018). */
  pbkdf2(
    hash: HashName,
    passphrase: Uint8Array,
    salt: Uint8Array,
    iterations: number,
    bytes: number,
  ): Promise<Uint8Array>
  digest(hash: HashName, data: Uint8Array): Promise<Uint8Array>
  /** AES without a mode. @param key 16, 24 or 32 bytes; it is copied */
  aes(key: Uint8Array): Promise<BlockCipher>
}

/** Those that every platform has. */
export const hashNames = ['sha1', 'sha256', 'sha384', 'sha512'] as const
export type HashName = (typeof hashNames)[number]

/**
 * A cipher on 16-byte blocks, each by itself (ECB). No mode of its own: modes for disks are written once, over this
 * (sector-cipher.ts), and many blocks at a time are five times as fast as node:crypto's XTS sector by sector.
 */
export interface BlockCipher {
  /** Whole blocks, in place. */
  encrypt(blocks: Uint8Array): void
  decrypt(blocks: Uint8Array): void
}

/** Deciphers disk sectors; the key stays within. */
export interface SectorCipher {
  /**
   * Deciphers whole 512-byte sectors in place.
   *
   * @param firstSector number of the first of them, which makes the initialisation vector
   */
  decipher(sectors: Uint8Array, firstSector: number): Promise<void>
}
