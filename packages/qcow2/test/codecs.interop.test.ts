// Compressed clusters as QEMU writes them, and streams that it never writes, in an image: what QEMU reads, and what it refuses.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { constants, deflateRawSync } from 'node:zlib'
import { needs, qemuImg, Random, run, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import type { Codecs } from '../src/data/codecs.js'
import { libraryCodecs } from '../src/data/library-codecs.js'
import { inspectImage, memoryStorage } from '../src/index.js'
import { nodeCodecs } from '../src/node/codecs.js'

const peers = needs('qemu-img')
const dir = tempDir()
afterAll(() => dir.remove())

const KiB = 1024
const random = new Random('codecs interop')
type Compression = 'zlib' | 'zstd'
const implementations: Codecs[] = [nodeCodecs, libraryCodecs]
const decompress = (codecs: Codecs, type: Compression, input: Uint8Array, size: number) =>
  type === 'zstd' ? codecs.zstd(input, size) : codecs.inflateRaw(input, size)

/** Half noise, half words, so that clusters become smaller but not tiny. */
function compressible(bytes: number): Uint8Array {
  const data = new Uint8Array(bytes)
  for (let at = 0; at < bytes; at += 64) {
    data.set(random.bytes(random.int(0, 32)), at)
    data.fill(random.int(0, 255), at + 32, at + 64)
  }
  return data
}

/** Compressed clusters by the L2 entries of a small image (specification, "Compressed Clusters Descriptor"). */
async function compressedClusters(bytes: Uint8Array): Promise<Map<number, Uint8Array>> {
  const { header, clusterSize } = await inspectImage(memoryStorage(bytes))
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const clusters = new Map<number, Uint8Array>()
  const offsetBits = BigInt(62 - (header.clusterBits - 8))
  const entries = clusterSize / 8
  for (let l1 = 0; l1 < header.l1Size; l1++) {
    const l2 = Number(view.getBigUint64(header.l1TableOffset + l1 * 8) & 0x00ff_ffff_ffff_fe00n)
    for (let i = 0; l2 !== 0 && i < entries; i++) {
      const entry = view.getBigUint64(l2 + i * 8)
      if ((entry & (1n << 62n)) === 0n) continue
      const offset = Number(entry & ((1n << offsetBits) - 1n))
      const sectors = Number((entry & ((1n << 62n) - 1n)) >> offsetBits) + 1
      const end = offset - (offset % 512) + sectors * 512
      clusters.set((l1 * entries + i) * clusterSize, bytes.subarray(offset, end))
    }
  }
  return clusters
}

describe.skipIf(peers.skip)(`compressed clusters of qemu-img${peers.label}`, () => {
  it.each(
    (['zlib', 'zstd'] as const).flatMap(type =>
      [512, 4 * KiB, 64 * KiB, 2048 * KiB].map(clusterSize => [type, clusterSize] as const),
    ),
  )('%s, clusters of %i bytes', async (type, clusterSize) => {
    const data = compressible(Math.min(40 * clusterSize, 4096 * KiB))
    const [raw, file] = [dir.file('data.raw'), dir.file('data.qcow2')]
    writeFileSync(raw, data)
    const options = `cluster_size=${clusterSize},compression_type=${type}`
    await run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, raw, file])
    const clusters = await compressedClusters(new Uint8Array(readFileSync(file)))
    expect(clusters.size).toBe(data.byteLength / clusterSize)
    for (const [start, input] of clusters) {
      for (const codecs of implementations) {
        const got = await decompress(codecs, type, input, clusterSize)
        expect(Buffer.compare(got, data.subarray(start, start + clusterSize))).toBe(0)
      }
    }
  })
})

/** An image of one cluster that is this stream, compressed; and what qemu-img reads there. */
async function readByQemu(type: Compression, stream: Uint8Array): Promise<string> {
  const [file, out] = [dir.file('one.qcow2'), dir.file('one.raw')]
  await qemuImg.create(file, CLUSTER, { compressionType: type })
  const empty = new Uint8Array(readFileSync(file))
  const { header } = await inspectImage(memoryStorage(empty))
  // An L2 table and the stream behind all there is; reading looks at no refcounts.
  const l2 = Math.ceil(empty.byteLength / CLUSTER) * CLUSTER
  const sectors = Math.ceil(stream.byteLength / 512)
  const image = new Uint8Array(l2 + CLUSTER + sectors * 512)
  image.set(empty)
  image.set(stream, l2 + CLUSTER)
  const view = new DataView(image.buffer)
  view.setBigUint64(header.l1TableOffset, BigInt(l2) | (1n << 63n))
  view.setBigUint64(l2, (1n << 62n) | (BigInt(sectors - 1) << 54n) | BigInt(l2 + CLUSTER))
  writeFileSync(file, image)
  expect((await compressedClusters(image)).get(0)?.byteLength).toBe(sectors * 512)
  const { status } = await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', file, out], {
    accept: 'any',
  })
  return status === 0 ? readFileSync(out).toString('base64') : 'refused'
}

const CLUSTER = 64 * KiB
const zstdPeer = needs('zstd')

