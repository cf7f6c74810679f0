// Longer than most: both sets of codecs go through the same cases.
// One suite for both codecs: the platform's own (Node's zlib, OpenSSL) is the library's oracle, and the other way round.
import { createCipheriv, createHash, pbkdf2Sync } from 'node:crypto'
import { constants, deflateRawSync } from 'node:zlib'
import { Random } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import type { Codecs } from '../src/data/codecs.js'
import { libraryCodecs } from '../src/data/library-codecs.js'
import { cbcCipher, xtsCipher } from '../src/data/sector-cipher.js'
import { nodeCodecs } from '../src/node/codecs.js'

const implementations: [string, Codecs][] = [
  ['library', libraryCodecs],
  ['node', nodeCodecs],
]
const KiB = 1024
const MiB = 1024 * KiB

const random = new Random('codecs')
const samples: Readonly<Record<string, Uint8Array>> = {
  zeros: new Uint8Array(64 * KiB),
  incompressible: random.bytes(64 * KiB),
  text: text(64 * KiB),
  'one sector': text(512),
  'a large cluster': text(2 * MiB),
}

function text(bytes: number): Uint8Array {
  const words = Array.from({ length: 300 }, () => String(random.int(0, 10 ** random.int(1, 9))))
  let all = ''
  while (all.length < bytes) all += `${random.pick(words)} `
  return new TextEncoder().encode(all).slice(0, bytes)
}

const joined = (...parts: (Uint8Array | readonly number[])[]) =>
  new Uint8Array(Buffer.concat(parts.map(part => Uint8Array.from(part))))

/** What came of it, comparable: the bytes' digest, or that it was refused. */
async function outcome(made: Promise<Uint8Array>): Promise<string> {
  try {
    const bytes = await made
    return `${bytes.byteLength} bytes ${createHash('sha256').update(bytes).digest('hex')}`
  } catch (error) {
    expect(error).toBeInstanceOf(Error)
    return 'refused'
  }
}
const given = (bytes: Uint8Array) => outcome(Promise.resolve(bytes))

describe.each(implementations)('inflateRaw of %s', (_, { inflateRaw }) => {
  it.each(Object.entries(samples))('gives back what zlib deflated: %s', async (_, data) => {
    for (const windowBits of [9, 12, 15]) {
      for (const level of [0, 1, 9]) {
        const stream = deflateRawSync(data, { windowBits, level })
        expect(await outcome(inflateRaw(stream, data.byteLength))).toBe(await given(data))
        const trailing = joined(stream, random.bytes(511))
        expect(await outcome(inflateRaw(trailing, data.byteLength))).toBe(await given(data))
      }
    }
  })

  it('gives the first bytes of a stream that is longer', async () => {
    const stream = deflateRawSync(samples.text!)
    for (const size of [1, 63, 64, 65, 512, 65535]) {
      expect(await outcome(inflateRaw(stream, size))).toBe(await given(samples.text!.subarray(0, size)))
    }
  })

  it('refuses a stream that is shorter', async () => {
    const stream = deflateRawSync(samples.text!)
    await expect(inflateRaw(stream, 64 * KiB + 1)).rejects.toThrow(`inflate: ${64 * KiB} of ${64 * KiB + 1}`)
    await expect(inflateRaw(joined(stream, new Uint8Array(99)), MiB)).rejects.toThrow('inflate: 65536 of')
    await expect(inflateRaw(deflateRawSync(new Uint8Array()), 1)).rejects.toThrow('inflate: 0 of 1')
    await expect(inflateRaw(new Uint8Array(), 1)).rejects.toThrow('inflate')
  })

  it('refuses a stream cut anywhere, unless all was there before', async () => {
    const data = samples.text!.subarray(0, 2048)
    const stream = deflateRawSync(data, { windowBits: 12 })
    let whole = 0
    for (let length = 0; length < stream.byteLength; length++) {
      const got = await outcome(inflateRaw(stream.subarray(0, length), data.byteLength))
      if (got === 'refused') expect(whole).toBe(0)
      else whole++
      expect(['refused', await given(data)]).toContain(got)
    }
    // The end-of-block code alone is in the last bytes.
    expect(whole).toBeLessThanOrEqual(2)
  })

  it('refuses what zlib calls broken', async () => {
    const stored = [1, 3, 0, 0xfc, 0xff, 7, 8, 9]
    expect(await inflateRaw(Uint8Array.from(stored), 3)).toEqual(
      expect.objectContaining({ 0: 7, 1: 8, 2: 9 }),
    )
    const broken: Record<string, number[]> = {
      'a stored length that its complement denies': [1, 3, 0, 0, 0, 7, 8, 9],
      'a reserved block type': [7, 0, 0, 0],
      // Fixed codes; the length 3 at distance 1 with nothing before it.
      'a distance into nothing': [0x03, 0x02, 0, 0],
      // Dynamic codes with all code lengths of 1 bit: oversubscribed.
      'an oversubscribed code': [0xed, 0xff, 0x93, 0x24, 0x49, 0x92, 0x24, 0x49, 0x92, 0x24],
    }
    for (const [name, bytes] of Object.entries(broken)) {
      expect([name, await outcome(inflateRaw(Uint8Array.from(bytes), 3))]).toEqual([name, 'refused'])
    }
  })

  it('makes no more of a bomb than is asked for', async () => {
    // A mebibyte in a kilobyte, 8,000 times: all of it takes ten seconds, what is asked for 1 ms.
    const piece = deflateRawSync(new Uint8Array(MiB), { level: 9, finishFlush: constants.Z_FULL_FLUSH })
    const bomb = joined(...Array.from({ length: 8000 }, () => piece))
    expect(bomb.byteLength).toBeLessThan(10 * MiB)
    const started = performance.now()
    const bytes = await inflateRaw(bomb, 64 * KiB)
    expect(bytes.byteLength).toBe(64 * KiB)
    expect(bytes.buffer.byteLength).toBeLessThanOrEqual(64 * KiB)
    expect(performance.now() - started).toBeLessThan(3000)
  })
})

