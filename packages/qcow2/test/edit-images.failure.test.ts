// An edit of several images that fails, at each of its writes, flushes and resizes, leaves all of them byte for byte as
// they were, and no journal; and one that is refused touches nothing.
import { buildQcow2 } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { type BitmapAction, editBitmaps, editImages, inspectImage, Qcow2Error } from '../src/index.js'
import { failAt, filesAfter, JOURNAL, RecordedFiles } from './crash-several.js'
import { leaks, mustBeSound, readModel } from './edit-model.js'

const bitmaps = [
  { name: 'a', granularityBits: 9, dirty: [0, 5, 4000] },
  { name: 'b', granularityBits: 12, dirty: [7] },
]
const image = (more: object = {}) =>
  buildQcow2({ virtualSize: 2 ** 21, clusterBits: 9, bitmaps, ...more }).bytes
const names = ['/x', '/y', '/z']
const newFiles = () =>
  new RecordedFiles(
    new Map([
      ...names.map((name, i) => [name, image(i === 2 ? { bitmaps: [] } : {})] as const),
      [JOURNAL, new Uint8Array()],
    ]),
  )
const add: BitmapAction = { action: 'add', name: 'new', granularity: 512 }
const actions: Record<string, BitmapAction[]> = {
  '/x': [add, { action: 'merge', name: 'b', source: 'a' }, { action: 'disable', name: 'a' }],
  '/y': [
    { action: 'remove', name: 'a' },
    { action: 'remove', name: 'b' },
  ],
  '/z': [add],
}

const edit = (files: RecordedFiles, signal?: AbortSignal) =>
  editImages(
    names.map(filename => ({ storage: files.storage(filename), filename, actions: actions[filename]! })),
    { journal: async () => files.journal(), ...(signal && { signal }) },
  )

function mustBeUntouched(files: RecordedFiles, what: string): void {
  const last = filesAfter(files)
  expect(last.get(JOURNAL)?.byteLength ?? 0, what).toBe(0)
  for (const name of names) {
    expect(Buffer.compare(last.get(name)!, files.before.get(name)!), `${what}: ${name}`).toBe(0)
  }
}

describe('an edit of several images that fails', () => {
  it('at each call', async () => {
    const whole = newFiles()
    await edit(whole)
    const wanted = JSON.stringify([...(await readModel(whole.storage('/x')))])
    let [undone, done] = [0, 0]
    for (let at = 0; at < whole.log.length; at++) {
      const files = newFiles()
      failAt(files, at)
      const error = await edit(files).then(
        () => undefined,
        (thrown: Qcow2Error) => thrown,
      )
      if (error !== undefined && error.details.done !== true) {
        expect(error.message).toBe(`call ${at}`)
        mustBeUntouched(files, `call ${at}`)
        undone++
      } else {
        expect(JSON.stringify([...(await readModel(files.storage('/x')))]), `call ${at}`).toBe(wanted)
        done++
      }
    }
    expect(undone).toBeGreaterThan(25)
    expect(done).toBeGreaterThan(5)
  })

  it('a disk that takes nothing any more: the journal stays, and the error says so', async () => {
    const whole = newFiles()
    await edit(whole)
    const second = whole.log.findIndex(({ file }) => file === '/y') + 1
    const files = newFiles()
    const storage = files.storage('/y')
    const dead = async () => {
      throw new Qcow2Error('write-failed', 'dead')
    }
    const push = files.log.push.bind(files.log)
    files.log.push = event => {
      if (files.log.length === second) Object.assign(storage, { writeFrom: dead, flush: dead, resize: dead })
      return push(event)
    }
    await expect(edit(files)).rejects.toMatchObject({
      code: 'write-failed',
      message: expect.stringContaining(`tidemark recover ${JOURNAL}`),
      details: { unfinished: true },
    })
    expect(filesAfter(files).get(JOURNAL)!.byteLength).toBeGreaterThan(512)
  })

  it('is ended by a signal until it is decided, and by none after that', async () => {
    const whole = newFiles()
    await edit(whole)
    const journal = whole.log.flatMap(({ file, operation }, i) =>
      file === JOURNAL && operation === 'flush' ? [i] : [],
    )
    const outcomes = new Set<string>()
    for (let at = 0; at < whole.log.length; at++) {
      const files = newFiles()
      const stop = new AbortController()
      const push = files.log.push.bind(files.log)
      files.log.push = event => {
        if (files.log.length === at) stop.abort(new Error('enough'))
        return push(event)
      }
      // The third record is the decision.
      if (at < journal[2]! - 2) {
        await expect(edit(files, stop.signal), `call ${at}`).rejects.toThrow('enough')
        mustBeUntouched(files, `call ${at}`)
        outcomes.add('undone')
      } else {
        await edit(files, stop.signal)
        expect((await readModel(files.storage('/z'))).has('new')).toBe(true)
        outcomes.add('done')
      }
    }
    expect(outcomes.size).toBe(2)
  })
})

