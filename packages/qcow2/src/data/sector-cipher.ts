import type { BlockCipher, SectorCipher } from './codecs.js'

/** `plain` counts sectors in 32 bits, and so begins anew after 2 TiB; `plain64` in 64 (dm-crypt's names). */
export type IvGenerator = 'plain' | 'plain64'

const SECTOR_BYTES = 512
const SECTOR_WORDS = SECTOR_BYTES / 4
const BLOCK_WORDS = 4
/** Sectors at a time: their tweaks, or what they were before, are kept meanwhile. */
const BATCH_SECTORS = 128

/**
 * AES-XTS (IEEE 1619) with data units of 512 bytes.
 *
 * Words of 32 bits are little-endian in the standard, and in every machine that runs JavaScript today.
 *
 * @param tweak the cipher of the key's second half
 */
export function xtsCipher(data: BlockCipher, tweak: BlockCipher, generator: IvGenerator): SectorCipher {
  const tweaks = new Uint32Array(BATCH_SECTORS * SECTOR_WORDS)
  return inBatches((bytes, words, firstSector) => {
    const ivs = sectorNumbers(firstSector, words.length / SECTOR_WORDS, generator)
    tweak.encrypt(bytesOf(ivs))
    spreadTweaks(ivs, tweaks)
    for (let i = 0; i < words.length; i++) words[i]! ^= tweaks[i]!
    data.decrypt(bytes)
    for (let i = 0; i < words.length; i++) words[i]! ^= tweaks[i]!
  })
}

/**
 * AES-CBC, begun anew with each sector.
 *
 * @param essiv enciphers the sector's number to give the initialisation vector; without it, the number is the vector
 */
export function cbcCipher(
  data: BlockCipher,
  generator: IvGenerator,
  essiv: BlockCipher | undefined,
): SectorCipher {
  const before = new Uint32Array(BATCH_SECTORS * SECTOR_WORDS)
  return inBatches((bytes, words, firstSector) => {
    const ivs = sectorNumbers(firstSector, words.length / SECTOR_WORDS, generator)
    essiv?.encrypt(bytesOf(ivs))
    before.set(words)
    data.decrypt(bytes)
    for (let i = 0; i < words.length; i++) {
      const inSector = i % SECTOR_WORDS
      words[i]! ^=
        inSector < BLOCK_WORDS
          ? ivs[((i - inSector) / SECTOR_WORDS) * BLOCK_WORDS + inSector]!
          : before[i - BLOCK_WORDS]!
    }
  })
}

/** The same bytes twice. */
type DecipherBatch = (bytes: Uint8Array, words: Uint32Array, firstSector: number) => void

function inBatches(decipher: DecipherBatch): SectorCipher {
  return {
    async decipher(sectors, firstSector) {
      if (sectors.byteLength % SECTOR_BYTES !== 0) {
        throw new RangeError(`${sectors.byteLength} bytes are not whole sectors`)
      }
      // Words must be aligned; buffers that are not have to be copied.
      const aligned = sectors.byteOffset % 4 === 0 ? sectors : sectors.slice()
      for (let at = 0; at < aligned.byteLength; at += BATCH_SECTORS * SECTOR_BYTES) {
        const bytes = aligned.subarray(at, at + BATCH_SECTORS * SECTOR_BYTES)
        const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
        decipher(bytes, words, firstSector + at / SECTOR_BYTES)
      }
      if (aligned !== sectors) sectors.set(aligned)
    },
  }
}

/** One block for each sector: its number, little-endian. */
function sectorNumbers(first: number, count: number, generator: IvGenerator): Uint32Array {
  const blocks = new Uint32Array(count * BLOCK_WORDS)
  for (let i = 0; i < count; i++) {
    const sector = first + i
    blocks[i * BLOCK_WORDS] = sector % 2 ** 32
    if (generator === 'plain64') blocks[i * BLOCK_WORDS + 1] = Math.floor(sector / 2 ** 32)
  }
  return blocks
}

/** A sector's first block has the enciphered number for its tweak, each further one the one before times α. */
function spreadTweaks(first: Uint32Array, tweaks: Uint32Array): void {
  let to = 0
  for (let from = 0; from < first.length; from += BLOCK_WORDS) {
    let a = first[from]!
    let b = first[from + 1]!
    let c = first[from + 2]!
    let d = first[from + 3]!
    for (const end = to + SECTOR_WORDS; to < end; to += BLOCK_WORDS) {
      tweaks[to] = a
      tweaks[to + 1] = b
      tweaks[to + 2] = c
      tweaks[to + 3] = d
      const carry = d >>> 31
      d = (d << 1) | (c >>> 31)
      c = (c << 1) | (b >>> 31)
      b = (b << 1) | (a >>> 31)
      a = (a << 1) ^ (carry * 0x87)
    }
  }
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}