describe('inflateRaw', () => {
  it('takes and refuses the same streams in both', async () => {
    const stream = deflateRawSync(samples.text!.subarray(0, 4096), { windowBits: 12 })
    const accepted = new Set<string>()
    for (let i = 0; i < 1500; i++) {
      const mutant = i % 3 === 0 ? random.bytes(random.int(0, 200)) : Uint8Array.from(stream, byte => byte)
      if (i % 3 > 0)
        for (let n = 0; n < i % 3; n++) mutant[random.int(0, mutant.length - 1)] = random.int(0, 255)
      const size = random.pick([64, 512, 4096])
      const [a, b] = await Promise.all(
        implementations.map(([, codecs]) => outcome(codecs.inflateRaw(mutant, size))),
      )
      expect({ i, outcome: a }).toEqual({ i, outcome: b })
      accepted.add(a!)
    }
    expect(accepted).toContain('refused')
    expect(accepted.size).toBeGreaterThan(50)
  })
})

// Frames made by hand (RFC 8878, section 3.1.1).
const le = (value: number, bytes: number) =>
  Array.from({ length: bytes }, (_, i) => Math.floor(value / 256 ** i) % 256)
const block = (type: number, size: number, body: ArrayLike<number>, last = true) => [
  ...le(size * 8 + type * 2 + Number(last), 3),
  ...Array.from(body),
]
const raw = (data: Uint8Array, last = true) => block(0, data.byteLength, data, last)
const repeated = (byte: number, times: number, last = true) => block(1, times, [byte], last)
const magic = [0x28, 0xb5, 0x2f, 0xfd]
/** A frame that tells its content's size in 8 bytes (`size`), its window by exponent and mantissa. */
const frame = (
  blocks: readonly number[],
  {
    size,
    window = 0x40,
    flags = 0,
    dictionary = [],
  }: { size?: number; window?: number; flags?: number; dictionary?: number[] } = {},
) =>
  joined(
    magic,
    [(size === undefined ? 0 : 0xc0) | flags, window],
    dictionary,
    size === undefined ? [] : le(size, 8),
    blocks,
  )
const skippable = (bytes: number) => joined([0x53, 0x2a, 0x4d, 0x18], le(bytes, 4), random.bytes(bytes))

