import { CorruptImageError, UnsupportedFeatureError } from '../errors.js'
import { cString, fieldsOf } from '../format/bytes.js'
import { type HostOffset, hostOffset } from '../offsets.js'

/** LUKS On-Disk Format Specification 1.2.3, section 4 (figure 2). Offsets are in bytes, from where the header begins. */
export interface LuksHeader {
  /** Where it is in the file. */
  readonly offset: HostOffset
  readonly cipherName: string
  readonly cipherMode: string
  readonly hashSpec: string
  /** In a qcow2 image nothing is there: guest data is in clusters. */
  readonly payloadOffset: number
  readonly keyBytes: number
  readonly mkDigest: Uint8Array
  readonly mkDigestSalt: Uint8Array
  readonly mkDigestIterations: number
  readonly uuid: string
  readonly keySlots: readonly LuksKeySlot[]
}

export interface LuksKeySlot {
  readonly active: boolean
  readonly iterations: number
  readonly salt: Uint8Array
  readonly keyMaterialOffset: number
  /** Anti-forensic stripes that the key material is split into. */
  readonly stripes: number
}

export const LUKS_HEADER_BYTES = 592
const SECTOR_BYTES = 512
/** QEMU and cryptsetup align key material so, and keep this much for the header. */
const ALIGNMENT_BYTES = 4096
const NUM_KEY_SLOTS = 8
const KEY_SLOTS_AT = 208
const KEY_SLOT_BYTES = 48
const KEY_ENABLED = 0x00ac71f3
const KEY_DISABLED = 0x0000dead
/** The specification leaves the number open; nobody ever wrote another, and QEMU refuses others. */
const STRIPES = 4000

/** What QEMU 7.2 knows by name: ciphers with their keys' bytes, hashes, modes. */
const knownCiphers: Readonly<Record<string, readonly number[]>> = {
  aes: [16, 24, 32],
  cast5: [16],
  serpent: [16, 24, 32],
  twofish: [16, 24, 32],
}
const knownHashes = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160']
const knownModes = ['ecb', 'cbc', 'xts', 'ctr']
const knownGenerators = ['plain', 'plain64', 'essiv']

/** A `cipher-mode` in its parts: `cbc-essiv:sha256`. */
export interface LuksCipherMode {
  readonly chainMode: string
  readonly ivGenerator: string
  /** Undefined but for essiv: dm-crypt and QEMU pass over it elsewhere. */
  readonly ivHash: string | undefined
}

/**
 * Parses a LUKS1 header ("phdr"), and checks all that QEMU checks.
 *
 * @param bytes from where it begins: at least {@link LUKS_HEADER_BYTES}
 * @param image for messages
 * @param offset where it begins in the file
 * @throws {CorruptImageError} for a field that cannot be so
 * @throws {UnsupportedFeatureError} for another version, and a cipher, mode or hash that QEMU does not know either
 */
export function parseLuksHeader(bytes: Uint8Array, image: string, offset: number): LuksHeader {
  const wrong = (field: string, at: number, expected: string, found: string | number) =>
    new CorruptImageError(image, {
      structure: 'LUKS header',
      field,
      offset: offset + at,
      expected,
      found: String(found),
    })
  if (bytes.byteLength < LUKS_HEADER_BYTES) {
    throw wrong('length', 0, `at least ${LUKS_HEADER_BYTES} bytes`, bytes.byteLength)
  }
  const f = fieldsOf(bytes)
  if (f.u32(0) !== 0x4c554b53 || f.u16(4) !== 0xbabe) throw wrong('magic', 0, 'LUKS\\xba\\xbe', 'other bytes')
  if (f.u16(6) !== 1) throw new UnsupportedFeatureError(image, `LUKS version ${f.u16(6)}`)

  const name = (field: string, at: number): string => {
    const area = bytes.subarray(at, at + 32)
    if (!area.includes(0)) throw wrong(field, at, 'a final NUL', 'none')
    return cString(area)
  }
  const cipherName = name('cipher-name', 8)
  const cipherMode = name('cipher-mode', 40)
  const hashSpec = name('hash-spec', 72)
  const keyBytes = f.u32(108)
  const payloadOffset = f.u32(104) * SECTOR_BYTES
  const mkDigestIterations = f.u32(164)
  if (payloadOffset < ALIGNMENT_BYTES) {
    throw wrong('payload-offset', 104, `at least ${ALIGNMENT_BYTES} (bytes)`, payloadOffset)
  }
  if (mkDigestIterations === 0) throw wrong('mk-digest-iter', 164, 'at least 1', 0)

  const keySlots: LuksKeySlot[] = []
  for (let i = 0; i < NUM_KEY_SLOTS; i++) {
    const at = KEY_SLOTS_AT + i * KEY_SLOT_BYTES
    const state = f.u32(at)
    const slot: LuksKeySlot = {
      active: state === KEY_ENABLED,
      iterations: f.u32(at + 4),
      salt: bytes.slice(at + 8, at + 40),
      keyMaterialOffset: f.u32(at + 40) * SECTOR_BYTES,
      stripes: f.u32(at + 44),
    }
    const field = (name: string) => `key slot ${i}, ${name}`
    if (state !== KEY_ENABLED && state !== KEY_DISABLED) {
      throw wrong(field('active'), at, '0xac71f3 or 0xdead', `0x${state.toString(16)}`)
    }
    if (slot.active && slot.iterations === 0) throw wrong(field('iterations'), at + 4, 'at least 1', 0)
    if (slot.stripes !== STRIPES) throw wrong(field('stripes'), at + 44, `${STRIPES}`, slot.stripes)
    const end = slot.keyMaterialOffset + materialArea(keyBytes)
    const expected = (what: string) =>
      wrong(field('key-material-offset'), at + 40, what, `${slot.keyMaterialOffset} … ${end}`)
    if (slot.keyMaterialOffset < ALIGNMENT_BYTES) throw expected('key material behind the header')
    if (end > payloadOffset) throw expected(`key material before the payload at ${payloadOffset}`)
    for (const [other, { keyMaterialOffset }] of keySlots.entries()) {
      if (keyMaterialOffset < end && slot.keyMaterialOffset < keyMaterialOffset + materialArea(keyBytes)) {
        throw expected(`key material apart from key slot ${other}'s`)
      }
    }
    keySlots.push(slot)
  }

  const header: LuksHeader = {
    offset: hostOffset(offset),
    cipherName,
    cipherMode,
    hashSpec,
    payloadOffset,
    keyBytes,
    mkDigest: bytes.slice(112, 132),
    mkDigestSalt: bytes.slice(132, 164),
    mkDigestIterations,
    uuid: cString(bytes.subarray(168, KEY_SLOTS_AT)),
    keySlots,
  }
  checkNames(header, image)
  return header
}

