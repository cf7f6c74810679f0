// Snapshot tables that claim too much.
import { putU64 } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { inspectImage, readSnapshots } from '../src/index.js'
import { CLUSTER, diskOf, field, header, MiB, within } from './hostile.js'
import { sparseStorage } from './sparse.js'

describe('snapshots', () => {
  /** One entry of the snapshot table. */
  const entry = (
    id: string,
    more: { l1Size?: number; diskSize?: bigint; name?: number; extra?: number } = {},
  ) => {
    const { name = 0, extra = 16 } = more
    const bytes = new Uint8Array(Math.ceil((40 + extra + id.length + name) / 8) * 8)
    const view = new DataView(bytes.buffer)
    view.setUint32(8, more.l1Size ?? 0)
    view.setUint16(12, id.length)
    view.setUint16(14, name)
    view.setUint32(36, extra)
    if (extra >= 16) view.setBigUint64(48, more.diskSize ?? 0n)
    bytes.set(new TextEncoder().encode(id), 40 + extra)
    bytes.fill(0x6e, 40 + extra + id.length, 40 + extra + id.length + name)
    return bytes
  }
  const PLACE = 4 * CLUSTER
  const image = (count: number, table: Uint8Array, fileSize = PLACE + table.length) =>
    sparseStorage(fileSize, [
      [
        0,
        header(
          {},
          {
            [field.nbSnapshots]: count,
            [field.snapshotsOffset]: BigInt(PLACE),
            [field.l1Offset]: BigInt(2 * CLUSTER),
          },
        ),
      ],
      [PLACE, table.subarray(0, Math.max(0, fileSize - PLACE))],
    ])
  const joined = (entries: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(entries))

  it('65,536 of them, and not one more', async () => {
    const table = joined(Array.from({ length: 65536 }, (_, i) => entry(`${i}`)))
    const storage = image(65536, table)
    await within(3, 150, async () => {
      expect((await diskOf(storage, { snapshot: '65535' })).size).toBe(0)
      const missing = await diskOf(storage, { snapshot: 'none' }).catch(error => error)
      expect(missing).toMatchObject({ code: 'snapshot-missing' })
      expect(missing.message.length).toBeLessThan(1000)
    })
    await expect(diskOf(image(65537, joined([table, entry('')])))).rejects.toMatchObject({
      code: 'corrupt-image',
    })
  })

  it('names of 65,535 bytes, 64 MiB of them: read once', async () => {
    const one = entry('x'.repeat(65535), { name: 65535, extra: 1024 })
    const count = Math.floor((64 * MiB) / one.length)
    const storage = image(count, joined(Array<Uint8Array>(count).fill(one)))
    const { header: parsed } = await inspectImage(storage)
    const snapshots = await within(5, 400, () => readSnapshots(storage, parsed))
    expect(snapshots.length).toBe(count)
    expect(storage.bytesRead()).toBeLessThan(2.5 * 64 * MiB)
    expect(storage.largestRead()).toBeLessThan(MiB)
    const larger = image(count + 1, joined(Array<Uint8Array>(count + 1).fill(one)))
    await expect(diskOf(larger, { snapshot: 'y' })).rejects.toThrow('length')
  })

  it.each<[string, number, Uint8Array, number | undefined]>([
    ['extra data of 1,025 bytes', 1, entry('1', { extra: 1025 }), undefined],
    ['an entry cut by the end of the file', 1, entry('1'), PLACE + 50],
    ['more of them than there are', 65536, entry('1'), PLACE + 65536 * 40],
  ])('%s', async (_, count, table, fileSize) => {
    const disk = diskOf(image(count, table, fileSize), { snapshot: 'none' })
    await expect(disk).rejects.toMatchObject({ code: 'corrupt-image' })
  })

  it.each<[string, { l1Size?: number; diskSize: bigint }, string]>([
    ['more entries than its L1 table has', { l1Size: 1, diskSize: 2n ** 30n }, 'corrupt-image'],
    ['an L1 table behind the end of the file', { l1Size: 2 ** 21, diskSize: 2n ** 50n }, 'corrupt-image'],
    ['an L1 table of 2^32 − 1 entries', { l1Size: 2 ** 32 - 1, diskSize: 2n ** 52n }, 'corrupt-image'],
    ['2^53 bytes', { l1Size: 2 ** 32 - 1, diskSize: 2n ** 53n }, 'unsupported-feature'],
    ['2^64 − 1 bytes', { l1Size: 2 ** 32 - 1, diskSize: 2n ** 64n - 1n }, 'unsupported-feature'],
  ])('a disk of %s', async (_, more, code) => {
    const storage = image(1, entry('1', more))
    await expect(diskOf(storage, { snapshot: '1' })).rejects.toMatchObject({ code })
    expect(storage.bytesRead()).toBeLessThan(MiB)
  })

  it('a disk of 2^60 bytes, where the L1 table is as large as it must be', async () => {
    const cluster = 2 * MiB
    const fields = {
      [field.nbSnapshots]: 1,
      [field.snapshotsOffset]: BigInt(2 * cluster),
      [field.l1Offset]: BigInt(2 * cluster),
    }
    const table = entry('1', { l1Size: 2 ** 21, diskSize: 2n ** 60n })
    putU64(table, 0, 3 * cluster)
    const storage = sparseStorage(20 * cluster, [
      [0, header({ clusterBits: 21 }, fields)],
      [2 * cluster, table],
    ])
    await expect(diskOf(storage, { snapshot: '1' })).rejects.toMatchObject({ code: 'unsupported-feature' })
  })
})
