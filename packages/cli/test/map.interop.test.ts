import { rmSync } from 'node:fs'
import {
  type DirtyExtent,
  dirtyMaps,
  makeRandomImage,
  needs,
  qemuImg,
  type RandomImage,
  type TempDir,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemarkJson } from './cli.js'
import { inParallel } from './pool.js'
import { missingFrom } from './superset.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
const IMAGES = 208
const PER_TEST = 13

interface InfoOfBitmaps {
  readonly 'format-specific': {
    readonly data: {
      readonly bitmaps?: readonly {
        readonly name: string
        readonly granularity: number
        readonly count: number
        readonly 'dirty-bytes': number
      }[]
    }
  }
}

describe.skipIf(peers.skip)(`maps of random images are nbdinfo's, bit for bit${peers.label}`, () => {
  let dir: TempDir
  const seen: RandomImage[] = []
  beforeAll(() => {
    dir = tempDir()
  })
  afterAll(() => dir?.remove())

  const compare = async (seed: string): Promise<void> => {
    const image = await makeRandomImage(seed, dir.path)
    const { file } = image
    const [truth, qemu, counted] = await Promise.all([
      dirtyMaps(file),
      qemuImg.info(file),
      tidemarkJson<InfoOfBitmaps>(['info', '--count', file]),
    ])
    expect(missingFrom(counted, qemu), `info, seed ${seed}`).toEqual([])
    const bitmaps = counted['format-specific'].data.bitmaps ?? []
    expect(
      bitmaps.map(({ name }) => name),
      `order, seed ${seed}`,
    ).toEqual([...truth.keys()])
    for (const { name, granularity, count, 'dirty-bytes': dirtyBytes } of bitmaps) {
      const map = truth.get(name)!
      const what = `seed ${seed}, bitmap ${name}`
      expect(await tidemarkJson<DirtyExtent[]>(['map', file, '--bitmap', name]), what).toEqual(map)
      const dirty = map.filter(({ type }) => type === 1)
      expect(dirtyBytes, what).toBe(dirty.reduce((sum, { length }) => sum + length, 0))
      // Only the disk's last granule can be clipped, so each extent has this many.
      const granules = dirty.reduce((sum, { length }) => sum + Math.ceil(length / granularity), 0)
      expect(count, what).toBe(granules)
    }
    seen.push(image)
    rmSync(file)
  }

  for (let first = 0; first < IMAGES; first += PER_TEST) {
    const seeds = Array.from({ length: PER_TEST }, (_, i) => `map-${first + i}`)
    it(`seeds ${seeds[0]} … ${seeds.at(-1)}`, () => inParallel(seeds, 2, compare), 120_000)
  }

  it('and the images were of every kind (run the whole file)', () => {
    expect(seen.length).toBe(IMAGES)
    const clusters = new Set(seen.map(({ clusterSize }) => Math.log2(clusterSize)))
    expect([...clusters].sort((a, b) => a - b)).toEqual(Array.from({ length: 13 }, (_, i) => 9 + i))
    const bitmaps = seen.flatMap(image => image.bitmaps)
    const granularities = new Set(bitmaps.map(({ granularity }) => Math.log2(granularity)))
    expect([...granularities].sort((a, b) => a - b)).toEqual(Array.from({ length: 23 }, (_, i) => 9 + i))
    expect(new Set(seen.map(image => image.bitmaps.length))).toEqual(new Set([1, 2, 3, 4, 5, 6]))
    expect(new Set(seen.map(({ pattern }) => pattern)).size).toBe(6)
    expect(bitmaps.filter(({ recording }) => !recording).length).toBeGreaterThan(50)
    const odd = seen.filter(
      ({ size, clusterSize, bitmaps }) =>
        size % clusterSize !== 0 && bitmaps.some(({ granularity }) => size % granularity !== 0),
    )
    expect(odd.length).toBeGreaterThan(IMAGES / 2)
    expect(bitmaps.some(({ name }) => name.length > 1000)).toBe(true)
  })
})
