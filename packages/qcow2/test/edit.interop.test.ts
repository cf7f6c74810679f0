// Edits against QEMU: after them it opens the image, finds nothing wrong, sees the bits that they should be, and goes
// on recording.
import { readFileSync, writeFileSync } from 'node:fs'
import {
  type DirtyExtent,
  dirtyMaps,
  makeRandomImage,
  needs,
  qemuImg,
  qemuIo,
  Random,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { editBitmaps, inspectImage, memoryStorage, memoryWritable, readBytes } from '../src/index.js'
import { applyModel, type Model, randomActions, readModel } from './edit-model.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())

const edgesOf = (extents: readonly DirtyExtent[]) =>
  extents.filter(({ type }) => type === 1).flatMap(({ offset, length }) => [offset, offset + length])

const plain = (model: Model) =>
  Object.fromEntries(
    [...model].map(([name, { granularity, enabled, edges }]) => [name, { granularity, enabled, edges }]),
  )

/** The bitmaps as QEMU has them. */
async function qemuModel(file: string): Promise<Record<string, unknown>> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const maps = await dirtyMaps(file)
  return Object.fromEntries(
    (info['format-specific']?.data.bitmaps ?? []).map(({ name, granularity, flags }) => [
      name,
      { granularity, enabled: flags.includes('auto'), edges: edgesOf(maps.get(name)!) },
    ]),
  )
}

describe.skipIf(peers.skip)(`edits and QEMU${peers.label}`, () => {
  const seeds = 60
  it.each([0, 1, 2])('random actions, part %d', async part => {
    for (let seed = part; seed < seeds; seed += 3) {
      const random = new Random(`edit-${seed}`)
      const { file } = await makeRandomImage(`edit-${seed}`, dir.path)
      const storage = memoryWritable(readFileSync(file))
      const { virtualSize } = await inspectImage(storage)
      let model = await readModel(storage)
      for (let round = 0; round < 3; round++) {
        const actions = randomActions(random, model, virtualSize, random.int(1, 4))
        const what = `edit-${seed}, round ${round}: ${JSON.stringify(actions)}`
        await editBitmaps(storage, actions)
        model = applyModel(model, actions, virtualSize)
        expect(plain(await readModel(storage)), what).toEqual(plain(model))
        writeFileSync(file, await readBytes(storage, 0, storage.size))
        expect(await qemuImg.check(file), what).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
        expect(await qemuModel(file), what).toEqual(plain(model))
      }
      // It goes on recording, in those that are enabled.
      await qemuIo(file, ['write -q -P 1 0 512'])
      const recorded = await readModel(memoryStorage(readFileSync(file)))
      for (const [name, { granularity, enabled }] of model) {
        if (!enabled) continue
        expect(recorded.get(name)!.edges![0], `${file} ${name}`).toBe(0)
        expect(recorded.get(name)!.edges![1]).toBeGreaterThanOrEqual(Math.min(granularity, virtualSize))
      }
    }
  })
})
