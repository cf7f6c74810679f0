// An edit of several images that is cut off anywhere, and then recovered, which may be cut off too: all of them have
// their old bitmaps or all the new ones, bit for bit, and nothing leaks.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildQcow2, needs, qemuImg, Random, runSync, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import {
  type BitmapAction,
  editImages,
  inspectImage,
  memoryStorage,
  type Qcow2Error,
  recoverImages,
} from '../src/index.js'
import {
  type Files,
  failAt,
  filesAfter,
  JOURNAL,
  RecordedFiles,
  type SeveralState,
  severalStates,
} from './crash-several.js'
import { applyModel, leaks, mustBeSound, randomActions, readModel } from './edit-model.js'

const peers = needs('qemu-img', 'qemu-io')
const dir = tempDir()
afterAll(() => dir.remove())

interface Plan {
  readonly bytes: Uint8Array
  readonly actions: readonly BitmapAction[]
}

interface Tally {
  states: number
  back: number
  forward: number
  /** States from which `recoverImages` made it so. */
  recovered: number
  asked: number
}
const newTally = (): Tally => ({ states: 0, back: 0, forward: 0, recovered: 0, asked: 0 })

const plain = async (bytes: Uint8Array) => JSON.stringify([...(await readModel(memoryStorage(bytes)))])

async function recover(files: Files): Promise<RecordedFiles> {
  const recorded = new RecordedFiles(files)
  await recoverImages(recorded.journal(), { open: async filename => recorded.storage(filename) })
  return recorded
}

/** Edits, and looks at every state that the edit can be cut off in, recovered. */
async function survive(
  plans: readonly Plan[],
  random: Random,
  tally: Tally,
  options: { subsets?: number; part?: number; ask?: (bytes: Uint8Array, what: string) => Promise<void> } = {},
): Promise<Files> {
  const { subsets = 2, part = 1, ask } = options
  const names = plans.map((_, i) => `/image-${i}`)
  const images = plans.map(({ bytes }, i) => [names[i]!, bytes] as const)
  const recorded = new RecordedFiles(new Map([...images, [JOURNAL, new Uint8Array()]]))
  const wanted = { old: [] as string[], new: [] as string[] }
  for (const { bytes, actions } of plans) {
    const { virtualSize } = await inspectImage(memoryStorage(bytes))
    const model = await readModel(memoryStorage(bytes))
    wanted.old.push(JSON.stringify([...model]))
    wanted.new.push(JSON.stringify([...applyModel(model, actions, virtualSize)]))
  }
  const edits = plans.map(({ actions }, i) => ({
    storage: recorded.storage(names[i]!),
    filename: names[i]!,
    actions,
  }))
  await editImages(edits, { journal: async () => recorded.journal() })

  const judge = async (files: Files, what: string): Promise<'old' | 'new'> => {
    expect(files.has(JOURNAL), what).toBe(false)
    const models = await Promise.all(names.map(name => plain(files.get(name)!)))
    expect([wanted.old, wanted.new], what).toContainEqual(models)
    for (const name of names) {
      await mustBeSound(files.get(name)!)
      expect(await leaks(files.get(name)!), `${what}: ${name}`).toEqual([])
    }
    if (ask !== undefined && random.bool(0.05)) {
      for (const name of names) await ask(files.get(name)!, `${what}: ${name}`)
      tally.asked++
    }
    return JSON.stringify(models) === JSON.stringify(wanted.new) ? 'new' : 'old'
  }
  const note = (which: 'old' | 'new'): void => {
    tally[which === 'old' ? 'back' : 'forward']++
  }
  const look = async ({ files, what }: SeveralState): Promise<void> => {
    tally.states++
    if (!files.has(JOURNAL)) return note(await judge(files, what))
    const again = await recover(files)
    tally.recovered++
    note(await judge(filesAfter(again), what))
    if (!random.bool(0.05)) return
    for (const state of severalStates(again, random, 1, 0.4)) {
      const second = state.files.has(JOURNAL) ? filesAfter(await recover(state.files)) : state.files
      await judge(second, `${what}; then ${state.what}`)
      tally.states++
    }
  }
  for (const state of severalStates(recorded, random, subsets, part)) {
    try {
      await look(state)
    } catch (error) {
      throw new Error(`${state.what}: ${(error as Error).message}`, { cause: error })
    }
  }
  return filesAfter(recorded)
}