describe.skipIf(peers.skip)(`streams that QEMU never writes${peers.label}`, () => {
  const data = compressible(CLUSTER)
  const more = compressible(CLUSTER)
  const joined = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts))
  // The entry for a stream gives whole sectors: what is left of the last one reads as zeros in the image and here.
  const padded = (stream: Uint8Array) => joined(stream, new Uint8Array(-stream.byteLength & 511))

  async function same(type: Compression, stream: Uint8Array, expected: 'read' | 'refused' | 'either') {
    const theirs = await readByQemu(type, stream)
    for (const codecs of implementations) {
      const ours = await decompress(codecs, type, padded(stream), CLUSTER).then(
        bytes => Buffer.from(bytes).toString('base64'),
        () => 'refused',
      )
      expect(ours === theirs, `we: ${ours.slice(0, 20)}, QEMU: ${theirs.slice(0, 20)}`).toBe(true)
    }
    if (expected !== 'either') expect(theirs === 'refused' ? 'refused' : 'read').toBe(expected)
  }

  const deflated = deflateRawSync(data, { windowBits: 12 })
  it.each<[string, Uint8Array, 'read' | 'refused']>([
    ['a window of 15 bits', deflateRawSync(joined(data.subarray(0, 32768), data.subarray(0, 32768))), 'read'],
    ['stored', deflateRawSync(data, { level: 0 }), 'read'],
    ['garbage behind', joined(deflated, random.bytes(700)), 'read'],
    ['twice the data', deflateRawSync(joined(data, more)), 'read'],
    [
      'all data, then broken',
      joined(deflateRawSync(data, { finishFlush: constants.Z_SYNC_FLUSH }), new Uint8Array(9).fill(0xff)),
      'refused',
    ],
    ['all data, without an end', deflateRawSync(data, { finishFlush: constants.Z_SYNC_FLUSH }), 'refused'],
    ['one byte less', deflateRawSync(data.subarray(1)), 'refused'],
    ['cut in the middle', deflated.subarray(0, deflated.byteLength >> 1), 'refused'],
    ['nothing', new Uint8Array(512), 'refused'],
  ])('zlib: %s', async (_, stream, expected) => same('zlib', stream, expected))

  it('zlib: changed at random', async () => {
    for (let i = 0; i < 40; i++) {
      const mutant = new Uint8Array(deflated)
      mutant[random.int(0, mutant.length - 1)]! ^= 1 << random.int(0, 7)
      await same('zlib', mutant, 'either')
    }
  })

  describe.skipIf(zstdPeer.skip)(`zstd${zstdPeer.label}`, () => {
    const zstd = (input: Uint8Array, ...args: string[]) =>
      new Uint8Array(
        execFileSync('zstd', ['-q', '-c', ...args], { input, stdio: ['pipe', 'pipe', 'ignore'] }),
      )
    /** With its content's size in the header. */
    const sized = (input: Uint8Array, ...args: string[]) =>
      zstd(input, `--stream-size=${input.byteLength}`, ...args)
    const skippable = joined(Uint8Array.from([0x50, 0x2a, 0x4d, 0x18, 9, 0, 0, 0]), random.bytes(9))
    /** Its window, where the header's descriptor gives one. */
    const withWindow = (stream: Uint8Array, log: number) => {
      const changed = stream.slice()
      changed[5] = (log - 10) << 3
      return changed
    }

    it.each<[string, () => Uint8Array, 'read' | 'refused']>([
      ['no size, no checksum', () => zstd(data, '--no-check'), 'read'],
      ['a checksum', () => zstd(data, '--check'), 'read'],
      ['a size', () => sized(data), 'read'],
      ['garbage behind', () => joined(zstd(data), random.bytes(700)), 'read'],
      ['a wrong checksum', () => joined(zstd(data, '--check').slice(0, -1), Uint8Array.from([0])), 'refused'],
      ['two frames', () => joined(zstd(data.subarray(0, 100)), sized(data.subarray(100))), 'read'],
      ['a skippable frame first', () => joined(skippable, zstd(data)), 'read'],
      ['an empty frame first', () => joined(zstd(new Uint8Array()), zstd(data)), 'read'],
      ['another frame behind', () => joined(sized(data), zstd(more)), 'read'],
      ['a skippable frame behind', () => joined(zstd(data), skippable), 'read'],
      ['garbage first', () => joined(Uint8Array.from([1]), zstd(data)), 'refused'],
      ['one byte more', () => zstd(joined(data, Uint8Array.from([1]))), 'refused'],
      ['one byte more, and a size', () => sized(joined(data, Uint8Array.from([1]))), 'refused'],
      ['twice the data', () => zstd(joined(data, more)), 'refused'],
      ['one byte less', () => zstd(data.subarray(1)), 'refused'],
      ['one byte less, and a size', () => sized(data.subarray(1)), 'refused'],
      ['two frames, the second too long', () => joined(zstd(data.subarray(0, 100)), zstd(data)), 'refused'],
      ['cut in the middle', () => zstd(data).subarray(0, 4000), 'refused'],
      ['a broken frame before a good one', () => joined(zstd(data).subarray(0, 4000), zstd(data)), 'refused'],
      ['a window of 2^27', () => withWindow(zstd(data), 27), 'read'],
      ['a window of 2^28', () => withWindow(zstd(data), 28), 'refused'],
      ['nothing', () => new Uint8Array(512), 'refused'],
    ])('%s', async (_, make, expected) => same('zstd', make(), expected))

    it('changed at random', async () => {
      const frames = [zstd(data, '--check'), sized(data, '--no-check')]
      for (let i = 0; i < 60; i++) {
        const mutant = frames[i % 2]!.slice()
        // Half of them in the headers.
        const at = random.int(0, i % 4 < 2 ? 30 : mutant.length - 1)
        mutant[at]! ^= 1 << random.int(0, 7)
        await same('zstd', mutant, 'either')
      }
    })
  })
})