describe('an edit of several images that is refused', () => {
  const refused = async (
    edits: (files: RecordedFiles) => Promise<Parameters<typeof editImages>[0]>,
    error: object,
  ) => {
    const files = newFiles()
    const journal = async () => {
      throw new Error('nobody asks for the journal')
    }
    const list = await edits(files)
    await expect(editImages(list, { journal })).rejects.toMatchObject(error)
    expect(files.log).toEqual([])
  }
  it('a wrong name in the last image', () =>
    refused(
      async files => [
        { storage: files.storage('/x'), filename: '/x', actions: [add] },
        { storage: files.storage('/z'), filename: '/z', actions: [{ action: 'clear', name: 'nobody' }] },
      ],
      { code: 'bitmap-missing' },
    ))
  it('one image twice', () =>
    refused(
      async files => [
        { storage: files.storage('/x'), filename: '/x', actions: [add] },
        { storage: files.storage('/x'), filename: '/link', actions: [add] },
      ],
      { code: 'image-repeated' },
    ))
  it('a merge from an image that is edited too', () =>
    refused(
      async files => [
        { storage: files.storage('/x'), filename: '/x', actions: [add] },
        {
          storage: files.storage('/y'),
          filename: '/y',
          actions: [
            { action: 'merge', name: 'a', source: 'a', image: await inspectImage(files.storage('/x')) },
          ],
        },
      ],
      { code: 'image-repeated' },
    ))
  it('an image of an edit that has not ended, alone too', async () => {
    const marked = image({ autoclearFeatures: 1n << 61n })
    const files = new RecordedFiles(new Map([['/m', marked]]))
    expect((await inspectImage(files.storage('/m'))).findings).toMatchObject([
      { code: 'unfinished-edit', severity: 'warning' },
    ])
    const error = { code: 'cannot-edit', details: { reason: 'unfinished-edit' } }
    await expect(editBitmaps(files.storage('/m'), [add])).rejects.toMatchObject(error)
    const edits = [{ storage: files.storage('/m'), filename: '/m', actions: [add] }]
    await expect(editImages(edits, { journal: async () => files.journal() })).rejects.toMatchObject(error)
    expect(files.log).toEqual([])
  })
  it('nothing is written, and no journal made, for a dry run or what changes nothing', async () => {
    for (const options of [{ dryRun: true }, {}]) {
      const files = newFiles()
      const list: BitmapAction[] = options.dryRun ? [add] : [{ action: 'enable', name: 'a' }]
      const plans = await editImages([{ storage: files.storage('/x'), filename: '/x', actions: list }], {
        ...options,
        journal: async () => {
          throw new Error('nobody asks for the journal')
        },
      })
      expect([plans.length, files.log]).toEqual([1, []])
    }
  })
})

describe('a plan of one image alone', () => {
  it('a longer refcount table stays where the extensions end at the backing file’s name, without an END', async () => {
    const { bytes } = buildQcow2({
      virtualSize: 2 ** 20,
      clusterBits: 9,
      refcountOrder: 6,
      backingFile: '/base/image.qcow2',
    })
    const view = new DataView(bytes.buffer)
    const at = view.getUint32(100)
    bytes.fill(0, at, 512)
    bytes.set(new TextEncoder().encode('/b'), at)
    view.setBigUint64(8, BigInt(at))
    view.setUint32(16, 2)
    const files = new RecordedFiles(new Map([['/one', bytes]]))
    const many = Array.from(
      { length: 4100 },
      (_, i): BitmapAction => ({ action: 'add', name: `n${i}`, granularity: 512 }),
    )
    await editBitmaps(files.storage('/one'), many)
    const last = filesAfter(files).get('/one')!
    await mustBeSound(last)
    expect(await leaks(last)).toEqual([])
    expect((await inspectImage(files.storage('/one'))).backingFile).toBe('/b')
  })
})
