import { CorruptImageError, Qcow2Error, UnsupportedFeatureError } from '../errors.js'
import { fieldsOf } from '../format/bytes.js'
import { extensionMagic } from '../format/extensions.js'
import type { ImageInspection } from '../image/inspect.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'
import { type Codecs, type HashName, hashNames, type SectorCipher } from './codecs.js'
import {
  cipherKeyBytes,
  LUKS_HEADER_BYTES,
  type LuksHeader,
  type LuksKeySlot,
  parseLuksHeader,
  splitCipherMode,
} from './luks-header.js'
import { cbcCipher, xtsCipher } from './sector-cipher.js'

const LUKS = 2
/**
 * Some minutes of PBKDF2 at most, for one slot. cryptsetup and QEMU choose what takes them one or two seconds, which
 * is some millions.
 */
const MAX_ITERATIONS = 2 ** 27

/** The LUKS area of a qcow2 image: header and key material (specification, "Full disk encryption header pointer"). */
interface LuksArea {
  readonly offset: number
  readonly length: number
}

/**
 * Reads the LUKS header that a qcow2 image points at.
 *
 * @throws {Qcow2Error} `corrupt-image`; `unsupported-feature` for other encryption than LUKS1 as QEMU knows it
 * @throws RangeError for an image that is not encrypted
 */
export async function readLuksHeader(
  storage: ImageStorage,
  inspection: ImageInspection,
  options?: ReadOptions,
): Promise<LuksHeader> {
  return (await readHeader(storage, inspection, options)).header
}

async function readHeader(
  storage: ImageStorage,
  inspection: ImageInspection,
  options: ReadOptions | undefined,
): Promise<{ area: LuksArea; header: LuksHeader }> {
  const { cryptMethod } = inspection.header
  if (cryptMethod === 0) throw new RangeError(`${storage.name} is not encrypted`)
  if (cryptMethod !== LUKS) {
    const what = cryptMethod === 1 ? 'encryption with AES-CBC, without LUKS' : `crypt_method ${cryptMethod}`
    throw new UnsupportedFeatureError(storage.name, what)
  }
  const area = luksArea(storage, inspection)
  const bytes = await readBytes(storage, area.offset, LUKS_HEADER_BYTES, options)
  return { area, header: parseLuksHeader(bytes, storage.name, area.offset) }
}

function luksArea(storage: ImageStorage, { extensions }: ImageInspection): LuksArea {
  const extension = extensions.findLast(({ magic }) => magic === extensionMagic.luksHeader)
  const wrong = (at: number, field: string, expected: string, found: number | string) =>
    new CorruptImageError(storage.name, {
      structure: 'full disk encryption header pointer',
      field,
      offset: at,
      expected,
      found: String(found),
    })
  if (extension === undefined) throw wrong(32, 'extension', 'one for crypt_method 2', 'none')
  const { data, offset: at } = extension
  if (data.byteLength !== 16) throw wrong(at - 4, 'length', '16', data.byteLength)
  const f = fieldsOf(data)
  const area = { offset: f.u64(0), length: f.u64(8) }
  if (area.offset > storage.size) {
    throw wrong(at, 'offset', `at most the file's ${storage.size} bytes`, area.offset)
  }
  if (area.length < LUKS_HEADER_BYTES || area.length > storage.size - area.offset) {
    const expected = `${LUKS_HEADER_BYTES} … ${storage.size - area.offset}`
    throw wrong(at + 8, 'length', expected, area.length)
  }
  return area
}

/**
 * Finds the key slot that a passphrase opens, and gives the cipher for guest data. In qcow2 a sector's number is its
 * offset in the file that holds it, by 512.
 *
 * @param storage the image itself, though guest data may be in an external data file
 * @param passphrase as bytes; text in UTF-8
 * @throws {Qcow2Error} `passphrase-wrong` where no slot opens; `corrupt-image`; `unsupported-feature` for a cipher,
 *   mode or hash that is not supported here, and more than 2^27 iterations
 *
 * @example
 * const cipher = await unlockLuks(storage, inspection, new TextEncoder().encode('secret'), nodeCodecs)
 * await cipher.decipher(cluster, hostOffset / 512)
 */
