// LUKS images that the real qemu-img made: their data deciphered, their headers described, and refused where QEMU refuses.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { derivingKeys, needs, qemuImg, Random, run, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Codecs } from '../src/data/codecs.js'
import { libraryCodecs } from '../src/data/library-codecs.js'
import { readLuksHeader, unlockLuks } from '../src/data/luks.js'
import { describeLuks, parseLuksHeader } from '../src/data/luks-header.js'
import { inspectImage, memoryStorage, Qcow2Error } from '../src/index.js'
import { nodeCodecs } from '../src/node/codecs.js'

const peers = needs('qemu-img', 'qemu-io')
const dir = tempDir()
afterAll(() => dir.remove())

const CLUSTER = 64 * 1024
const random = new Random('luks')
const ascii = (text: string) => new TextEncoder().encode(text)
const secret = (id: string, data: string) => ['--object', `secret,id=${id},data=${data}`]
const opened = (file: string) => `driver=qcow2,file.filename=${file},encrypt.key-secret=s`

/** A LUKS image with these bytes in it. PBKDF2 for 10 ms: the least that QEMU does. */
async function luksImage(
  name: string,
  data: Uint8Array,
  { passphrase = 'first', options = [] as string[] } = {},
): Promise<string> {
  const [raw, file] = [dir.file('plain.raw'), dir.file(`${name}.qcow2`)]
  writeFileSync(raw, data)
  const settings = ['encrypt.format=luks', 'encrypt.key-secret=s', 'encrypt.iter-time=10', ...options]
  const to = ['-O', 'qcow2', '-o', settings.join(',')]
  const args = ['convert', ...secret('s', passphrase), '-f', 'raw', ...to, raw, file]
  await derivingKeys(() => run('qemu-img', args))
  return file
}

/** All guest data of an image whose clusters are all data: L1 and L2 as simple as they can be. */
async function guestData(bytes: Uint8Array, passphrase: string, codecs: Codecs): Promise<Uint8Array> {
  const storage = memoryStorage(bytes)
  const image = await inspectImage(storage)
  const cipher = await unlockLuks(storage, image, ascii(passphrase), codecs)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const entry = (at: number) => Number(view.getBigUint64(at) & 0x00ff_ffff_ffff_fe00n)
  const data = new Uint8Array(image.virtualSize)
  for (let at = 0; at < data.byteLength; at += CLUSTER) {
    const index = at / CLUSTER
    const l2 = entry(image.header.l1TableOffset + Math.floor(index / 8192) * 8)
    const host = entry(l2 + (index % 8192) * 8)
    const cluster = bytes.slice(host, host + Math.min(CLUSTER, data.byteLength - at))
    await cipher.decipher(cluster, host / 512)
    data.set(cluster, at)
  }
  return data
}

async function unlock(bytes: Uint8Array, passphrase: string, signal?: AbortSignal): Promise<unknown> {
  const storage = memoryStorage(bytes)
  const image = await inspectImage(storage)
  return unlockLuks(storage, image, ascii(passphrase), nodeCodecs, { signal })
}

const describedByQemu = async (file: string): Promise<unknown> =>
  (await qemuImg.info(file))['format-specific']!.data.encrypt

async function described(file: string): Promise<unknown> {
  const storage = memoryStorage(readFileSync(file))
  return describeLuks(await readLuksHeader(storage, await inspectImage(storage)))
}

