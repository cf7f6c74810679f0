// An edit that is cut off anywhere leaves the old bitmaps or the new ones, and leaks at worst; QEMU's word for it too.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildQcow2, needs, qemuImg, Random, runSync, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import {
  autoclear,
  type BitmapAction,
  editBitmaps,
  extensionMagic,
  inspectImage,
  memoryStorage,
  memoryWritable,
} from '../src/index.js'
import { type CrashState, crashStates, RecordingStorage } from './crash.js'
import { applyModel, type Model, mustBeSound, randomActions, readModel } from './edit-model.js'

const peers = needs('qemu-img', 'qemu-io')
const dir = tempDir()
afterAll(() => dir.remove())

const plain = (model: Model) => JSON.stringify([...model])

interface Tally {
  states: number
  old: number
  new: number
  asked: number
  /** With the bitmaps extension but without its autoclear bit. */
  half: number
}

const newTally = (): Tally => ({ states: 0, old: 0, new: 0, asked: 0, half: 0 })

/** A bitmaps extension without its autoclear bit, or the bit without it. */
async function isHalf(bytes: Uint8Array): Promise<boolean> {
  const { header, bitmapDirectory } = await inspectImage(memoryStorage(bytes))
  return (bitmapDirectory !== undefined) !== ((header.autoclearFeatures & autoclear.bitmaps) !== 0n)
}

/** Whether all bitmaps extensions, before and after, begin in the sector of the autoclear bits. */
async function switchesAtOnce({ before, storage }: RecordingStorage): Promise<boolean> {
  const images = [await inspectImage(memoryStorage(before)), await inspectImage(storage)]
  const extensions = images.flatMap(image =>
    image.extensions.filter(({ magic }) => magic === extensionMagic.bitmaps),
  )
  // Two whole ones over a boundary of sectors are another case.
  const places = extensions.map(({ offset }) => [offset - 8, offset + 23].map(at => Math.floor(at / 512)))
  return places.every(([first, last]) => first === 0 && (extensions.length === 1 || last === 0))
}

/** Edits, and looks at every state that the edit can be cut off in. */
async function survives(
  bytes: Uint8Array,
  actions: readonly BitmapAction[],
  random: Random,
  tally: Tally,
  ask?: (state: CrashState) => Promise<void>,
): Promise<Uint8Array> {
  const recording = new RecordingStorage(bytes)
  const before = await readModel(memoryStorage(bytes))
  await editBitmaps(recording.storage, actions)
  const { virtualSize } = await inspectImage(recording.storage)
  const after = applyModel(before, actions, virtualSize)
  expect(plain(await readModel(recording.storage))).toBe(plain(after))
  const switched = await switchesAtOnce(recording)
  let seenNew = false
  for (const state of crashStates(recording, random, 6)) {
    const what = `${JSON.stringify(actions)}: ${state.what}`
    try {
      await mustBeSound(state.bytes)
    } catch (error) {
      throw new Error(what, { cause: error })
    }
    const found = plain(await readModel(memoryStorage(state.bytes)))
    expect([plain(before), plain(after)], what).toContain(found)
    if (switched) expect(await isHalf(state.bytes), what).toBe(false)
    else if (await isHalf(state.bytes)) tally.half++
    tally.states++
    if (found === plain(after)) tally.new++
    else tally.old++
    seenNew ||= found === plain(after)
    if (ask !== undefined && random.bool(0.05)) {
      await ask(state)
      tally.asked++
    }
  }
  expect(seenNew).toBe(true)
  const result = new Uint8Array(recording.storage.size)
  await recording.storage.readInto(result, 0)
  return result
}

async function qemuTakes({ bytes, what }: CrashState): Promise<void> {
  const file = dir.file('state.qcow2')
  writeFileSync(file, bytes)
  expect(await qemuImg.check(file), what).toMatchObject({ corruptions: 0, 'check-errors': 0 })
}

