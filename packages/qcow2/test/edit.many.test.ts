// As many bitmaps as an image may have, in one edit: neither time nor memory grow with their square, or with clusters.
import { buildQcow2 } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { type BitmapAction, editBitmaps, memoryWritable, readBytes } from '../src/index.js'
import { leaks, readModel } from './edit-model.js'

const MOST = 65535
const names = Array.from({ length: MOST }, (_, i) => `bitmap ${i}`)
const empty = () => memoryWritable(buildQcow2({ virtualSize: 2 ** 20, clusterBits: 9, bitmaps: [] }).bytes)

describe('many bitmaps', () => {
  it('as many as there may be, and not one more', async () => {
    const adds: BitmapAction[] = names.map(name => ({ action: 'add', name }))
    const more: BitmapAction[] = [
      ...names.map(name => ({ action: 'rename' as const, name, to: `${name}!` })),
      { action: 'add', name: names[0]! },
    ]
    await expect(editBitmaps(empty(), [...adds, ...more])).rejects.toThrow('at most 65535')
  }, 600_000)

  it('added, changed, renamed and removed, each time all of them at once', async () => {
    const storage = empty()
    const some = names.slice(0, 3000)
    const each = (action: (name: string, i: number) => BitmapAction) => some.map(action)
    await editBitmaps(
      storage,
      each(name => ({ action: 'add', name, granularity: 65536 })),
    )
    const { bitmaps } = await editBitmaps(storage, [
      ...each(name => ({ action: 'disable', name })),
      ...each((name, i) => ({ action: 'rename', name, to: `${i}` })),
      { action: 'remove', name: '7' },
      { action: 'rename', name: '8', to: '7' },
      { action: 'add', name: '8', granularity: 65536 },
    ])
    const wanted = some.map((_, i) => `${i}`).filter(name => name !== '7')
    const [before, after] = [wanted.slice(0, 7), wanted.slice(8)]
    expect(bitmaps.map(({ name }) => name)).toEqual([...before, '7', ...after, '8'])
    expect([...(await readModel(storage)).keys()]).toEqual([...before, '7', ...after, '8'])
    await editBitmaps(
      storage,
      ['7', ...wanted].map(name => ({ action: 'remove', name })),
    )
    expect(await leaks(await readBytes(storage, 0, storage.size))).toEqual([])
    expect(await readModel(storage)).toEqual(new Map())
  }, 600_000)

  it('with tables of several clusters, which are looked for side by side', async () => {
    const { bytes } = buildQcow2({ virtualSize: 2 ** 36, clusterBits: 9, bitmaps: [] })
    const storage = memoryWritable(bytes)
    const { cost } = await editBitmaps(
      storage,
      names.slice(0, 3000).map(name => ({ action: 'add', name, granularity: 65536 })),
    )
    expect(cost).toMatchObject({ data: 0, tables: 12_000 })
    expect((await readModel(storage)).size).toBe(3000)
  }, 600_000)

  it('as bytes to write: of a table what it has, not its cluster', async () => {
    const { bytes } = buildQcow2({ virtualSize: 2 ** 20, clusterBits: 21, bitmaps: [] })
    const { steps } = await editBitmaps(
      memoryWritable(bytes),
      names.slice(0, 1000).map(name => ({ action: 'add', name })),
      { dryRun: true },
    )
    const amount = steps
      .flatMap(({ writes }) => writes)
      .reduce((sum, write) => sum + (write.kind === 'bytes' ? write.bytes.byteLength : 0), 0)
    expect(amount).toBeLessThan(5 * 2 ** 20)
  })
})