describe.skipIf(peers.skip)(`LUKS images of qemu-img${peers.label}`, () => {
  const data = random.bytes(5 * CLUSTER + 1536)

  it.each([
    ['default', []],
    ['aes-128, SHA-1', ['encrypt.cipher-alg=aes-128', 'encrypt.hash-alg=sha1']],
    ['plain, SHA-512', ['encrypt.ivgen-alg=plain', 'encrypt.hash-alg=sha512']],
    ['CBC plain64, SHA-384', ['encrypt.cipher-mode=cbc', 'encrypt.hash-alg=sha384']],
    [
      'CBC essiv',
      [
        'encrypt.cipher-alg=aes-128',
        'encrypt.cipher-mode=cbc',
        'encrypt.ivgen-alg=essiv',
        'encrypt.ivgen-hash-alg=sha256',
      ],
    ],
  ])('are deciphered and described: %s', async (name, options) => {
    const file = await luksImage(name.replaceAll(/\W/g, ''), data, { options })
    for (const codecs of [nodeCodecs, libraryCodecs]) {
      const got = await guestData(readFileSync(file), 'first', codecs)
      expect(Buffer.compare(got, data)).toBe(0)
    }
    expect(await described(file)).toEqual(await describedByQemu(file))
    await expect(unlock(readFileSync(file), 'First')).rejects.toMatchObject({ code: 'passphrase-wrong' })
  })

  it('are deciphered as qemu-io wrote into them, sector by sector', async () => {
    const file = await luksImage('io', data)
    const expected = data.slice()
    const commands: string[] = []
    for (let i = 0; i < 20; i++) {
      const first = random.int(0, data.byteLength / 512 - 1)
      const count = random.int(1, Math.min(30, data.byteLength / 512 - first))
      const pattern = random.int(0, 255)
      commands.push('-c', `write -q -P ${pattern} ${first * 512} ${count * 512}`)
      expected.fill(pattern, first * 512, (first + count) * 512)
    }
    await run('qemu-io', [...secret('s', 'first'), ...commands, '--image-opts', opened(file)])
    expect(Buffer.compare(await guestData(readFileSync(file), 'first', nodeCodecs), expected)).toBe(0)
  })

  it('are opened by the passphrase of any slot, and not by one that was taken away', async () => {
    const file = await luksImage('slots', data)
    const amend = async (objects: string[], options: string) =>
      derivingKeys(() =>
        run('qemu-img', [
          ...['amend', ...secret('s', 'first'), ...objects],
          ...['--image-opts', opened(file), '-o', options],
        ]),
      )
    const add = 'encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10'
    await amend(secret('n', 'sécond'), add)
    await amend(secret('n', 'third'), `${add},encrypt.keyslot=7`)
    for (const passphrase of ['first', 'sécond', 'third']) {
      expect(Buffer.compare(await guestData(readFileSync(file), passphrase, nodeCodecs), data)).toBe(0)
    }
    expect(await described(file)).toEqual(await describedByQemu(file))
    await amend(secret('o', 'sécond'), 'encrypt.state=inactive,encrypt.old-secret=o')
    await expect(unlock(readFileSync(file), 'sécond')).rejects.toMatchObject({ code: 'passphrase-wrong' })
    expect(Buffer.compare(await guestData(readFileSync(file), 'third', nodeCodecs), data)).toBe(0)
    expect(await described(file)).toEqual(await describedByQemu(file))
  })

  describe('changed', () => {
    let sound: Uint8Array
    let header: number
    let extension: number
    beforeAll(async () => {
      const file = await luksImage('sound', data)
      // Another active slot: what is wrong with a slot that is not active is often no matter.
      const amend = [
        ...['amend', ...secret('s', 'first'), ...secret('n', 'second'), '--image-opts', opened(file)],
        ...['-o', 'encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10'],
      ]
      await derivingKeys(() => run('qemu-img', amend))
      sound = new Uint8Array(readFileSync(file))
      header = Buffer.from(sound).indexOf(Buffer.from('LUKS\xba\xbe', 'latin1'))
      extension = Buffer.from(sound).indexOf(Buffer.from('0537be77', 'hex'))
    })
    const changed = (at: number, bytes: ArrayLike<number>) => {
      const image = sound.slice()
      image.set(bytes, at)
      return image
    }
    const u32 = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value])
    const text = (value: string) => ascii(`${value}\0`)

    const slot = (i: number) => 208 + 48 * i
    /** Field, offset in the header, its bytes. */
    const mutations: [string, number, ArrayLike<number>][] = [
      ['magic', 0, text('LUCS').subarray(0, 4)],
      ['magic, last two', 4, [0, 0]],
      ['version 0', 6, [0, 0]],
      ['version 2', 6, [0, 2]],
      ['cipher-name without NUL', 8, ascii('a'.repeat(32))],
      ['cipher-name empty', 8, text('')],
      ['cipher-name foo', 8, text('foo')],
      ['cipher-name toString', 8, text('toString')],
      ['cipher-mode without NUL', 40, ascii('x'.repeat(32))],
      ['cipher-mode xts', 40, text('xts')],
      ['cipher-mode foo-plain64', 40, text('foo-plain64')],
      ['cipher-mode xts-foo', 40, text('xts-foo')],
      ['cipher-mode xts-plain64be', 40, text('xts-plain64be')],
      ['cipher-mode xts-essiv', 40, text('xts-essiv')],
      ['cipher-mode xts-essiv:foo', 40, text('xts-essiv:foo')],
      ['cipher-mode xts-plain64:sha1', 40, text('xts-plain64:sha1')],
      ['cipher-mode cbc-plain64, with a key for XTS', 40, text('cbc-plain64')],
      ['hash-spec without NUL', 72, ascii('s'.repeat(32))],
      ['hash-spec foo', 72, text('foo')],
      ['hash-spec SHA256', 72, text('SHA256')],
      ...[0, 7, 8, 4039, 4041].map(n => [`payload-offset ${n}`, 104, u32(n)] as [string, number, Buffer]),
      ...[0, 16, 24, 32, 33, 48, 63, 65, 2 ** 31, 2 ** 32 - 1].map(
        n => [`key-bytes ${n}`, 108, u32(n)] as [string, number, Buffer],
      ),
      ['mk-digest-iter 0', 164, u32(0)],
      ['uuid without NUL', 168, ascii('u'.repeat(40))],
      ...[0, 1, 3].flatMap(i => [
        ...[0, 1, 0x00ac71f2].map(
          n => [`slot ${i}: active ${n}`, slot(i), u32(n)] as [string, number, Buffer],
        ),
        [`slot ${i}: iterations 0`, slot(i) + 4, u32(0)] as [string, number, Buffer],
        ...[0, 7, 9, 8 + 504 * 2, 4000, 2 ** 31, 2 ** 32 - 1].map(
          n => [`slot ${i}: key-material-offset ${n}`, slot(i) + 40, u32(n)] as [string, number, Buffer],
        ),
        ...[0, 1, 3999, 4001, 2 ** 32 - 1].map(
          n => [`slot ${i}: stripes ${n}`, slot(i) + 44, u32(n)] as [string, number, Buffer],
        ),
      ]),
    ]
    /** Where we differ from QEMU 7.2 on purpose, and why. */
    const divergences: Readonly<Record<string, string>> = {
      'key-bytes 33': 'QEMU halves it for XTS and forgets the rest',
      'slot 0: key-material-offset 4294967295': 'past the payload; in QEMU the sum overflows',
      'slot 1: key-material-offset 4294967295': 'past the payload; in QEMU the sum overflows',
      'slot 3: key-material-offset 4294967295': 'past the payload; in QEMU the sum overflows',
    }

    /** What QEMU knows and we do not: what is written into cipher-name, cipher-mode, hash-spec, key-bytes. */
    it.each([
      ["cipher-name 'serpent'", { name: 'serpent' }],
      ["cipher-name 'twofish'", { name: 'twofish', keyBytes: 32 }],
      ["cipher-name 'cast5'", { name: 'cast5', mode: 'cbc-plain64', keyBytes: 16 }],
      ["cipher-mode 'ctr-plain64'", { mode: 'ctr-plain64', keyBytes: 32 }],
      ["cipher-mode 'ecb-plain'", { mode: 'ecb-plain', keyBytes: 16 }],
      ["cipher-mode 'xts-essiv:sha256'", { mode: 'xts-essiv:sha256' }],
      ["cipher-mode 'cbc-essiv:md5'", { mode: 'cbc-essiv:md5', keyBytes: 32 }],
      ["hash-spec 'md5'", { hash: 'md5' }],
      ["hash-spec 'sha224'", { hash: 'sha224' }],
      ["hash-spec 'ripemd160'", { hash: 'ripemd160' }],
      ['aes with keys of 192 bits', { keyBytes: 48 }],
      ['aes with keys of 192 bits', { mode: 'cbc-plain64', keyBytes: 24 }],
    ])('is described as QEMU does, but not opened: %s', async (what, fields) => {
      const {
        name = 'aes',
        mode = 'xts-plain64',
        hash = 'sha256',
        keyBytes = 64,
      } = fields as {
        name?: string
        mode?: string
        hash?: string
        keyBytes?: number
      }
      const image = sound.slice()
      image.set(text(name), header + 8)
      image.set(text(mode), header + 40)
      image.set(text(hash), header + 72)
      image.set(u32(keyBytes), header + 108)
      const file = dir.file('unsupported.qcow2')
      writeFileSync(file, image)
      expect(await described(file)).toEqual(await describedByQemu(file))
      await expect(unlock(image, 'first')).rejects.toMatchObject({
        code: 'unsupported-feature',
        message: `memory: LUKS ${what} is not supported`,
      })
    })

    it('has each field once, and no divergence without a case', () => {
      const names = mutations.map(([name]) => name)
      expect(new Set(names).size).toBe(names.length)
      expect(Object.keys(divergences).filter(name => !names.includes(name))).toEqual([])
    })

    it('is refused where QEMU refuses it, and described where QEMU describes it', async () => {
      const file = dir.file('changed.qcow2')
      for (const [name, at, bytes] of mutations) {
        const image = changed(header + at, bytes)
        writeFileSync(file, image)
        const theirs = await run('qemu-img', ['info', '--output=json', '-f', 'qcow2', file], {
          accept: 'any',
        })
        let ours: unknown
        try {
          ours = await described(file)
        } catch (error) {
          expect(error).toBeInstanceOf(Qcow2Error)
          expect((error as Qcow2Error).code).toMatch(/^(corrupt-image|unsupported-feature)$/)
        }
        const agreed = (ours !== undefined) === (theirs.status === 0)
        expect({ name, agreed, qemu: theirs.stderr.trim() }).toMatchObject({
          name,
          agreed: !(name in divergences),
        })
        if (ours !== undefined && !name.startsWith('uuid')) {
          expect(ours).toEqual(JSON.parse(theirs.stdout)['format-specific'].data.encrypt)
        }
      }
      rmSync(file)
    })

    it('tells where and what is wrong', async () => {
      await expect(unlock(changed(header + slot(1) + 44, u32(5)), 'first')).rejects.toMatchObject({
        code: 'corrupt-image',
        details: {
          structure: 'LUKS header',
          field: 'key slot 1, stripes',
          offset: header + slot(1) + 44,
          expected: '4000',
          found: '5',
        },
      })
    })

    it.each([
      ['salt', slot(0) + 8],
      ['iterations', slot(0) + 7],
      ['mk-digest', 112],
      ['mk-digest-salt', 132],
      ['mk-digest-iter', 167],
      ['key material', 4096],
      ['the last byte of key material', 4096 + 64 * 4000 - 1],
      ['hash-spec sha512', 72],
    ])('opens no more: %s', async (name, at) => {
      const byte = sound[header + at]! ^ 1
      const image = changed(header + at, name.startsWith('hash') ? text('sha512') : [byte])
      await expect(unlock(image, 'first')).rejects.toMatchObject({ code: 'passphrase-wrong' })
      // What belongs to one slot does not matter to the other.
      const other = unlock(image, 'second')
      if (at < slot(0)) await expect(other).rejects.toMatchObject({ code: 'passphrase-wrong' })
      else await other
    })

    it('is not opened by hours of work', async () => {
      for (const at of [164, slot(0) + 4, slot(1) + 4]) {
        const image = changed(header + at, u32(2 ** 31))
        const started = performance.now()
        await expect(unlock(image, 'first')).rejects.toMatchObject({
          code: 'unsupported-feature',
          message: expect.stringContaining('2147483648 iterations'),
        })
        expect(performance.now() - started).toBeLessThan(5000)
      }
    })

    it('has its area within the file', async () => {
      const u64 = (value: number) => [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)]
      const size = sound.byteLength
      for (const [at, value] of [
        [8, Math.ceil(size / CLUSTER) * CLUSTER],
        [8, 2 ** 40],
        [8, 2 ** 63],
        [16, 0],
        [16, 591],
        [16, size - header + 1],
        [16, 2 ** 63],
        // Not enough for slot 0's key material.
        [16, 100_000],
      ] as const) {
        await expect(unlock(changed(extension + at, u64(value)), 'first')).rejects.toMatchObject({
          code: 'corrupt-image',
        })
      }
      // Slot 1 has to be there only if it is asked; but both are active.
      await expect(unlock(changed(extension + 16, u64(300_000)), 'first')).rejects.toThrow('key slot 1')
      // Bytes of nothing at a cluster's begin: no LUKS header.
      await expect(unlock(changed(extension + 8, u64(CLUSTER)), 'first')).rejects.toThrow(
        'LUKS header, magic',
      )
    })

    it('is refused or described when bytes change at random', async () => {
      const bytes = sound.subarray(header, header + 592)
      let described = 0
      for (let i = 0; i < 5000; i++) {
        const mutant = bytes.slice(0, i % 50 === 0 ? random.int(0, 592) : 592)
        for (let n = random.int(1, 3); n > 0 && mutant.length > 0; n--) {
          mutant[random.int(0, mutant.length - 1)] = random.int(0, 255)
        }
        try {
          describeLuks(parseLuksHeader(mutant, 'mutant', header))
          described++
        } catch (error) {
          expect(error).toBeInstanceOf(Qcow2Error)
        }
      }
      expect(described).toBeGreaterThan(500)
      expect(described).toBeLessThan(4500)
    })

    it('says nothing of the passphrase, and ends when told', async () => {
      const error = await unlock(sound, 'a very secret one').catch((error: unknown) => error)
      expect(error).toBeInstanceOf(Qcow2Error)
      const words = `${(error as Error).stack} ${JSON.stringify((error as Qcow2Error).details)}`
      expect(words).not.toContain('very secret')
      const controller = new AbortController()
      const ended = unlock(sound, 'first', controller.signal)
      controller.abort(new Error('enough'))
      await expect(ended).rejects.toThrow('enough')
    })

    it('is a mistake to unlock what is not encrypted', async () => {
      await expect(unlock(changed(32, u32(0)), 'first')).rejects.toThrow(RangeError)
      await expect(unlock(changed(32, u32(1)), 'first')).rejects.toThrow(
        'AES-CBC, without LUKS is not supported',
      )
    })
  })
})