const small = random.bytes(1000)
/** `printf 'tidemark %.0s' $(seq 1 60) | zstd --check -c | base64`: a compressed block and its checksum. */
const peerFrame = new Uint8Array(Buffer.from('KLUv/QRYhQAASHRpZGVtYXJrIAEAEFiVI5ClNhQ=', 'base64'))
const peerContent = new TextEncoder().encode('tidemark '.repeat(60))

describe.each(implementations)('zstd of %s', (_, { zstd }) => {
  it('decodes a frame of the zstd command, and looks at its checksum', async () => {
    expect(await outcome(zstd(peerFrame, 540))).toBe(await given(peerContent))
    const wrong = peerFrame.slice()
    wrong[wrong.length - 1]! ^= 1
    await expect(zstd(wrong, 540)).rejects.toThrow('zstd')
  })

  it.each([
    ['raw block', frame(raw(small))],
    ['that tells its size', frame(raw(small), { size: 1000 })],
    ['of a single segment, size in 2 bytes', joined(magic, [0x60], le(1000 - 256, 2), raw(small))],
    ['two blocks', frame([...raw(small.subarray(0, 300), false), ...raw(small.subarray(300))])],
    ['an empty last block', frame([...raw(small, false), ...raw(new Uint8Array())])],
    [
      'two frames',
      joined(frame(raw(small.subarray(0, 300))), frame(raw(small.subarray(300)), { size: 700 })),
    ],
    ['an empty frame first', joined(frame(raw(new Uint8Array())), frame(raw(small)))],
    [
      'an empty frame that says so first',
      joined(frame(raw(new Uint8Array()), { size: 0 }), frame(raw(small))),
    ],
    ['a skippable frame first', joined(skippable(77), frame(raw(small)))],
    ['a dictionary of number 0', frame(raw(small), { flags: 1, dictionary: [0] })],
    ['a window of 2^27', frame(raw(small), { window: 17 << 3 })],
    [
      'a window of 2^30, which nobody needs for a known size',
      frame(raw(small), { window: 20 << 3, size: 1000 }),
    ],
  ])('%s', async (_, input) => {
    expect(await outcome(zstd(input, 1000))).toBe(await given(small))
    expect(await outcome(zstd(joined(input, random.bytes(300)), 1000))).toBe(await given(small))
    expect(await outcome(zstd(joined(input, input), 1000))).toBe(await given(small))
    for (let length = 0; length < input.byteLength; length++) {
      expect([length, await outcome(zstd(input.subarray(0, length), 1000))]).toEqual([length, 'refused'])
    }
    expect(await outcome(zstd(input, 999))).toBe('refused')
    expect(await outcome(zstd(joined(input, [0, 0, 0, 0, 0]), 1001))).toBe('refused')
  })

  it.each([
    ['nothing', new Uint8Array()],
    ['another magic number', joined([0x27], frame(raw(small)).subarray(1))],
    ['more than it says', frame(raw(small), { size: 999 })],
    ['less than it says, with room', joined(frame(raw(small.subarray(1)), { size: 1000 }))],
    ['more than belongs', frame(raw(joined(small, [1])))],
    ['a claim of 2^60 bytes', frame(raw(small), { size: 2 ** 60 })],
    ['a window of 2^27 + 2^24', frame(raw(small), { window: (17 << 3) | 1 })],
    ['a window of 2^41', frame(raw(small), { window: 31 << 3 })],
    ['a window of 2^41 and a size', frame(raw(small), { window: 31 << 3, size: 1000 })],
    ['a dictionary', frame(raw(small), { flags: 1, dictionary: [9] })],
    ['a reserved bit', frame(raw(small), { flags: 8 })],
    ['a reserved block type', frame(block(3, 1000, small))],
    ['a compressed block of garbage', frame(block(2, 1000, small))],
    // A decoder that gives nothing for what it cannot decode must not pass for an empty frame.
    ['a broken frame before a good one', joined(frame(block(2, 9, small.subarray(0, 9))), frame(raw(small)))],
    [
      '300 empty frames',
      joined(...Array.from({ length: 300 }, () => frame(raw(new Uint8Array()))), frame(raw(small))),
    ],
  ])('refuses %s', async (_, input) => {
    await expect(zstd(input, 1000)).rejects.toThrow(/^zstd: /)
  })

  it('makes no more of a bomb than is asked for', async () => {
    // 400,000 blocks of 128 KiB of zeros: 52 GB in 1.6 MB.
    const bomb = frame(
      Array.from({ length: 400_000 }, (_, i) => repeated(0, 128 * KiB, i === 399_999)).flat(),
    )
    const started = performance.now()
    await expect(zstd(bomb, 64 * KiB)).rejects.toThrow('zstd')
    expect(performance.now() - started).toBeLessThan(3000)
    // Few enough of them fit.
    const fits = frame([...repeated(7, 128 * KiB, false), ...repeated(7, 128 * KiB)])
    expect(await outcome(zstd(fits, 256 * KiB))).toBe(await given(new Uint8Array(256 * KiB).fill(7)))
  })

  it('refuses or decodes what is changed at random, and never hangs', async () => {
    for (let i = 0; i < 1500; i++) {
      const mutant = i % 4 === 0 ? joined(magic, random.bytes(random.int(0, 100))) : peerFrame.slice()
      if (i % 4 > 0)
        for (let n = 0; n < i % 4; n++) mutant[random.int(4, mutant.length - 1)] = random.int(0, 255)
      const size = random.pick([1, 540, 64 * KiB])
      expect(await outcome(zstd(mutant, size))).toMatch(new RegExp(`^(${size} bytes .*|refused)$`))
    }
  })
})

