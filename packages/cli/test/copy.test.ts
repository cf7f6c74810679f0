import type { GuestDisk } from '@tidemark/qcow2'
import { Random } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import type { Stretch } from '../src/dirty-data.js'
import { copyStretches } from '../src/dump/copy.js'
import type { DumpTarget } from '../src/dump/target.js'
import { storedParts } from '../src/dump/zero-blocks.js'

const MiB = 2 ** 20

/** A disk of bytes in memory; `readInto` may be made to fail or to wait. */
function memoryDisk(
  bytes: Uint8Array,
  before: (offset: number) => Promise<void> = async () => {},
): GuestDisk {
  return {
    size: bytes.length,
    async readInto(target, offset) {
      await before(offset)
      target.set(bytes.subarray(offset, offset + target.byteLength))
    },
    async *extents() {},
    async close() {},
  }
}

interface Written {
  readonly position: number
  readonly bytes: Buffer
  readonly zeros: boolean
}

/** @param stream what is not written is not zeros there: a pipe, a device */
function listTarget(stream: boolean, fail = -1): DumpTarget & { readonly list: Written[]; running: number } {
  const list: Written[] = []
  const target = {
    list,
    running: 0,
    async write(bytes: Buffer, position: number) {
      target.running++
      await new Promise(resolve => setImmediate(resolve))
      if (list.length === fail) throw new Error('no room')
      list.push({ position, bytes: Buffer.from(bytes), zeros: false })
      target.running--
    },
    zeros: stream
      ? async (position: number, length: number) => {
          list.push({ position, bytes: Buffer.alloc(length), zeros: true })
        }
      : undefined,
    async finish() {},
    discard() {},
  }
  return target
}

async function* stretches(list: readonly Stretch[]) {
  yield list
}

const data = (start: number, length: number): Stretch => ({ start, length, zero: false, data: true })
const zero = (start: number, length: number): Stretch => ({ start, length, zero: true, data: false })
const nobody = () => {}

describe('copying', () => {
  const random = new Random('copy')
  const bytes = Buffer.alloc(11 * MiB + 777)
  for (let at = 0; at < bytes.length; at += 4096) {
    if (random.bool(0.7)) bytes.subarray(at, at + 4096).fill(random.int(0, 255))
  }

  it('to a file: what is not zeros, at its place', async () => {
    const target = listTarget(false)
    const parts = [data(100, 5 * MiB), zero(6 * MiB, MiB), data(8 * MiB + 1, bytes.length - 8 * MiB - 1)]
    const whole = { start: 0, end: bytes.length }
    const copied = await copyStretches(memoryDisk(bytes), whole, stretches(parts), target, nobody)
    const out = Buffer.alloc(bytes.length)
    let written = 0
    for (const { position, bytes } of target.list) {
      bytes.copy(out, position)
      written += bytes.length
    }
    const wanted = Buffer.alloc(bytes.length)
    bytes.copy(wanted, 100, 100, 100 + 5 * MiB)
    bytes.copy(wanted, 8 * MiB + 1, 8 * MiB + 1)
    expect(out.equals(wanted)).toBe(true)
    expect(copied).toEqual({ written, zeros: parts.reduce((sum, { length }) => sum + length, 0) - written })
    // Not one block of zeros among them.
    for (const { position, bytes } of target.list) {
      for (let at = 0; at < bytes.length; ) {
        const end = Math.min(bytes.length, at + 4096 - ((position + at) % 4096))
        expect(bytes.subarray(at, end).some(byte => byte !== 0)).toBe(true)
        at = end
      }
    }
  })

  it('to a pipe: in order, with zeros where nothing is and up to the end, although reads end in any order', async () => {
    const target = listTarget(true)
    const waits = new Random('waits')
    const slow = async () => {
      for (let turns = waits.int(0, 20); turns > 0; turns--)
        await new Promise(resolve => setImmediate(resolve))
    }
    const range = { start: 50, end: bytes.length - 5 }
    const parts = [data(100, 7 * MiB), zero(8 * MiB, MiB), data(9 * MiB, 10)]
    await copyStretches(memoryDisk(bytes, slow), range, stretches(parts), target, nobody)
    let at = range.start
    for (const { position, bytes } of target.list) {
      expect(position).toBe(at)
      at += bytes.length
    }
    expect(at).toBe(range.end)
    const wanted = Buffer.alloc(bytes.length)
    bytes.copy(wanted, 100, 100, 100 + 7 * MiB)
    bytes.copy(wanted, 9 * MiB, 9 * MiB, 9 * MiB + 10)
    const out = Buffer.concat(target.list.map(({ bytes }) => bytes))
    expect(out.equals(wanted.subarray(range.start, range.end))).toBe(true)
  })

  it('tells how far it is, and never backwards', async () => {
    const seen: number[] = []
    const whole = { start: 0, end: bytes.length }
    const parts = [data(0, 4 * MiB), zero(4 * MiB, bytes.length - 4 * MiB)]
    await copyStretches(memoryDisk(bytes), whole, stretches(parts), listTarget(false), at => seen.push(at))
    expect(seen).toEqual([...seen].sort((a, b) => a - b))
    expect(seen.at(-1)).toBe(bytes.length)
  })

  it.each([false, true])(
    'a write that fails ends it, when nothing is under way any more (pipe: %s)',
    async stream => {
      const target = listTarget(stream, 1)
      let reads = 0
      let reading = 0
      const disk = memoryDisk(bytes, async () => {
        reads++
        reading++
        await new Promise(resolve => setTimeout(resolve, 5))
        reading--
      })
      const parts = [data(0, bytes.length)]
      const whole = { start: 0, end: bytes.length }
      await expect(copyStretches(disk, whole, stretches(parts), target, nobody)).rejects.toThrow('no room')
      expect({ reading, writing: target.running }).toEqual({ reading: 0, writing: 1 })
      expect(reads).toBeLessThan(6)
    },
  )

  it('so does a read, and nothing is written behind it', async () => {
    const target = listTarget(true)
    const disk = memoryDisk(bytes, async offset => {
      if (offset === 4 * MiB) throw new Error('corrupt')
    })
    const whole = { start: 0, end: bytes.length }
    const work = copyStretches(disk, whole, stretches([data(0, bytes.length)]), target, nobody)
    await expect(work).rejects.toThrow('corrupt')
    expect(target.list.every(({ position }) => position < 4 * MiB)).toBe(true)
  })
})

describe('blocks of zeros', () => {
  it('are left out where they lie on the disk, whatever the piece begins with', () => {
    const random = new Random('zero-blocks')
    for (let round = 0; round < 300; round++) {
      const position = random.int(0, 20_000)
      const piece = Buffer.alloc(random.int(1, 40_000))
      for (let i = random.int(0, 6); i > 0; i--) {
        const from = random.int(0, piece.length - 1)
        piece.subarray(from, from + random.int(1, 9000)).fill(random.int(0, 1))
      }
      const parts = storedParts(piece, position)
      const stored = Buffer.alloc(piece.length)
      for (let i = 0; i < parts.length; i += 2) stored.fill(1, parts[i], parts[i + 1])
      for (let block = -(position % 4096); block < piece.length; block += 4096) {
        const [from, to] = [Math.max(0, block), block + 4096]
        const some = piece.subarray(from, to).some(byte => byte !== 0)
        // Stored whole or not at all.
        expect(stored.subarray(from, to).every(byte => byte === (some ? 1 : 0))).toBe(true)
      }
      expect(parts).toEqual([...new Set(parts)].sort((a, b) => a - b))
    }
  })
})
