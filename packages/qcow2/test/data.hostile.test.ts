// Tables that claim what is beyond all reason, or name each other; callers that give up. Each image has one lie; what the
// fuzzer found is here too.
import { buildQcow2, extensionMagic, putU32, putU64, type Qcow2Spec } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { type ImageStorage, memoryStorage } from '../src/index.js'
import { COMPRESSED, COPIED, dataImage } from './data-image.js'
import { CLUSTER, diskOf, extents, field, header, MiB, read, TiB, within } from './hostile.js'
import { sparseStorage } from './sparse.js'

describe('tables', () => {
  const L1_ENTRIES = 4 * MiB

  it('an L1 table of 32 MiB, with nothing in it', async () => {
    const fields = {
      [field.size]: BigInt(L1_ENTRIES) * 2n ** 29n,
      [field.l1Size]: L1_ENTRIES,
      [field.l1Offset]: BigInt(2 * CLUSTER),
    }
    const storage = sparseStorage(32 * MiB + 2 * CLUSTER, [[0, header({}, fields)]])
    await within(5, 200, async () => {
      const disk = await diskOf(storage)
      expect(disk.size).toBe(2 ** 51)
      expect(await extents(disk)).toEqual([
        { start: 0, length: 2 ** 51, depth: 0, present: false, zero: true, data: false, offset: undefined },
      ])
      expect(await read(disk, 2 ** 51 - 10)).toEqual(new Uint8Array(10))
    })
    expect(storage.largestRead()).toBe(32 * MiB)
    expect(storage.bytesRead()).toBeLessThan(33 * MiB)
  })

  it('an L1 table of 32 MiB that names one L2 table four million times: a signal ends it', async () => {
    const place = 32 * MiB + 2 * CLUSTER
    const table = new Uint8Array(32 * MiB)
    for (let i = 0; i < L1_ENTRIES; i++) putU64(table, i * 8, place)
    const fields = {
      [field.size]: BigInt(L1_ENTRIES) * 2n ** 29n,
      [field.l1Size]: L1_ENTRIES,
      [field.l1Offset]: BigInt(2 * CLUSTER),
    }
    const disk = await diskOf(
      sparseStorage(place + CLUSTER, [
        [0, header({}, fields)],
        [2 * CLUSTER, table],
      ]),
    )
    await within(10, 200, async () => {
      const signal = AbortSignal.timeout(100)
      const walk = async () => {
        for await (const _ of disk.extents(0, disk.size, { signal }));
      }
      const began = performance.now()
      await expect(walk()).rejects.toMatchObject({ name: 'TimeoutError' })
      expect(performance.now() - began).toBeLessThan(3000)
    })
  })

  it('a refcount table of 8 MiB', async () => {
    const table = new Uint8Array(8 * MiB)
    for (let i = 0; i < table.length; i += 8) putU64(table, i, BigInt(i) << 9n)
    const built = dataImage({ virtualSize: CLUSTER, l2: [new Uint8Array(CLUSTER).fill(7)] })
    const at = built.bytes.length
    putU64(built.bytes, field.refcountOffset, at)
    putU32(built.bytes, field.refcountClusters, 128)
    const storage = sparseStorage(at + 8 * MiB, [
      [0, built.bytes],
      [at, table],
    ])
    const disk = await within(5, 150, () => diskOf(storage))
    // Its claims are believed: where it says that refcounts are, there is no L2 table.
    await expect(read(disk)).rejects.toThrow('not other metadata')
    expect(storage.bytesRead()).toBeLessThan(9 * MiB)
  })

  it('refcounts of a file of 2^53 − 512 bytes, looked at for what is preallocated', async () => {
    const built = dataImage({
      clusterBits: 9,
      refcountOrder: 6,
      virtualSize: 512,
      l2: [new Uint8Array(512).fill(7)],
    })
    const file = 2 ** 53 - 512
    const storage = sparseStorage(file, [[0, built.bytes]], {
      allocatedBytes: TiB,
      storedRun: async offset =>
        offset < built.bytes.length ? { data: true, end: built.bytes.length } : { data: false, end: file },
    })
    await within(2, 64, async () => {
      expect(await extents(await diskOf(storage))).toMatchObject([{ start: 0, length: 512, data: true }])
    })
  })

  it('a disk of 2^53 − 512 bytes without any table', async () => {
    const file = 3 * 2 * MiB
    const bytes = 2 ** 53 - 512
    const fields = {
      [field.size]: BigInt(bytes),
      [field.l1Size]: 2 ** 14,
      [field.l1Offset]: BigInt(2 * 2 * MiB),
    }
    const disk = await diskOf(sparseStorage(file, [[0, header({ clusterBits: 21 }, fields)]]))
    expect(disk.size).toBe(bytes)
    expect(await extents(disk)).toMatchObject([{ start: 0, length: bytes, zero: true }])
    expect(await extents(disk, bytes - 1, 1)).toMatchObject([{ start: bytes - 1, length: 1 }])
    expect(await read(disk, bytes - 3)).toEqual(new Uint8Array(3))
    await expect(read(disk, bytes - 3, 4)).rejects.toThrow(RangeError)
  })

  it.each([2n ** 53n, 2n ** 60n, 2n ** 63n, 2n ** 64n - 1n])('a disk of %s bytes', async bytes => {
    const fields = { [field.size]: bytes, [field.l1Size]: L1_ENTRIES, [field.l1Offset]: BigInt(2 * 2 * MiB) }
    const storage = sparseStorage(40 * MiB, [[0, header({ clusterBits: 21 }, fields)]])
    await expect(diskOf(storage)).rejects.toMatchObject({ code: 'unsupported-feature' })
    expect(storage.bytesRead()).toBeLessThan(5 * MiB)
  })

  it('a disk of 0 bytes', async () => {
    for (const virtualSize of [0, 1, 511]) {
      const disk = await diskOf(dataImage({ virtualSize, l2: [] }).bytes)
      expect(disk.size).toBe(0)
      expect(await extents(disk)).toEqual([])
      expect(await read(disk)).toEqual(new Uint8Array())
      await expect(read(disk, 0, 1)).rejects.toThrow(RangeError)
    }
  })

  it('clusters of 2 MiB in a file of 112 bytes', async () => {
    const bytes = header({ clusterBits: 21 }).slice(0, 112)
    await expect(diskOf(bytes)).rejects.toMatchObject({ code: 'corrupt-image' })
  })

  it('an L2 table that is its own data', async () => {
    const { bytes, l2 } = dataImage({ virtualSize: 2 * CLUSTER, l2: [0n, 0n] })
    for (const flags of [COPIED, COMPRESSED]) {
      putU64(bytes, l2, flags | BigInt(l2))
      const disk = await diskOf(bytes)
      await expect(read(disk, 0, 1)).rejects.toThrow('a cluster of its own')
      await expect(extents(disk)).rejects.toThrow('a cluster of its own')
      expect(await read(disk, CLUSTER)).toEqual(new Uint8Array(CLUSTER))
    }
  })

  // Of 64 bits, a refcount of 1 is the entry of a cluster of zeros: the disk would be there, and empty.
  it.each(['refcount table', 'refcount block', 'L1 table', 'bitmap directory'] as const)(
    'an L2 table that is the %s',
    async what => {
      const spec: Qcow2Spec = {
        clusterBits: 12,
        refcountOrder: 6,
        virtualSize: 4096,
        bitmaps: [{ name: 'b' }],
      }
      const { bytes, layout } = buildQcow2(spec)
      const place = {
        'refcount table': layout.refcountTable.offset,
        'refcount block': layout.refcountBlocks[0]!,
        'L1 table': layout.l1.offset,
        'bitmap directory': layout.directory!.offset,
      }[what]
      putU64(bytes, layout.l1.offset, COPIED | BigInt(place))
      const disk = await diskOf(bytes)
      await expect(read(disk)).rejects.toThrow('expected an L2 table, not other metadata')
      await expect(extents(disk)).rejects.toThrow('expected an L2 table, not other metadata')
    },
  )

  it('data where the LUKS header is', async () => {
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 2 * CLUSTER } }
    const { bytes, l2 } = dataImage({ ...spec, l2: [0n] })
    const view = new DataView(bytes.buffer)
    const pointer = buildQcow2(spec).layout.extensions.find(({ magic }) => magic === extensionMagic.luks)!
    const key = view.getBigUint64(pointer.dataOffset) + BigInt(CLUSTER)
    view.setBigUint64(l2, COPIED | key)
    await expect(extents(await diskOf(bytes))).rejects.toThrow('which holds metadata')
  })
})

