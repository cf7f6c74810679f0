// An edit that fails, at each of its writes, flushes and resizes, leaves the image byte for byte as it was; and one
// that is refused does not touch it.
import { buildQcow2 } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import {
  type BitmapAction,
  editBitmaps,
  inspectImage,
  memoryWritable,
  Qcow2Error,
  readBytes,
  type WritableStorage,
} from '../src/index.js'
import { mustBeSound, readModel } from './edit-model.js'

const bitmaps = [
  { name: 'a', granularityBits: 9, dirty: [0, 5, 4000] },
  { name: 'b', granularityBits: 12, dirty: [7] },
  { name: 'odd', granularityBits: 12, flags: 1 },
]
const image = (more: object = {}) =>
  buildQcow2({ virtualSize: 2 ** 21, clusterBits: 9, bitmaps, ...more }).bytes

/** Fails at the nth write, resize or flush from now on, and at none after it. */
function failing(bytes: Uint8Array, at: number, code: 'no-space' | 'write-failed') {
  const inner = memoryWritable(bytes)
  let calls = 0
  const maybe = () => {
    if (calls++ === at) throw new Qcow2Error(code, `call ${at}`)
  }
  const storage: WritableStorage = {
    name: 'failing',
    identity: 'failing',
    resizable: true,
    get size() {
      return inner.size
    },
    readInto: (target, offset, options) => inner.readInto(target, offset, options),
    async writeFrom(part, offset) {
      // A part of it may be there.
      if (calls === at) await inner.writeFrom(part.subarray(0, part.byteLength / 2), offset)
      maybe()
      await inner.writeFrom(part, offset)
    },
    async flush() {
      maybe()
      await inner.flush()
    },
    async resize(size) {
      maybe()
      await inner.resize(size)
    },
    discard: (offset, length) => inner.discard(offset, length),
    close: () => inner.close(),
  }
  return { storage, calls: () => calls }
}

const edits: Record<string, BitmapAction[]> = {
  merge: [{ action: 'merge', name: 'b', source: 'a' }],
  'add, clear and remove': [
    { action: 'add', name: 'new', granularity: 512 },
    { action: 'clear', name: 'a' },
    { action: 'remove', name: 'b' },
  ],
  'so many that refcount blocks are new': Array.from({ length: 60 }, (_, i) => [
    { action: 'add' as const, name: `n${i}`, granularity: 512 },
    { action: 'merge' as const, name: `n${i}`, source: 'a' },
  ]).flat(),
}

