// Edits against QEMU, in turns on one image: what tidemark edited QEMU opens, finds nothing wrong with, reads the same
// bits from and goes on recording in; what QEMU edited tidemark reads, and edits on.
import { copyFileSync } from 'node:fs'
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
import { type BitmapAction, editBitmaps } from '../src/index.js'
import { openFile, openWritableFile } from '../src/node/index.js'
import { type Known, makeVariedImage, qemusTurn, type VariedImage } from './edit-images.js'
import { applyModel, type Model, randomActions, readModel, recorded } from './edit-model.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'qemu-storage-daemon', 'nbdinfo')
const dir = tempDir()
afterAll(() => dir.remove())

const edgesOf = (extents: readonly DirtyExtent[] | undefined) =>
  extents?.filter(({ type }) => type === 1).flatMap(({ offset, length }) => [offset, offset + length])

const plain = (model: Model) => Object.fromEntries(model)

/** The bitmaps as QEMU has them. */
async function qemuModel(file: string): Promise<Record<string, unknown>> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const maps = await dirtyMaps(file)
  return Object.fromEntries(
    (info['format-specific']?.data.bitmaps ?? []).map(({ name, granularity, flags }) => [
      name,
      {
        granularity,
        enabled: flags.includes('auto'),
        inUse: flags.includes('in-use'),
        edges: edgesOf(maps.get(name)),
      },
    ]),
  )
}

async function ourModel(file: string): Promise<Record<string, unknown>> {
  const storage = await openFile(file, { blocking: true })
  try {
    return plain(await readModel(storage))
  } finally {
    await storage.close()
  }
}

/** What QEMU and tidemark read is what they should. */
async function bothRead(file: string, model: Model, what: string): Promise<void> {
  expect(await ourModel(file), what).toEqual(plain(model))
  expect(await qemuModel(file), what).toEqual(plain(model))
}

async function edit(file: string, actions: readonly BitmapAction[]): Promise<void> {
  const storage = await openWritableFile(file, { blocking: true })
  try {
    await editBitmaps(storage, actions)
  } finally {
    await storage.close()
  }
}

/** A sequence of ours, and all that QEMU says of it. */
async function ourTurn(file: string, { size, model }: Known, random: Random, before: string): Promise<Known> {
  const actions = randomActions(random, model, size, random.int(1, 5))
  const what = `${before}, then ${JSON.stringify(actions)}`
  const copy = dir.file('before.qcow2')
  copyFileSync(file, copy)
  await edit(file, actions)
  const edited = applyModel(model, actions, size)
  expect(await qemuImg.check(file), what).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
  await bothRead(file, edited, what)
  expect(await qemuImg.compare(copy, file), what).toBe(true)
  // It goes on recording, in those that are enabled.
  const offset = random.int(0, size / 512 - 1) * 512
  await qemuIo(file, [`write -q -P 1 ${offset} 512`])
  const after = recorded(edited, [{ offset, length: 512 }], size)
  expect(await ourModel(file), `${what}, written at ${offset}`).toEqual(plain(after))
  return { size, model: after }
}

describe.skipIf(peers.skip)(`edits and QEMU${peers.label}`, () => {
  // 500 sequences of each.
  const images = 100
  const rounds = 5
  const parts = 4
  it.each(Array.from({ length: parts }, (_, i) => i))(
    'in turns on every kind of image, part %d',
    async part => {
      for (let serial = part; serial < images; serial += parts) {
        const random = new Random(`turns-${serial}`)
        const { file, size, what: image }: VariedImage = await makeVariedImage(dir, serial, random)
        let now: Known = { size, model: new Map() }
        for (let round = 0; round < rounds; round++) {
          const { turn, ...then } = await qemusTurn(file, now, random)
          const what = `image ${image}, round ${round}: ${turn}`
          await bothRead(file, then.model, what)
          now = await ourTurn(file, then, random, what)
        }
      }
    },
  )

  it('random actions on images of odd sizes, names and patterns of writes', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const random = new Random(`edit-${seed}`)
      const { file, size } = await makeRandomImage(`edit-${seed}`, dir.path)
      const storage = await openFile(file)
      const model = await readModel(storage)
      await storage.close()
      expect(await qemuModel(file)).toEqual(plain(model))
      await ourTurn(file, { size, model }, random, `edit-${seed}`)
    }
  })
})