describe('a caller that gives up', () => {
  it('in the middle of a read: its reason, and the next read is as ever', async () => {
    const { bytes } = dataImage({
      virtualSize: 8 * CLUSTER,
      l2: Array.from({ length: 8 }, () => new Uint8Array(CLUSTER).fill(7)),
    })
    const inner = memoryStorage(bytes)
    const abort = new AbortController()
    let data = 0
    const storage: ImageStorage = {
      ...inner,
      async readInto(target, offset, options) {
        if (options?.signal && ++data === 3) abort.abort(new Error('enough'))
        await inner.readInto(target, offset, options)
      },
    }
    // Each other cluster: pieces of their own.
    const l1 = new DataView(bytes.buffer).getBigUint64(40)
    const l2 = Number(new DataView(bytes.buffer).getBigUint64(Number(l1)) & ~COPIED)
    for (const i of [1, 3, 5, 7]) putU64(bytes, l2 + i * 8, 0)
    const disk = await diskOf(storage)
    await expect(disk.readInto(new Uint8Array(8 * CLUSTER), 0, { signal: abort.signal })).rejects.toThrow(
      'enough',
    )
    expect((await read(disk)).filter(byte => byte === 7).length).toBe(4 * CLUSTER)
  })

  it('when the disk has long been opened: only what that signal was for has ended', async () => {
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 2 * CLUSTER } }
    const { bytes } = dataImage({ ...spec, l2: [new Uint8Array(CLUSTER)] })
    const opening = new AbortController()
    const disk = await diskOf(bytes, { signal: opening.signal, passphrase: async () => new Uint8Array(1) })
    opening.abort(new Error('too late'))
    // No LUKS header is there; but that is what is said.
    await expect(read(disk)).rejects.toMatchObject({
      code: 'corrupt-image',
      details: { structure: 'LUKS header' },
    })
  })

  it('while a passphrase is waited for, which nobody gives', async () => {
    const spec: Qcow2Spec = { virtualSize: CLUSTER, luks: { length: 2 * CLUSTER } }
    const { bytes } = dataImage({ ...spec, l2: [new Uint8Array(CLUSTER)] })
    const disk = await diskOf(bytes, { passphrase: () => new Promise(() => {}) })
    const target = new Uint8Array(512)
    for (const signal of [AbortSignal.timeout(20), AbortSignal.abort(new Error('at once'))]) {
      await expect(disk.readInto(target, 0, { signal })).rejects.toThrow(/timeout|at once/)
    }
  })

  it.each<[number, number]>([
    [-1, 1],
    [0, -1],
    [CLUSTER + 5, -5],
    [0.5, 1],
    [0, 0.5],
    [Number.NaN, 1],
    [0, Number.NaN],
    [0, CLUSTER + 1],
    [2 ** 53, 1],
    [0, Number.POSITIVE_INFINITY],
  ])('a stretch that is none: %d, %d', async (start, length) => {
    const disk = await diskOf(dataImage({ virtualSize: CLUSTER, l2: [] }).bytes)
    await expect(extents(disk, start, length)).rejects.toThrow(RangeError)
  })

  it('a stretch that begins behind the end', async () => {
    const disk = await diskOf(dataImage({ virtualSize: CLUSTER, l2: [] }).bytes)
    await expect(extents(disk, CLUSTER + 5)).rejects.toThrow(RangeError)
    expect(await extents(disk, CLUSTER)).toEqual([])
  })
})