describe.each(implementations)('hashes of %s', (_, codecs) => {
  it.each(['sha1', 'sha256', 'sha384', 'sha512'] as const)('%s', async hash => {
    const data = random.bytes(1000)
    expect(Buffer.from(await codecs.digest(hash, data))).toEqual(createHash(hash).update(data).digest())
    for (const passphrase of [new Uint8Array(), random.bytes(7), random.bytes(300)]) {
      const key = await codecs.pbkdf2(hash, passphrase, data.subarray(0, 32), 1234, 64)
      expect(Buffer.from(key)).toEqual(pbkdf2Sync(passphrase, data.subarray(0, 32), 1234, 64, hash))
    }
  })
  it('knows the vectors of RFC 6070 and FIPS 180', async () => {
    const ascii = (words: string) => new TextEncoder().encode(words)
    const key = await codecs.pbkdf2('sha1', ascii('password'), ascii('salt'), 4096, 20)
    expect(Buffer.from(key).toString('hex')).toBe('4b007901b765489abead49d926f721d065a429c1')
    expect(Buffer.from(await codecs.digest('sha256', ascii('abc'))).toString('hex')).toMatch(
      /^ba7816bf8f01cfea/,
    )
  })
})

/** What a cipher of OpenSSL makes of each sector: the oracle enciphers, what is tested deciphers. */
function encipher(
  algorithm: string,
  key: Uint8Array,
  data: Uint8Array,
  iv: (sector: number) => Uint8Array,
): Uint8Array {
  const out = new Uint8Array(data.byteLength)
  for (let at = 0; at < data.byteLength; at += 512) {
    const cipher = createCipheriv(algorithm, key, iv(at / 512)).setAutoPadding(false)
    out.set(cipher.update(data.subarray(at, at + 512)), at)
  }
  return out
}
const numbered = (sector: number) => Uint8Array.from([...le(sector, 8), ...new Uint8Array(8)])
const unhex = (digits: string) => new Uint8Array(Buffer.from(digits, 'hex'))

