// The reference map reads tables in pieces and passes over what is empty. Here it is held against one that does neither,
// on images with something wrong in them: where it does not refuse one, it has found all, and nothing else.
import { needs, type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  createEngine,
  type ImageInspection,
  inspectImage,
  mapReferences,
  memoryStorage,
  Qcow2Error,
  type ReferenceMap,
} from '../src/index.js'
import { type FuzzCase, fuzzCase } from './fuzz/cases.js'
import { makeCorpus, type Seed } from './fuzz/corpus.js'
import { naiveReferences } from './naive-references.js'

const CASES = 2000
const peers = needs('qemu-img', 'qemu-io')

describe.skipIf(peers.skip)(`references of mutants${peers.label}`, { timeout: 300_000 }, () => {
  let dir: TempDir
  let corpus: Seed[]
  beforeAll(async () => {
    dir = tempDir()
    corpus = await makeCorpus(dir)
  }, 600_000)
  afterAll(() => dir?.remove())

  const engine = createEngine()
  /** Undefined: refused, for a reason that has a code. */
  async function mapped(
    bytes: Uint8Array,
    what: string,
  ): Promise<{ image: ImageInspection; map: ReferenceMap } | undefined> {
    try {
      const image = await inspectImage(memoryStorage(bytes), engine)
      return { image, map: await mapReferences(image, engine) }
    } catch (error) {
      if (error instanceof Qcow2Error) return undefined
      throw new Error(what, { cause: error })
    }
  }
  const clusters = ({ used }: ReferenceMap) => {
    const all: number[] = []
    for (let cluster = 0; cluster < used.size; cluster++) if (used.has(cluster)) all.push(cluster)
    return all
  }

  it('are all found, or the image is refused', async () => {
    const seen = { same: 0, refused: 0, doubtful: 0 }
    for (const { files } of corpus) {
      const bytes = [...files.values()][0]!
      const found = await mapped(bytes, 'sound')
      expect(clusters(found!.map)).toEqual([...naiveReferences(bytes, found!.image)].sort((a, b) => a - b))
    }
    for (let i = 0; i < CASES; i++) {
      const { files, what, label }: FuzzCase = fuzzCase(corpus, `references ${i}`)
      const bytes = files.get('top.qcow2')!.bytes()
      const told = `${label}: ${what.join('; ')}`
      const found = await mapped(bytes, told)
      if (found === undefined) seen.refused++
      // Of a damaged table in use only a part is known, and told to be.
      else if (found.map.doubtful.size > 0) seen.doubtful++
      else {
        const wanted = [...naiveReferences(bytes, found.image)].sort((a, b) => a - b)
        expect(clusters(found.map), told).toEqual(wanted)
        seen.same++
      }
    }
    expect(seen.same, JSON.stringify(seen)).toBeGreaterThan(CASES / 4)
    expect(seen.refused, JSON.stringify(seen)).toBeGreaterThan(CASES / 10)
  })
})
