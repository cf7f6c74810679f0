import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  coverageOf,
  type DataLayer,
  makeRandomDataImage,
  needs,
  qemuInfo,
  qemuInfoSnapshots,
  qemuMap,
  type RandomDataImage,
  rawDifference,
  rawOf,
  run,
  type TempDir,
  tempDir,
} from '../src/index.js'

const peers = needs('qemu-img', 'qemu-io')
const IMAGES = 60
const PER_TEST = 10

async function checked(layer: DataLayer): Promise<Record<string, number>> {
  const args = ['check', '--output=json', ...layer.openArgs]
  return JSON.parse((await run('qemu-img', args)).stdout)
}

/** Each layer's claims against what qemu-img finds in its file. */
async function expectAsTold(image: RandomDataImage): Promise<void> {
  for (const [depth, layer] of image.layers.entries()) {
    const what = `seed ${image.seed}, depth ${depth}`
    if (layer.format === 'raw') {
      expect(statSync(layer.file).size, what).toBe(layer.size - layer.missingBytes)
      continue
    }
    const info = await qemuInfo(image, layer)
    expect(info, what).toMatchObject({ format: 'qcow2', 'virtual-size': layer.size })
    expect(info['cluster-size'], what).toBe(layer.clusterSize)
    const data = info['format-specific']!.data
    expect(data, what).toMatchObject({ compat: layer.compat, 'refcount-bits': layer.refcountBits })
    if (layer.compat === '1.1') {
      expect(data, what).toMatchObject({
        'lazy-refcounts': layer.lazyRefcounts,
        'extended-l2': layer.extendedL2,
        'compression-type': layer.compression === 'zstd' ? 'zstd' : 'zlib',
      })
    }
    expect(data['data-file'], what).toBe(layer.dataFilePath)
    expect(data['data-file-raw'] ?? false, what).toBe(layer.dataFile === 'raw')
    const encrypt = data.encrypt as { format: string; 'cipher-alg': string } | undefined
    expect(encrypt?.['cipher-alg'] ?? 'none', what).toBe(layer.encryption)
    const below = image.layers[depth + 1]
    expect(info['backing-filename'] !== undefined, what).toBe(below !== undefined)
    if (below) {
      const shapes = { relative: /^[^/:]+(\/|$)/, absolute: /^\//, file: /^file:\//, json: /^json:/ }
      expect(info['backing-filename'], what).toMatch(shapes[below.name])
    }
    const check = await checked(layer)
    expect({ corruptions: 0, leaks: 0, ...check }, what).toMatchObject({
      corruptions: 0,
      leaks: 0,
      'check-errors': 0,
    })
    if (layer.compressedBy === 'none') expect(check['compressed-clusters'] ?? 0, what).toBe(0)
  }
}

describe.skipIf(peers.skip)(`random data images${peers.label}`, () => {
  let dir: TempDir
  const seen: RandomDataImage[] = []
  let compressed = 0
  beforeAll(() => {
    dir = tempDir()
  })
  afterAll(() => dir?.remove())

  for (let first = 0; first < IMAGES; first += PER_TEST) {
    it(`seeds ${first} … ${first + PER_TEST - 1} are what they say`, async () => {
      for (let seed = first; seed < first + PER_TEST; seed++) {
        const image = await makeRandomDataImage(seed, dir.path)
        await expectAsTold(image)
        expect(await qemuInfoSnapshots(image), `seed ${seed}`).toEqual(
          image.snapshots.map(({ id, name }) => ({ id, name })),
        )
        for (const snapshot of [undefined, ...image.snapshots]) {
          const what = `seed ${seed}, snapshot ${snapshot?.name}`
          const size = snapshot?.size ?? image.size
          expect(statSync(await rawOf(image, snapshot ? { snapshot } : {})).size, what).toBe(size)
          let end = 0
          for (const { start, length } of await qemuMap(image, snapshot ? { snapshot } : {})) {
            expect(start, what).toBe(end)
            end += length
          }
          expect(end, what).toBe(size)
        }
        const top = image.layers[0]!
        if (top.compressedBy !== 'none' && (await checked(top))['compressed-clusters']) compressed++
        seen.push(image)
        rmSync(image.dir, { recursive: true })
      }
    })
  }

  it('and every value of every axis was among them (run the whole file)', () => {
    expect(seen.length).toBe(IMAGES)
    const seldom = Object.entries(coverageOf(seen)).flatMap(([axis, values]) =>
      Object.entries(values)
        .filter(([, count]) => count < 2)
        .map(([value, count]) => `${axis} ${value}: ${count}`),
    )
    expect(seldom).toEqual([])
    // What was written compressed may be overwritten since, but mostly it is not.
    expect(compressed).toBeGreaterThan(5)
  })

  it('the same seed gives the same disk and the same snapshots', async () => {
    const again = dir.file('again')
    mkdirSync(again)
    // One of each kind that could depend on more than the seed. (Preallocated and encrypted does: it is noise.)
    const encrypted = seen.find(
      ({ passphrase, features }) => passphrase !== undefined && features.preallocation.join() === 'off',
    )!.seed
    const wentBack = seen.find(image => image.features.snapshotSize.includes('longer'))!.seed
    for (const seed of [encrypted, wentBack, 0, 1, 2, 3, 4, 5]) {
      const one = await makeRandomDataImage(seed, dir.path)
      const other = await makeRandomDataImage(seed, again)
      expect(other.features).toEqual(one.features)
      expect(other.snapshots).toEqual(one.snapshots)
      for (const snapshot of [undefined, ...one.snapshots]) {
        const of = snapshot ? { snapshot } : {}
        expect(await rawDifference(await rawOf(one, of), await rawOf(other, of)), `seed ${seed}`).toBe(
          undefined,
        )
      }
      rmSync(one.dir, { recursive: true })
      rmSync(other.dir, { recursive: true })
    }
    const different = [await makeRandomDataImage(6, dir.path), await makeRandomDataImage('6b', dir.path)]
    const [a, b] = await Promise.all(different.map(image => rawOf(image)))
    expect(await rawDifference(a!, b!)).toMatch(/mismatch|sizes/)
  })

  it("a snapshot's disk is what going back to it gives, and convert -l's where the sizes agree", async () => {
    let compared = 0
    for (let seed = 0; compared < 12; seed++) {
      const image = await makeRandomDataImage(`back-${seed}`, dir.path)
      for (const snapshot of image.snapshots.filter(({ size }) => size === image.size)) {
        const loaded = `${image.file}.loaded`
        renameSync(await rawOf(image, { snapshot }), loaded)
        // Told of another size, the oracle goes back to the snapshot instead.
        const back = await rawOf({ ...image, size: image.size + 512 }, { snapshot })
        expect(await rawDifference(loaded, back), `seed ${image.seed}, ${snapshot.name}`).toBe(undefined)
        compared++
      }
      rmSync(image.dir, { recursive: true })
    }
  })
})