describe('an edit that fails', () => {
  it.each(Object.entries(edits))('%s: at each call', async (_, actions) => {
    const bytes = image({ refcountOrder: 6 })
    const before = await readModel(memoryWritable(bytes))
    const whole = failing(bytes, Number.POSITIVE_INFINITY, 'no-space')
    await editBitmaps(whole.storage, actions)
    const after = await readModel(whole.storage)
    // While old clusters are released it is done.
    let [undone, done] = [0, 0]
    for (let at = 0; at < whole.calls(); at++) {
      const { storage } = failing(bytes, at, at % 2 === 0 ? 'no-space' : 'write-failed')
      await expect(editBitmaps(storage, actions)).rejects.toThrow(`call ${at}`)
      const found = await readModel(storage)
      if (JSON.stringify([...found]) === JSON.stringify([...before])) {
        undone++
        expect(Buffer.compare(await readBytes(storage, 0, storage.size), bytes), `call ${at}`).toBe(0)
      } else {
        expect([...found], `call ${at}`).toEqual([...after])
        done++
      }
    }
    expect(undone).toBeGreaterThan(4)
    expect(done).toBeGreaterThan(0)
  })

  it('a longer refcount table: at some of its calls', async () => {
    const bytes = image({ refcountOrder: 6 })
    const before = JSON.stringify([...(await readModel(memoryWritable(bytes)))])
    // More clusters than 64 blocks of 64 refcounts each count.
    const actions = Array.from({ length: 4100 }, (_, i) => ({
      action: 'add' as const,
      name: `n${i}`,
      granularity: 512,
    }))
    const whole = failing(bytes, Number.POSITIVE_INFINITY, 'no-space')
    const plan = await editBitmaps(whole.storage, actions)
    const longer = plan.steps.find(({ name }) => name === 'refcount table')!
    expect(longer.writes).toMatchObject([{ kind: 'bytes', offset: 48 }])
    expect((await readModel(whole.storage)).size).toBe(4103)
    await mustBeSound(await readBytes(whole.storage, 0, whole.storage.size))
    const clusters = countCalls(plan, 1)
    for (const at of [1, 100, clusters - 1, clusters, clusters + 1]) {
      const { storage } = failing(bytes, at, 'write-failed')
      await expect(editBitmaps(storage, actions)).rejects.toThrow(`call ${at}`)
      expect(JSON.stringify([...(await readModel(storage))]), `call ${at}`).toBe(before)
      expect(Buffer.compare(await readBytes(storage, 0, storage.size), bytes), `call ${at}`).toBe(0)
    }
  })

  it('more old bytes in free clusters than are kept: metadata are put back all the same', async () => {
    // 40 tables of 2 MiB go into clusters that hold what was there once.
    const { bytes: built, layout } = buildQcow2({ virtualSize: 2 ** 30, clusterBits: 21 })
    const bytes = new Uint8Array(layout.end + 60 * 2 ** 21).fill(0xaa)
    bytes.set(built)
    const actions = Array.from({ length: 40 }, (_, i) => ({ action: 'add' as const, name: `n${i}` }))
    const whole = failing(bytes, Number.POSITIVE_INFINITY, 'no-space')
    await editBitmaps(whole.storage, actions)
    for (const before of [1, 3]) {
      const at = whole.calls() - before
      const { storage } = failing(bytes, at, 'write-failed')
      await expect(editBitmaps(storage, actions)).rejects.toThrow(`call ${at}`)
      expect((await readModel(storage)).size).toBe(0)
      const left = await readBytes(storage, 0, storage.size)
      expect(left.byteLength).toBe(bytes.byteLength)
      expect(Buffer.compare(left.subarray(0, layout.end), bytes.subarray(0, layout.end))).toBe(0)
    }
  })

  it('no-space on a device that cannot grow: before anything is written', async () => {
    const bytes = image()
    const storage = memoryWritable(bytes, { resizable: false })
    await expect(editBitmaps(storage, edits['so many that refcount blocks are new']!)).rejects.toMatchObject({
      code: 'no-space',
    })
    expect(Buffer.compare(await readBytes(storage, 0, storage.size), bytes)).toBe(0)
  })

  it('is ended by a signal between its steps, when new clusters have been written and counted', async () => {
    const bytes = image({ refcountOrder: 6 })
    const stop = new AbortController()
    const { storage } = failing(bytes, Number.POSITIVE_INFINITY, 'no-space')
    const { flush } = storage
    storage.flush = async () => {
      await flush()
      stop.abort(new Error('enough'))
    }
    const actions = edits['so many that refcount blocks are new']!
    await expect(editBitmaps(storage, actions, { signal: stop.signal })).rejects.toThrow('enough')
    expect(Buffer.compare(await readBytes(storage, 0, storage.size), bytes)).toBe(0)
  })

  it('is ended by a signal before the switch, and leaves no trace', async () => {
    const bytes = image()
    const storage = memoryWritable(bytes)
    const stop = new AbortController()
    const work = editBitmaps(storage, edits.merge!, {
      signal: stop.signal,
      onPlan: () => stop.abort(new Error('enough')),
    })
    await expect(work).rejects.toThrow('enough')
    expect(Buffer.compare(await readBytes(storage, 0, storage.size), bytes)).toBe(0)
  })
})

/** Calls that steps up to one make at least: a write each, and a flush. */
function countCalls(plan: Awaited<ReturnType<typeof editBitmaps>>, steps: number): number {
  return plan.steps.slice(0, steps).reduce((sum, { writes }) => sum + writes.length + 1, 0)
}