describe('an edit of several images that is cut off', () => {
  it('in crafted images: every refcount width, first and last bitmaps, moved names', async () => {
    const tally = newTally()
    for (const [i, refcountOrder] of [0, 2, 4, 6].entries()) {
      const random = new Random(`several ${refcountOrder}`)
      const clusterBits = [9, 12, 16][i % 3]!
      const granularity = clusterBits === 9 ? 512 : 4096
      const spec = () => ({
        virtualSize: clusterBits === 9 ? 2 ** 20 : 2 ** 26,
        clusterBits,
        refcountOrder,
        ...(random.bool()
          ? { backingFile: `/base/${'x'.repeat(random.int(1, 60))}.qcow2`, backingFormat: 'qcow2' }
          : {}),
        ...(random.bool()
          ? { extensions: [{ magic: 0x12345678, data: random.bytes(random.int(1, 40)) }] }
          : {}),
        autoclearFeatures: random.bool() ? 0x10n : 0n,
      })
      const add = (name: string): BitmapAction => ({ action: 'add', name, granularity })
      let images = [buildQcow2(spec()).bytes, buildQcow2(spec()).bytes, buildQcow2(spec()).bytes]
      const steps: BitmapAction[][] = [
        [add('a')],
        [add('b'), { action: 'disable', name: 'a' }],
        [{ action: 'rename', name: 'b', to: 'c' }],
        [
          { action: 'remove', name: 'a' },
          { action: 'remove', name: 'c' },
        ],
        [add('again')],
      ]
      for (const actions of steps) {
        const files = await survive(
          images.map(bytes => ({ bytes, actions })),
          random,
          tally,
          { part: 0.2, subsets: 1 },
        )
        images = images.map((_, i) => files.get(`/image-${i}`)! as Uint8Array<ArrayBuffer>)
      }
    }
    expect(tally.back).toBeGreaterThan(100)
    expect(tally.forward).toBeGreaterThan(100)
    expect(tally.recovered).toBeGreaterThan(300)
  })

  it('with new refcount blocks, a longer refcount table, an extension over a boundary of sectors', async () => {
    const tally = newTally()
    const add = (count: number): BitmapAction[] =>
      Array.from({ length: count }, (_, i) => ({ action: 'add', name: `n${i}`, granularity: 512 }))
    const wide = { virtualSize: 2 ** 20, clusterBits: 9, refcountOrder: 6 }
    const crossing = buildQcow2({
      virtualSize: 2 ** 26,
      clusterBits: 12,
      extensions: [{ magic: 0x12345678, data: new Uint8Array(368) }],
      bitmaps: [{ name: 'b', granularityBits: 12, dirty: [3] }],
    }).bytes
    await survive(
      [
        { bytes: buildQcow2(wide).bytes, actions: add(40) },
        { bytes: crossing, actions: [{ action: 'rename', name: 'b', to: 'c' }] },
        { bytes: buildQcow2(wide).bytes, actions: add(1) },
      ],
      new Random('blocks'),
      tally,
      { part: 0.5 },
    )
    await survive(
      [
        { bytes: crossing, actions: [{ action: 'remove', name: 'b' }] },
        { bytes: buildQcow2({ ...wide, bitmaps: [{ name: 'x', dirty: [1] }] }).bytes, actions: add(4100) },
      ],
      new Random('table'),
      tally,
      { part: 0.004, subsets: 1 },
    )
    expect(tally.back).toBeGreaterThan(30)
    expect(tally.forward).toBeGreaterThan(10)
  })

  describe.skipIf(peers.skip)(`in images that QEMU made${peers.label}`, () => {
    it('random actions', async () => {
      const tally = newTally()
      for (let seed = 0; seed < 6; seed++) {
        const random = new Random(`several-${seed}`)
        const images = Array.from({ length: random.int(2, 4) }, (_, i) => madeByQemu(random, `${seed}-${i}`))
        const plans = await Promise.all(
          images.map(async ({ bytes, size }) => ({
            bytes,
            actions: randomActions(random, await readModel(memoryStorage(bytes)), size, random.int(1, 3)),
          })),
        )
        await survive(plans, random, tally, {
          subsets: 1,
          part: 0.4,
          async ask(bytes, what) {
            const file = dir.file('state.qcow2')
            writeFileSync(file, bytes)
            const found = { corruptions: 0, 'check-errors': 0, leaks: 0 }
            expect(await qemuImg.check(file), what).toMatchObject(found)
          },
        })
      }
      expect(tally.back).toBeGreaterThan(50)
      expect(tally.forward).toBeGreaterThan(50)
      expect(tally.asked).toBeGreaterThan(3)
    })
  })

  it('while it is undone, after an error', async () => {
    const random = new Random('undone')
    const bytes = buildQcow2({
      virtualSize: 2 ** 20,
      clusterBits: 9,
      bitmaps: [{ name: 'b', granularityBits: 9, dirty: [3] }],
    }).bytes
    const actions: BitmapAction[] = [{ action: 'add', name: 'a', granularity: 512 }]
    const whole = new RecordedFiles(
      new Map([
        ['/a', bytes],
        ['/b', bytes],
        [JOURNAL, new Uint8Array()],
      ]),
    )
    const edit = (files: RecordedFiles) =>
      editImages(
        ['/a', '/b'].map(filename => ({ storage: files.storage(filename), filename, actions })),
        { journal: async () => files.journal() },
      )
    await edit(whole)
    const old = await plain(bytes)
    let states = 0
    for (let at = 0; at < whole.log.length; at++) {
      const files = new RecordedFiles(whole.before)
      failAt(files, at)
      const failed = await edit(files).then(
        () => undefined,
        (error: Qcow2Error) => error,
      )
      if (failed === undefined || failed.details.done === true) continue
      for (const state of severalStates(files, random, 1, 0.3)) {
        const last = state.files.has(JOURNAL) ? filesAfter(await recover(state.files)) : state.files
        const models = [await plain(last.get('/a')!), await plain(last.get('/b')!)]
        expect(models[0] === models[1], `${at}: ${state.what}`).toBe(true)
        for (const name of ['/a', '/b']) await mustBeSound(last.get(name)!)
        states++
      }
      expect(await plain(filesAfter(files).get('/a')!)).toBe(old)
    }
    expect(states).toBeGreaterThan(200)
  })
})

function madeByQemu(random: Random, name: string): { bytes: Uint8Array; size: number } {
  const clusterBits = random.pick([9, 10, 12])
  const file = join(dir.path, `${name}.qcow2`)
  const size = clusterBits === 9 ? 2 ** 20 : 2 ** 23
  runSync('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    `cluster_size=${2 ** clusterBits}`,
    file,
    `${size}`,
  ])
  for (let i = 0; i < random.int(0, 3); i++) {
    runSync('qemu-img', ['bitmap', '--add', '-g', String(2 ** random.int(9, 14)), file, `b${i}`])
    const writes = Array.from(
      { length: 4 },
      () => `write -q -P 1 ${random.int(0, size / 512 - 64) * 512} ${512 * random.int(1, 64)}`,
    )
    runSync('qemu-io', [...writes.flatMap(each => ['-c', each]), file])
  }
  return { bytes: readFileSync(file), size }
}