describe.each(implementations)('disk ciphers over AES of %s', (_, codecs) => {
  const xts = async (key: Uint8Array, generator: 'plain' | 'plain64' = 'plain64') => {
    const half = key.byteLength / 2
    return xtsCipher(await codecs.aes(key.subarray(0, half)), await codecs.aes(key.subarray(half)), generator)
  }

  it.each([
    [
      // Vector 4 of IEEE 1619-2007, annex B: its first 32 bytes of 512.
      '2718281828459045235360287471352631415926535897932384626433832795',
      0,
      '27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c',
      'aes-128-xts',
    ],
    [
      // Vector 10.
      '27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592',
      255,
      '1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b',
      'aes-256-xts',
    ],
  ])('XTS has the vectors of IEEE 1619: %#', async (key, sector, start, algorithm) => {
    const plain = Uint8Array.from({ length: 512 }, (_, i) => i)
    const sectors = encipher(algorithm, unhex(key), plain, () => numbered(sector))
    expect(Buffer.from(sectors.subarray(0, 32)).toString('hex')).toBe(start)
    await (await xts(unhex(key))).decipher(sectors, sector)
    expect(sectors).toEqual(plain)
  })

  // One sector; a batch of 128 and its neighbours; numbers of more than 32 bits.
  const cases = [1, 127, 128, 129, 300].flatMap(count =>
    [0, 5, 2 ** 32 - 100, 2 ** 40 + 3].map(first => [count, first] as const),
  )
  it.each([32, 64])('XTS as OpenSSL’s, keys of %i bytes', async bytes => {
    const key = random.bytes(bytes)
    const cipher = await xts(key)
    const cut = await xts(key, 'plain')
    for (const [count, first] of cases) {
      const plain = random.bytes(count * 512)
      const secret = encipher(`aes-${bytes * 4}-xts`, key, plain, i => numbered(first + i))
      await cipher.decipher(secret, first)
      expect(Buffer.compare(secret, plain)).toBe(0)
      const secret32 = encipher(`aes-${bytes * 4}-xts`, key, plain, i => numbered((first + i) % 2 ** 32))
      await cut.decipher(secret32, first)
      expect(Buffer.compare(secret32, plain)).toBe(0)
    }
  })

  it.each([16, 24, 32])('CBC as OpenSSL’s, keys of %i bytes', async bytes => {
    const key = random.bytes(bytes)
    const salt = createHash('sha256').update(key).digest()
    const essivIv = (sector: number) =>
      createCipheriv('aes-256-ecb', salt, null).setAutoPadding(false).update(numbered(sector))
    const plainCipher = cbcCipher(await codecs.aes(key), 'plain64', undefined)
    const essivCipher = cbcCipher(await codecs.aes(key), 'plain64', await codecs.aes(salt))
    for (const [count, first] of cases) {
      const plain = random.bytes(count * 512)
      const secret = encipher(`aes-${bytes * 8}-cbc`, key, plain, i => numbered(first + i))
      await plainCipher.decipher(secret, first)
      expect(Buffer.compare(secret, plain)).toBe(0)
      const essiv = encipher(`aes-${bytes * 8}-cbc`, key, plain, i => essivIv(first + i))
      await essivCipher.decipher(essiv, first)
      expect(Buffer.compare(essiv, plain)).toBe(0)
    }
  })

  it('takes a buffer that is not aligned, keeps its neighbours and its own copy of the key', async () => {
    const key = random.bytes(64)
    const plain = random.bytes(1024)
    const secret = encipher('aes-256-xts', key, plain, i => numbered(9 + i))
    const cipher = await xts(key)
    key.fill(0)
    const around = new Uint8Array(1024 + 8).fill(0xee)
    around.set(secret, 3)
    await cipher.decipher(around.subarray(3, 3 + 1024), 9)
    expect(Buffer.compare(around.subarray(3, 3 + 1024), plain)).toBe(0)
    expect([...around.subarray(0, 3), ...around.subarray(1027)]).toEqual(new Array(8).fill(0xee))
    await expect(cipher.decipher(new Uint8Array(513), 0)).rejects.toThrow(RangeError)
  })

  it('encrypts and decrypts blocks', async () => {
    // FIPS 197, appendix C.1.
    const aes = await codecs.aes(unhex('000102030405060708090a0b0c0d0e0f'))
    const blocks = unhex('00112233445566778899aabbccddeeff'.repeat(2))
    aes.encrypt(blocks)
    expect(Buffer.from(blocks).toString('hex')).toBe('69c4e0d86a7b0430d8cdb78070b4c55a'.repeat(2))
    aes.decrypt(blocks)
    expect(Buffer.from(blocks).toString('hex')).toBe('00112233445566778899aabbccddeeff'.repeat(2))
    await expect(
      codecs.aes(new Uint8Array(15)).then(bad => bad.encrypt(new Uint8Array(16))),
    ).rejects.toThrow()
  })
})