export async function unlockLuks(
  storage: ImageStorage,
  inspection: ImageInspection,
  passphrase: Uint8Array,
  codecs: Codecs,
  options?: ReadOptions,
): Promise<SectorCipher> {
  const { area, header } = await readHeader(storage, inspection, options)
  // All that can be refused is refused before any work.
  const hash = supportedHash(storage.name, header)
  const cipherWith = supportedCipher(storage.name, header, codecs)
  const slots = header.keySlots.filter(({ active }) => active)
  for (const { iterations } of [...slots, { iterations: header.mkDigestIterations }]) {
    if (iterations > MAX_ITERATIONS) {
      const what = `LUKS with ${iterations} iterations of PBKDF2 (limit ${MAX_ITERATIONS})`
      throw new UnsupportedFeatureError(storage.name, what)
    }
  }
  for (const slot of slots) checkMaterial(storage.name, header, area, slot)

  for (const slot of slots) {
    const { salt, iterations, keyMaterialOffset } = slot
    const material = await readBytes(
      storage,
      area.offset + keyMaterialOffset,
      materialBytes(header, slot),
      options,
    )
    const derived = await codecs.pbkdf2(hash, passphrase, salt, iterations, header.keyBytes)
    options?.signal?.throwIfAborted()
    await (await cipherWith(derived)).decipher(material, 0)
    derived.fill(0)
    const masterKey = await mergeStripes(material, header.keyBytes, hash, codecs)
    material.fill(0)
    options?.signal?.throwIfAborted()
    const digest = await codecs.pbkdf2(
      hash,
      masterKey,
      header.mkDigestSalt,
      header.mkDigestIterations,
      header.mkDigest.byteLength,
    )
    options?.signal?.throwIfAborted()
    const fits = digest.every((byte, i) => byte === header.mkDigest[i])
    const cipher = fits ? await cipherWith(masterKey) : undefined
    masterKey.fill(0)
    if (cipher !== undefined) return cipher
  }
  const which = slots.length === 0 ? 'no key slot is active' : 'the passphrase opens no key slot'
  throw new Qcow2Error('passphrase-wrong', `${storage.name}: ${which}`, {
    image: storage.name,
    activeSlots: slots.length,
  })
}

/** Whole sectors, for keys of 128 and 256 bits. */
function materialBytes({ keyBytes }: LuksHeader, { stripes }: LuksKeySlot): number {
  return keyBytes * stripes
}

function checkMaterial(image: string, header: LuksHeader, area: LuksArea, slot: LuksKeySlot): void {
  const end = slot.keyMaterialOffset + materialBytes(header, slot)
  if (end <= area.length) return
  throw new CorruptImageError(image, {
    structure: 'LUKS header',
    field: `key slot ${header.keySlots.indexOf(slot)}, key-material-offset`,
    offset: header.offset,
    expected: `key material within the ${area.length} bytes that the header extension gives`,
    found: `${slot.keyMaterialOffset} … ${end}`,
  })
}

function supportedHash(image: string, { hashSpec }: LuksHeader): HashName {
  const hash = hashNames.find(name => name === hashSpec)
  if (hash === undefined) throw new UnsupportedFeatureError(image, `LUKS hash-spec '${hashSpec}'`)
  return hash
}

/** Makes the header's cipher with a key: for key material, then for guest data. */
function supportedCipher(
  image: string,
  { cipherName, cipherMode, keyBytes }: LuksHeader,
  codecs: Codecs,
): (key: Uint8Array) => Promise<SectorCipher> {
  const refused = (what: string) => new UnsupportedFeatureError(image, `LUKS ${what}`)
  if (cipherName !== 'aes') throw refused(`cipher-name '${cipherName}'`)
  const mode = splitCipherMode(cipherMode)!
  const { chainMode, ivGenerator, ivHash } = mode
  // There is no XTS with 192 bits (IEEE 1619), and QEMU 7.2 dies while it makes an image with CBC and such a key.
  if (cipherKeyBytes(mode, keyBytes) === 24) throw refused('aes with keys of 192 bits')
  if (chainMode === 'xts' && (ivGenerator === 'plain' || ivGenerator === 'plain64')) {
    return async key =>
      xtsCipher(
        await codecs.aes(key.subarray(0, keyBytes / 2)),
        await codecs.aes(key.subarray(keyBytes / 2)),
        ivGenerator,
      )
  }
  if (chainMode === 'cbc' && (ivGenerator === 'plain' || ivGenerator === 'plain64')) {
    return async key => cbcCipher(await codecs.aes(key), ivGenerator, undefined)
  }
  // Of all hashes, SHA-256 alone gives a key for AES; dm-crypt takes AES-256 then, whatever the data's key.
  if (chainMode === 'cbc' && ivGenerator === 'essiv' && ivHash === 'sha256') {
    return async key => {
      const salt = await codecs.digest('sha256', key)
      const essiv = await codecs.aes(salt)
      salt.fill(0)
      return cbcCipher(await codecs.aes(key), 'plain64', essiv)
    }
  }
  throw refused(`cipher-mode '${cipherMode}'`)
}

const digestBytes: Record<HashName, number> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }

/** AFmerge (specification, section 2.4): the last stripe, and all others diffused, together are the key. */
async function mergeStripes(
  split: Uint8Array,
  keyBytes: number,
  hash: HashName,
  codecs: Codecs,
): Promise<Uint8Array> {
  const key = new Uint8Array(keyBytes)
  const block = digestBytes[hash]
  const last = split.byteLength - keyBytes
  for (let at = 0; at <= last; at += keyBytes) {
    for (let i = 0; i < keyBytes; i++) key[i]! ^= split[at + i]!
    if (at === last) break
    // Diffusion: each piece as long as a digest becomes the digest of its number and itself; the last may be shorter.
    for (let from = 0, number = 0; from < keyBytes; from += block, number++) {
      const piece = key.subarray(from, from + block)
      const numbered = new Uint8Array(4 + piece.byteLength)
      new DataView(numbered.buffer).setUint32(0, number)
      numbered.set(piece, 4)
      piece.set((await codecs.digest(hash, numbered)).subarray(0, piece.byteLength))
    }
  }
  return key
}