describe('an edit that is refused', () => {
  const cases: [string, Uint8Array, BitmapAction[], object][] = [
    [
      'version 2',
      buildQcow2({ version: 2 }).bytes,
      [{ action: 'add', name: 'x' }],
      { code: 'cannot-edit', details: { reason: 'version-2' } },
    ],
    [
      'marked corrupt',
      image({ incompatibleFeatures: 2n }),
      [{ action: 'add', name: 'x' }],
      { details: { reason: 'corrupt-flag' } },
    ],
    [
      'dirty',
      image({ incompatibleFeatures: 1n, compatibleFeatures: 1n }),
      [{ action: 'add', name: 'x' }],
      { details: { reason: 'dirty' } },
    ],
    [
      'stale',
      image({ bitmapsConsistent: false }),
      [{ action: 'remove', name: 'a' }],
      { details: { reason: 'stale-bitmaps' } },
    ],
    [
      'an unknown feature',
      image({ incompatibleFeatures: 1n << 40n }),
      [{ action: 'remove', name: 'a' }],
      { code: 'unsupported-feature' },
    ],
    ['in use', image(), [{ action: 'clear', name: 'odd' }], { code: 'bitmap-inconsistent' }],
    [
      'a source in use',
      image(),
      [{ action: 'merge', name: 'a', source: 'odd' }],
      { code: 'bitmap-inconsistent' },
    ],
    ['missing', image(), [{ action: 'disable', name: 'x' }], { code: 'bitmap-missing' }],
    [
      'missing after it was removed',
      image(),
      [
        { action: 'remove', name: 'a' },
        { action: 'clear', name: 'a' },
      ],
      { code: 'bitmap-missing' },
    ],
    ['there already', image(), [{ action: 'add', name: 'a' }], { code: 'bitmap-exists' }],
    ['a name of another', image(), [{ action: 'rename', name: 'a', to: 'b' }], { code: 'bitmap-exists' }],
    [
      'a name that QEMU would take for another',
      image({ bitmaps: [...bitmaps, { name: 'x\0y' }] }),
      [{ action: 'add', name: 'x' }],
      { code: 'bitmap-exists' },
    ],
    [
      'a disk without bytes',
      image({ virtualSize: 0, bitmaps: [{ name: 'b', granularityBits: 12 }].slice(1) }),
      [{ action: 'add', name: 'x' }],
      { code: 'bitmap-invalid' },
    ],
    ['half of a surrogate pair', image(), [{ action: 'add', name: 'x\ud800' }], { code: 'bitmap-invalid' }],
    ['no name', image(), [{ action: 'add', name: '' }], { code: 'bitmap-invalid' }],
    ['a long name', image(), [{ action: 'add', name: 'n'.repeat(1024) }], { code: 'bitmap-invalid' }],
    [
      'an odd granularity',
      image(),
      [{ action: 'add', name: 'x', granularity: 1000 }],
      { code: 'bitmap-invalid' },
    ],
  ]
  it.each(cases)('%s', async (_, bytes, actions, error) => {
    const storage = memoryWritable(bytes)
    await expect(editBitmaps(storage, actions)).rejects.toMatchObject(error)
    expect(Buffer.compare(await readBytes(storage, 0, storage.size), bytes)).toBe(0)
  })

  it('but one in use can be removed, and keeps its flag when others change', async () => {
    const storage = memoryWritable(image())
    await editBitmaps(storage, [{ action: 'clear', name: 'a' }])
    expect((await readModel(storage)).get('odd')).toMatchObject({ inUse: true })
    await editBitmaps(storage, [{ action: 'remove', name: 'odd' }])
    expect([...(await readModel(storage)).keys()]).toEqual(['a', 'b'])
  })

  it('a bitmap of another image that somebody opens meanwhile is not taken for what it was', async () => {
    const other = memoryWritable(buildQcow2({ virtualSize: 2 ** 21, clusterBits: 9, bitmaps }).bytes)
    const bytes = image()
    const storage = memoryWritable(bytes)
    const actions: BitmapAction[] = [
      { action: 'merge', name: 'b', source: 'a', image: await inspectImage(other) },
    ]
    await editBitmaps(other, [{ action: 'clear', name: 'b' }])
    await expect(editBitmaps(storage, actions)).rejects.toMatchObject({ code: 'read-failed' })
    expect(Buffer.compare(await readBytes(storage, 0, storage.size), bytes)).toBe(0)
    const again: BitmapAction[] = [
      { action: 'merge', name: 'b', source: 'a', image: await inspectImage(other) },
    ]
    await editBitmaps(storage, again)
    expect((await readModel(storage)).get('b')!.edges!.length).toBeGreaterThan(2)
  })

  it('one in use whose table is damaged is left alone, or leaks', async () => {
    const { bytes, layout } = buildQcow2({ virtualSize: 2 ** 21, clusterBits: 9, bitmaps })
    new DataView(bytes.buffer).setBigUint64(layout.bitmaps[2]!.table.offset, BigInt(layout.l1.offset))
    const storage = memoryWritable(bytes)
    await editBitmaps(storage, [{ action: 'clear', name: 'a' }])
    await editBitmaps(storage, [{ action: 'remove', name: 'odd' }])
    expect([...(await readModel(storage)).keys()]).toEqual(['a', 'b'])
    await mustBeSound(await readBytes(storage, 0, storage.size))
  })

  it('a file that ends within the last cluster of a bitmap', async () => {
    const { bytes } = buildQcow2({
      virtualSize: 2 ** 26,
      bitmaps: [{ name: 'x', granularityBits: 12, dirty: [160] }],
    })
    const storage = memoryWritable(bytes.slice(0, bytes.length - 1000))
    await editBitmaps(storage, [
      { action: 'add', name: 'y' },
      { action: 'merge', name: 'y', source: 'x' },
    ])
    const { x, y } = Object.fromEntries(await readModel(storage))
    expect([x!.edges, y!.edges]).toEqual([
      [160 * 4096, 161 * 4096],
      [160 * 4096 - ((160 * 4096) % 65536), 160 * 4096 - ((160 * 4096) % 65536) + 65536],
    ])
    await mustBeSound(await readBytes(storage, 0, storage.size))
  })

  it('nothing is written for what changes nothing', async () => {
    const bytes = image()
    const { storage, calls } = failing(bytes, Number.POSITIVE_INFINITY, 'no-space')
    const plan = await editBitmaps(storage, [
      { action: 'enable', name: 'a' },
      { action: 'merge', name: 'a', source: 'a' },
    ])
    expect([plan.steps, calls()]).toEqual([[], 0])
    const dry = await editBitmaps(storage, [{ action: 'clear', name: 'a' }], { dryRun: true })
    expect([dry.steps.length > 2, calls()]).toEqual([true, 0])
  })
})
