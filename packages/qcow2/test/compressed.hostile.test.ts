// Compressed clusters that swell, are cut, or share their place.
import { deflateRawSync, constants as zlib } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { type Codecs, type ImageStorage, libraryCodecs, memoryStorage, Qcow2Error } from '../src/index.js'
import { nodeCodecs } from '../src/node/index.js'
import { COMPRESSED, COPIED, dataImage } from './data-image.js'
import { CLUSTER, diskOf, extents, field, header, KiB, MiB, read, within, words } from './hostile.js'
import { type SparseStorage, sparseStorage } from './sparse.js'

describe.each<[string, Codecs]>([
  ['node', nodeCodecs],
  ['library', libraryCodecs],
])('streams that swell, with the codecs of %s', (_, codecs) => {
  /** A cluster of 2 MiB, of the most sectors that a descriptor can name. */
  const swelling = (stream: Uint8Array, compressionType: number): SparseStorage => {
    const cluster = 2 * MiB
    const fields = { [field.size]: BigInt(cluster), [field.l1Size]: 1, [field.l1Offset]: BigInt(2 * cluster) }
    const entry = COMPRESSED | (8191n << 49n) | BigInt(4 * cluster)
    return sparseStorage(8 * cluster, [
      [0, header({ clusterBits: 21, compressionType }, fields)],
      [2 * cluster, words(COPIED | BigInt(3 * cluster))],
      [3 * cluster, words(entry)],
      [4 * cluster, stream],
    ])
  }

  it('deflate, 4 MiB to 4 GiB: the cluster, and no more', async () => {
    // Ends at a byte, and is not the last block: any number of them makes a stream.
    const block = deflateRawSync(new Uint8Array(16 * MiB), { finishFlush: zlib.Z_FULL_FLUSH })
    const stream = new Uint8Array(4 * MiB)
    for (let at = 0; at + block.length <= stream.length; at += block.length) stream.set(block, at)
    const disk = await diskOf(swelling(stream, 0), { codecs })
    const bytes = await within(3, 64, () => read(disk))
    expect(bytes.every(byte => byte === 0)).toBe(true)
  })

  const MAGIC = [0x28, 0xb5, 0x2f, 0xfd]
  const frames: [string, () => Uint8Array][] = [
    [
      'blocks of one byte, 128 KiB each, to 128 GiB',
      () => {
        const stream = new Uint8Array(4 * MiB)
        // A window of 128 KiB; no size of the content.
        stream.set([...MAGIC, 0, 7 << 3])
        const block = ((128 * KiB) << 3) | 2
        for (let at = 6; at + 4 <= stream.length; at += 4) {
          stream.set([block & 0xff, (block >> 8) & 0xff, block >> 16, 0], at)
        }
        return stream
      },
    ],
    ['a content of 2^60 bytes', () => Uint8Array.from([...MAGIC, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 3, 0, 0])],
    ['a window of 2 TiB', () => Uint8Array.from([...MAGIC, 0, 0xf8, 3, 0, 0])],
    [
      'a million empty frames',
      () => {
        const stream = new Uint8Array(4 * MiB)
        const frame = [...MAGIC, 0x20, 0, 1, 0, 0]
        for (let at = 0; at + frame.length <= stream.length; at += frame.length) stream.set(frame, at)
        return stream
      },
    ],
  ]
  it.each(frames)('zstd: %s', async (_, stream) => {
    const disk = await diskOf(swelling(stream(), 1), { codecs })
    await within(3, 64, () => expect(read(disk)).rejects.toMatchObject({ code: 'decompress-failed' }))
  })
})

describe('compressed clusters', () => {
  const plain = Uint8Array.from({ length: CLUSTER }, (_, i) => (i * i) >> 9)
  const stream = deflateRawSync(plain, { windowBits: 12 })
  const sectors = Math.ceil(stream.length / 512)
  /** The stream begins the third cluster behind the metadata, which is the file's last. */
  const image = (entries: (place: number, end: number) => bigint[]) => {
    const l2 = Array<bigint>(entries(0, 0).length).fill(0n)
    const built = dataImage({ virtualSize: l2.length * CLUSTER, l2: [...l2, new Uint8Array(CLUSTER)] })
    const place = built.clusters[0]!
    const bytes = built.bytes.slice(0, place + stream.length)
    bytes.set(stream, place)
    bytes.set(words(...entries(place, bytes.length), 0n), built.l2)
    return bytes
  }
  const descriptor = (place: number, count: number) => COMPRESSED | (BigInt(count - 1) << 54n) | BigInt(place)

  it('two at one place, the first of which is cut by its number of sectors', async () => {
    const disk = await diskOf(image(at => [descriptor(at, 1), descriptor(at, sectors)]))
    await expect(read(disk, 0, 1)).rejects.toMatchObject({
      code: 'decompress-failed',
      details: { guestOffset: 0 },
    })
    expect(await read(disk, CLUSTER)).toEqual(plain)
    await expect(read(disk)).rejects.toMatchObject({ code: 'decompress-failed' })
    expect(await read(disk, CLUSTER)).toEqual(plain)
  })

  it('a read that failed is tried again', async () => {
    const bytes = image(at => [descriptor(at, sectors)])
    const inner = memoryStorage(bytes)
    let fail = false
    const storage: ImageStorage = {
      ...inner,
      async readInto(target, offset, options) {
        if (fail) throw new Qcow2Error('read-failed', 'unplugged')
        await inner.readInto(target, offset, options)
      },
    }
    const disk = await diskOf(storage)
    await extents(disk)
    fail = true
    await expect(read(disk)).rejects.toThrow('unplugged')
    fail = false
    expect(await read(disk)).toEqual(plain)
  })

  it('over the end of the file: what there is of the stream, if it ends', async () => {
    const most = 2 ** 8
    const disk = await diskOf(
      image((at, end) => [descriptor(at, most), descriptor(end - 1, 1), descriptor(end - 1, most)]),
    )
    expect(await read(disk, 0, CLUSTER)).toEqual(plain)
    for (const cluster of [1, 2]) {
      await expect(read(disk, cluster * CLUSTER, 1)).rejects.toMatchObject({ code: 'decompress-failed' })
    }
    // The map has no quarrel with it: it costs no data.
    expect((await extents(disk)).map(({ length }) => length)).toEqual([3 * CLUSTER])
    const beyond = await diskOf(image((_, end) => [descriptor(end, 1)]))
    await expect(read(beyond, 0, 1)).rejects.toMatchObject({ code: 'corrupt-image' })
  })
})
