// One field wrong at a time: where the real QEMU refuses to open the image, we find an error; where it opens, none.
import { rmSync, writeFileSync } from 'node:fs'
import { needs, run, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import {
  countDirty,
  createEngine,
  inspectImage,
  memoryStorage,
  openBitmap,
  openImage,
  Qcow2Error,
} from '../src/index.js'
import { mutate, mutations } from './mutations/index.js'

const peers = needs('qemu-img')
const dir = tempDir()
afterAll(() => dir.remove())

const pastEnd = 'QEMU reads zeros behind the end of the file, and so takes guest data or dirty bits for none'
const legal = 'legal by the specification, and readable; we warn'

/** Where we differ from QEMU 7.2 on purpose, and why. */
const divergences: Readonly<Record<string, string>> = {
  'header: disk of 2^53 bytes': 'numbers above 2^53 − 1 are not supported here',
  'header: l1_size 4194304': pastEnd,
  'header: l1_table_offset 0x10000000000': pastEnd,
  'header: refcount_table_offset 0x10000000000': pastEnd,
  'header: refcount_table_clusters 128': pastEnd,
  'extension: LUKS pointer to zeros': 'the LUKS header is read only where guest data is needed',
  'extension: two backing formats': 'the specification allows one; QEMU takes the last without a word',
  'directory entry: table offset past the end': pastEnd,
  'directory entry: table offset 2^56': pastEnd,
  'directory entry: in use: table offset past the end': pastEnd,
  'directory entry: flags 4': legal,
  'directory entry: flags 6': legal,
  'directory entry: extra data that may be ignored': legal,
  'directory entry: the same name twice, in use': 'QEMU loads no in-use bitmap, so it does not see the clash',
  'bitmap table: table entry past the end of the file': pastEnd,
  'bitmap table: table entry with bit 55': pastEnd,
  'file of 104 bytes': pastEnd,
  'file of 111 bytes': pastEnd,
  'file of 112 bytes': pastEnd,
}

/** What is fatal for us, in the image or in a bitmap that QEMU would load. */
async function refusal(bytes: Uint8Array): Promise<string | undefined> {
  const engine = createEngine()
  try {
    const image = await inspectImage(memoryStorage(bytes), engine)
    const fatal = image.findings.find(finding => finding.severity === 'error')
    if (fatal !== undefined) {
      await expect(openImage(memoryStorage(bytes))).rejects.toBeInstanceOf(Qcow2Error)
      return fatal.code
    }
    await openImage(memoryStorage(bytes))
    const { bitmaps = [], stale } = image.bitmapDirectory ?? {}
    for (const bitmap of bitmaps) {
      if (stale || bitmap.inUse) continue
      await countDirty(engine, [openBitmap(image, bitmap, engine)])
    }
    return undefined
  } catch (error) {
    if (error instanceof Qcow2Error) return error.code
    throw error
  }
}

describe.skipIf(peers.skip)(`what QEMU refuses${peers.label}`, () => {
  it('is mutated often enough, each under a name of its own', () => {
    expect(mutations.length).toBeGreaterThan(200)
    const names = new Set(mutations.map(({ name }) => name))
    expect(mutations.map(({ name }) => name)).toEqual([...names])
    expect(Object.keys(divergences).filter(name => !names.has(name))).toEqual([])
  })

  it.each(mutations)('$name', async mutation => {
    const bytes = mutate(mutation)
    const file = dir.file('image.qcow2')
    writeFileSync(file, bytes)
    const ours = await refusal(bytes)
    // QEMU 7.2 dies of a signal for some (LUKS without a header pointer): that is no opening either.
    const theirs = await run('qemu-img', ['info', '-f', 'qcow2', file], { accept: 'any' })
    rmSync(file)
    const agreed = (ours !== undefined) === (theirs.status !== 0)
    expect({ agreed, ours, qemu: theirs.stderr.trim() }).toMatchObject({
      agreed: !(mutation.name in divergences),
    })
  })
})