describe('an edit that is cut off', () => {
  it('in crafted images: every refcount width, first and last bitmaps, moved names, longer refcount tables', async () => {
    const tally = newTally()
    for (const refcountOrder of [0, 1, 2, 3, 4, 5, 6]) {
      for (const clusterBits of [9, 12, 16]) {
        const random = new Random(`crash ${refcountOrder} ${clusterBits}`)
        const granularityBits = clusterBits === 9 ? 9 : 12
        let { bytes } = buildQcow2({
          virtualSize: clusterBits === 9 ? 2 ** 20 : 2 ** 26,
          clusterBits,
          refcountOrder,
          ...(random.bool()
            ? { backingFile: `/base/${'x'.repeat(random.int(1, 60))}.qcow2`, backingFormat: 'qcow2' }
            : {}),
          ...(random.bool() && clusterBits > 9 ? { featureNames: true as const } : {}),
          ...(random.bool()
            ? { extensions: [{ magic: 0x12345678, data: random.bytes(random.int(1, 40)) }] }
            : {}),
          // Unknown autoclear bits go; unknown compatible ones stay.
          autoclearFeatures: random.bool() ? 0x10n : 0n,
          compatibleFeatures: 0x100n,
        })
        const first: BitmapAction[] = [{ action: 'add', name: 'a', granularity: 2 ** granularityBits }]
        bytes = await survives(bytes, first, random, tally)
        bytes = await survives(bytes, [...first.map(each => ({ ...each, name: 'b' }))], random, tally)
        bytes = await survives(
          bytes,
          [
            { action: 'disable', name: 'a' },
            { action: 'rename', name: 'b', to: 'c' },
          ],
          random,
          tally,
        )
        bytes = await survives(bytes, [{ action: 'remove', name: 'a' }], random, tally)
        bytes = await survives(bytes, [{ action: 'remove', name: 'c' }], random, tally)
        // And once more: the extension comes back.
        await survives(bytes, first, random, tally)
      }
    }
    expect(tally.old).toBeGreaterThan(500)
    expect(tally.new).toBeGreaterThan(500)
    // Headers so long that the extension begins behind the first sector.
    expect(tally.half).toBeGreaterThan(5)
  })

  it('the first bitmap and the last one switch with one write, where QEMU’s header has room in a sector', async () => {
    const backing = { backingFile: '/base.qcow2', backingFormat: 'qcow2' }
    for (const [what, spec, begins, inOne] of [
      ['as QEMU lays it out: the content is in the next sector', { featureNames: true }, 504, true],
      ['without names of features', {}, 112, true],
      ['with a backing file', backing, 128, true],
      ['an overlay of QEMU’s: begins in the next sector', { ...backing, featureNames: true }, 520, false],
    ] as const) {
      const { bytes } = buildQcow2({ virtualSize: 2 ** 20, autoclearFeatures: 0x10n, ...spec })
      const tally = newTally()
      const random = new Random(what)
      const switchOf = async (image: Uint8Array, action: BitmapAction) => {
        const { steps } = await editBitmaps(memoryWritable(image.slice()), [action], { dryRun: true })
        return steps.filter(({ name }) => name === 'header').flatMap(({ writes }) => writes)
      }
      const add: BitmapAction = { action: 'add', name: 'a' }
      const remove: BitmapAction = { action: 'remove', name: 'a' }
      const added = await switchOf(bytes, add)
      const withBitmap = await survives(bytes, [{ ...add, granularity: 65536 }], random, tally)
      const { extensions } = await inspectImage(memoryStorage(withBitmap))
      expect(extensions.find(({ magic }) => magic === extensionMagic.bitmaps)!.offset - 8, what).toBe(begins)
      const removed = await switchOf(withBitmap, remove)
      await survives(withBitmap, [remove], random, tally)
      if (!inOne) {
        expect(tally.half, what).toBeGreaterThan(0)
        continue
      }
      expect(tally.half, what).toBe(0)
      expect(added.at(-1), what).toMatchObject({ what: expect.stringMatching(/^the switch: /), offset: 88 })
      expect(removed, what).toMatchObject([{ what: expect.stringMatching(/^the switch: /), offset: 88 }])
    }
  })

  it('the last one leaves the extensions behind it as they are, without room that is lost each time', async () => {
    const retired = { magic: 0x746d7064, data: new Uint8Array(24) }
    const unknown = { magic: 0x12345678, data: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9) }
    for (const [what, length, magics] of [
      ['all in the first sector: they move up', 9, [unknown.magic]],
      ['not all: a retired one more', 400, [retired.magic, retired.magic, unknown.magic]],
    ] as const) {
      const data = new Uint8Array(length).fill(7)
      const { bytes } = buildQcow2({
        virtualSize: 2 ** 20,
        clusterBits: 12,
        backingFile: '/base.qcow2',
        bitmaps: [{ name: 'a', dirty: [1] }],
        extensions: [retired, { ...unknown, data }],
      })
      const after = await survives(bytes, [{ action: 'remove', name: 'a' }], new Random(what), newTally())
      const { extensions, backingFile } = await inspectImage(memoryStorage(after))
      expect(
        extensions.map(({ magic }) => magic),
        what,
      ).toEqual(magics)
      expect([extensions.at(-1)!.data, backingFile]).toEqual([data, '/base.qcow2'])
    }
  })

  it('with several refcount blocks that are new, and count each other', async () => {
    const tally = newTally()
    const add = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ action: 'add' as const, name: `n${i}`, granularity: 512 }))
    // 64 clusters for each block.
    for (const [count, clusterBits] of [
      [150, 9],
      [40, 9],
    ] as const) {
      const { bytes } = buildQcow2({ virtualSize: 2 ** 20, clusterBits, refcountOrder: 6 })
      await survives(bytes, add(count), new Random(`blocks ${count}`), tally)
    }
    expect(tally.old).toBeGreaterThan(200)
    expect(tally.new).toBeGreaterThan(2)
  })

  it('where the backing file’s name follows the extensions at once, without an END, or is empty', async () => {
    const tally = newTally()
    for (const name of ['/base/image.qcow2', '']) {
      const { bytes } = buildQcow2({
        virtualSize: 2 ** 20,
        clusterBits: 12,
        backingFile: '/base/image.qcow2',
      })
      const view = new DataView(bytes.buffer)
      const at = view.getUint32(100)
      // The name right behind the header: no extension, no END.
      bytes.fill(0, at, 512)
      bytes.set(new TextEncoder().encode(name), at)
      view.setBigUint64(8, BigInt(at))
      view.setUint32(16, name.length)
      const image = await inspectImage(memoryStorage(bytes))
      expect(image.findings).toEqual([])
      const after = await survives(
        bytes,
        [{ action: 'add', name: 'a', granularity: 4096 }],
        new Random(name),
        tally,
        qemuTakes,
      )
      expect((await inspectImage(memoryStorage(after))).backingFile).toBe(image.backingFile)
    }
    expect(tally.new).toBeGreaterThan(2)
  })

  describe.skipIf(peers.skip)(`in images that QEMU made${peers.label}`, () => {
    it.each([0, 1, 2])('random actions, part %d', async part => {
      const tally = newTally()
      for (let seed = part; seed < 24; seed += 3) {
        const random = new Random(`crash-${seed}`)
        const clusterBits = random.pick([9, 9, 10, 12, 16])
        const file = join(dir.path, `crash-${seed}.qcow2`)
        const size = clusterBits === 9 ? 2 ** 20 : 2 ** 24
        runSync('qemu-img', [
          'create',
          '-q',
          '-f',
          'qcow2',
          '-o',
          `cluster_size=${2 ** clusterBits}`,
          file,
          String(size),
        ])
        for (let i = 0; i < 3; i++) {
          const granularity = String(2 ** random.int(9, 14))
          runSync('qemu-img', ['bitmap', '--add', '-g', granularity, file, `b${i}`])
          const writes = Array.from(
            { length: 4 },
            () => `write -q -P 1 ${random.int(0, size / 512 - 64) * 512} ${512 * random.int(1, 64)}`,
          )
          runSync('qemu-io', [...writes.flatMap(each => ['-c', each]), file])
        }
        let bytes: Uint8Array = readFileSync(file)
        for (let round = 0; round < 3; round++) {
          const model = await readModel(memoryStorage(bytes))
          const actions = randomActions(random, model, size, random.int(1, 3))
          bytes = await survives(bytes, actions, random, tally, qemuTakes)
        }
      }
      expect(tally.old).toBeGreaterThan(100)
      expect(tally.new).toBeGreaterThan(100)
      expect(tally.asked).toBeGreaterThan(20)
    })
  })
})
