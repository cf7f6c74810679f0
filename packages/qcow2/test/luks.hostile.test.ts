// LUKS headers that ask for too much work, or memory.
import { buildQcow2, extensionMagic, putU32, type Qcow2Spec } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import type { Codecs } from '../src/index.js'
import { nodeCodecs } from '../src/node/index.js'
import { dataImage } from './data-image.js'
import { CLUSTER, diskOf, extents, type Fields, read, within } from './hostile.js'

describe('LUKS headers', () => {
  /** One as QEMU writes it, but for what is changed: numbers of 32 bits by their offsets. */
  const image = (changes: Fields) => {
    const luks = new Uint8Array(592)
    const view = new DataView(luks.buffer)
    luks.set([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe, 0, 1])
    for (const [at, name] of [
      [8, 'aes'],
      [40, 'xts-plain64'],
      [72, 'sha256'],
    ] as const)
      luks.set(Buffer.from(name), at)
    view.setUint32(104, 4096)
    view.setUint32(108, 64)
    view.setUint32(164, 1000)
    for (let slot = 0; slot < 8; slot++) {
      const at = 208 + slot * 48
      view.setUint32(at, slot === 0 ? 0x00ac71f3 : 0xdead)
      view.setUint32(at + 4, slot === 0 ? 1000 : 0)
      view.setUint32(at + 40, 8 + slot * 504)
      view.setUint32(at + 44, 4000)
    }
    for (const [at, value] of Object.entries(changes)) putU32(luks, Number(at), Number(value))
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 4096 * 512 } }
    const { bytes } = dataImage({ ...spec, l2: [new Uint8Array(CLUSTER)] })
    const { layout } = buildQcow2(spec)
    const pointer = layout.extensions.find(({ magic }) => magic === extensionMagic.luks)!
    bytes.set(luks, Number(new DataView(bytes.buffer).getBigUint64(pointer.dataOffset)))
    return bytes
  }

  it.each<[string, Fields, string, number]>([
    ['sound', {}, 'passphrase-wrong', 2],
    ['2^32 − 1 iterations', { 212: 0xffffffff }, 'unsupported-feature', 0],
    ['2^32 − 1 iterations for the digest', { 164: 0xffffffff }, 'unsupported-feature', 0],
    ['2^32 − 1 iterations of a slot that is not active', { 260: 0xffffffff }, 'passphrase-wrong', 2],
    ['2^32 − 1 stripes', { 252: 0xffffffff }, 'corrupt-image', 0],
    ['keys of 2^32 − 1 bytes', { 108: 0xffffffff }, 'corrupt-image', 0],
    ['keys of 2^26 bytes, and room for them', { 108: 2 ** 26, 104: 0xffffffff }, 'corrupt-image', 0],
    ['key material behind the file', { 248: 0xfffff000, 104: 0xffffffff }, 'corrupt-image', 0],
    ['no active slot', { 208: 0xdead }, 'passphrase-wrong', 0],
    ['a slot neither active nor not', { 208: 1 }, 'corrupt-image', 0],
  ])('%s', async (_, changes, code, derivations) => {
    let derived = 0
    const codecs: Codecs = {
      ...nodeCodecs,
      pbkdf2(...args) {
        derived++
        return nodeCodecs.pbkdf2(...args)
      },
    }
    const disk = await diskOf(image(changes), { codecs, passphrase: async () => new Uint8Array([1]) })
    await within(3, 64, () => expect(read(disk)).rejects.toMatchObject({ code }))
    expect(derived).toBe(derivations)
    // The map needs no key.
    expect(await extents(disk)).toMatchObject([{ data: true, offset: undefined }])
  })
})
