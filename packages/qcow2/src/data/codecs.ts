/** What guest data needs beside reading: it is done by the platform where it can, else by a library. */
export interface Codecs {
  /**
   * Inflates one compressed cluster: raw deflate (RFC 1951), as QEMU's zlib compression writes it. `input` may go on
   * after the stream's end, with bytes of no meaning.
   *
   * @param size bytes that must come out: never more are made, whatever the input says
   * @throws Error for a stream that is broken or gives fewer than `size` bytes
   */
  inflateRaw(input: Uint8Array, size: number): Promise<Uint8Array>
  /** The same for one Zstandard frame (RFC 8878). */
  zstd(input: Uint8Array, size: number): Promise<Uint8Array>
  /** PBKDF2 with HMAC (RFC 8018). @param hash `sha1`, `sha256`, `sha384` or `sha512` */
  pbkdf2(
    hash: string,
    passphrase: Uint8Array,
    salt: Uint8Array,
    iterations: number,
    bytes: number,
  ): Promise<Uint8Array>
  digest(hash: string, data: Uint8Array): Promise<Uint8Array>
  /** AES-XTS (IEEE 1619) with 512-byte sectors. @param key both keys: 32 bytes for AES-128, 64 for AES-256 */
  aesXts(key: Uint8Array): Promise<SectorCipher>
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
