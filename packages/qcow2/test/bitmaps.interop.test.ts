// The bits, one by one, as qemu-nbd and nbdinfo say them.
import {
  buildQcow2,
  type DirtyExtent,
  dirtyMap,
  makeRandomImage,
  needs,
  type Qcow2Spec,
  Random,
  tempDir,
  writeSparse,
} from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { countDirty, createEngine, dirtyExtents, findBitmap, openBitmap, openImage } from '../src/index.js'
import { openFile } from '../src/node/index.js'
import { bytesIn, collect } from './model.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())
const engine = createEngine()

function edgesOf(extents: readonly DirtyExtent[]): number[] {
  return extents.filter(({ type }) => type === 1).flatMap(({ offset, length }) => [offset, offset + length])
}

/** Compares every bitmap of an image with what the peers say. @returns how many extents there were */
async function compare(file: string): Promise<number> {
  const storage = await openFile(file)
  try {
    const image = await openImage(storage, engine)
    let extents = 0
    for (const bitmap of image.bitmapDirectory!.bitmaps) {
      const theirs = edgesOf(await dirtyMap(file, bitmap.name))
      const source = () => openBitmap(image, findBitmap(image, bitmap.name), engine)
      expect(await collect(dirtyExtents(engine, [source()])), bitmap.name).toEqual(theirs)
      expect(await countDirty(engine, [source()])).toMatchObject({
        granularity: bitmap.granularity,
        bytes: bytesIn(theirs),
      })
      extents += theirs.length / 2
    }
    return extents
  } finally {
    await storage.close()
  }
}

/** Odd disk sizes; dirty at both ends, at cluster edges of the bitmap, in clumps. */
function specOf(clusterBits: number, granularityBits: number): Qcow2Spec {
  const random = new Random(`${clusterBits}/${granularityBits}`)
  const perCluster = 2 ** clusterBits * 8
  // Two and a half clusters of bits, but a disk that QEMU opens fast.
  const granules = Math.max(
    3,
    Math.min(Math.floor(perCluster * 2.5), Math.floor(2 ** 38 / 2 ** granularityBits), 300_000),
  )
  const l1Limit = 2 ** (clusterBits * 2 - 3) * 2 ** 22
  const virtualSize = Math.min(
    granules * 2 ** granularityBits - 512 * random.int(1, 2 ** granularityBits / 512),
    l1Limit - 512,
  )
  const bits = Math.ceil(virtualSize / 2 ** granularityBits)
  const clumps = new Set([0, bits - 1, perCluster - 1, perCluster, 2 * perCluster].filter(bit => bit < bits))
  for (let i = 0; i < 40; i++) {
    const at = random.int(0, bits - 1)
    for (let bit = at; bit < Math.min(bits, at + random.int(1, 70)); bit++) clumps.add(bit)
  }
  const entries = Math.ceil(bits / perCluster)
  const data = random.bytes(2 ** clusterBits)
  return {
    clusterBits,
    virtualSize,
    lastClusterBytes: Math.ceil((bits - (entries - 1) * perCluster) / 8),
    bitmaps: [
      { name: 'clumps', granularityBits, dirty: [...clumps].sort((a, b) => a - b) },
      { name: 'zeros', granularityBits },
      { name: 'ones', granularityBits, fill: 'ones' },
      {
        name: 'mixed',
        granularityBits,
        // Not in the last entry: QEMU takes stale bits after the last one as they are.
        table: Array.from({ length: entries }, (_, i) =>
          i === entries - 1 ? 'zeros' : i % 2 === 0 ? data : 'ones',
        ),
      },
      { name: 'last', granularityBits, dirty: [bits - 1] },
    ],
  }
}

describe.skipIf(peers.skip)(`crafted images, bit for bit${peers.label}`, () => {
  const pairs = Array.from({ length: 13 }, (_, i) => [9 + i, 9 + ((i * 7) % 23)] as const)
  const more = [
    [9, 9],
    [9, 31],
    [21, 9],
    [21, 31],
    [16, 9],
    [16, 12],
    [16, 16],
  ] as const
  it.each([...pairs, ...more])('clusters of 2^%i, granularity 2^%i', async (clusterBits, granularityBits) => {
    const file = dir.file(`c${clusterBits}-${granularityBits}.qcow2`)
    writeSparse(file, buildQcow2(specOf(clusterBits, granularityBits)).bytes)
    expect(await compare(file)).toBeGreaterThan(0)
  })
})

describe.skipIf(peers.skip)(`images that QEMU made, bit for bit${peers.label}`, () => {
  it.each(Array.from({ length: 12 }, (_, i) => `library-${i}`))('%s', async seed => {
    const { file } = await makeRandomImage(seed, dir.path)
    await compare(file)
  })
})