function materialArea(keyBytes: number): number {
  return Math.ceil((keyBytes * STRIPES) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES
}

function checkNames({ cipherName, cipherMode, hashSpec, keyBytes }: LuksHeader, image: string): void {
  const unknown = (what: string) => new UnsupportedFeatureError(image, `LUKS ${what}`)
  const mode = splitCipherMode(cipherMode)
  if (
    mode === undefined ||
    !knownModes.includes(mode.chainMode) ||
    !knownGenerators.includes(mode.ivGenerator) ||
    (mode.ivGenerator === 'essiv' && !knownHashes.includes(mode.ivHash ?? ''))
  ) {
    throw unknown(`cipher-mode '${cipherMode}'`)
  }
  if (!knownHashes.includes(hashSpec)) throw unknown(`hash-spec '${hashSpec}'`)
  const known = Object.hasOwn(knownCiphers, cipherName) ? knownCiphers[cipherName]! : []
  if (!known.includes(cipherKeyBytes(mode, keyBytes))) {
    throw unknown(`cipher-name '${cipherName}' with keys of ${keyBytes} bytes in mode '${cipherMode}'`)
  }
}

/** Undefined for what is not of the form `mode-generator` or `mode-generator:hash`. */
export function splitCipherMode(cipherMode: string): LuksCipherMode | undefined {
  const dash = cipherMode.indexOf('-')
  if (dash < 0) return undefined
  const [ivGenerator, ...hash] = cipherMode.slice(dash + 1).split(':')
  return {
    chainMode: cipherMode.slice(0, dash),
    ivGenerator: ivGenerator!,
    ivHash: ivGenerator === 'essiv' && hash.length > 0 ? hash.join(':') : undefined,
  }
}

/** XTS has two keys. */
export function cipherKeyBytes(mode: LuksCipherMode, keyBytes: number): number {
  return mode.chainMode === 'xts' ? keyBytes / 2 : keyBytes
}

/** `encrypt` of a qcow2 image's format-specific information, with the keys of qemu-img 7.2 in its order. */
export interface LuksDescription {
  readonly 'ivgen-alg': string
  readonly 'hash-alg': string
  readonly 'cipher-alg': string
  readonly uuid: string
  readonly 'ivgen-hash-alg'?: string
  readonly format: 'luks'
  readonly 'cipher-mode': string
  readonly slots: readonly LuksSlotDescription[]
  readonly 'payload-offset': number
  readonly 'master-key-iters': number
}

/** A slot that is not active has no iterations or stripes worth telling. */
export type LuksSlotDescription =
  | { readonly active: true; readonly iters: number; readonly 'key-offset': number; readonly stripes: number }
  | { readonly active: false; readonly 'key-offset': number }

/** What `qemu-img info --output=json` tells of a LUKS header. No passphrase is needed. */
export function describeLuks(header: LuksHeader): LuksDescription {
  const mode = splitCipherMode(header.cipherMode)!
  return {
    'ivgen-alg': mode.ivGenerator,
    'hash-alg': header.hashSpec,
    'cipher-alg': `${header.cipherName}-${cipherKeyBytes(mode, header.keyBytes) * 8}`,
    uuid: header.uuid,
    ...(mode.ivHash === undefined ? {} : { 'ivgen-hash-alg': mode.ivHash }),
    format: 'luks',
    'cipher-mode': mode.chainMode,
    slots: header.keySlots.map(({ active, iterations, keyMaterialOffset, stripes }) =>
      active
        ? { active, iters: iterations, 'key-offset': keyMaterialOffset, stripes }
        : { active, 'key-offset': keyMaterialOffset },
    ),
    'payload-offset': header.payloadOffset,
    'master-key-iters': header.mkDigestIterations,
  }
}
