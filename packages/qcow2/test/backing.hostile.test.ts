// Backing chains in circles and without end, and names that are none.
import { describe, expect, it } from 'vitest'
import { type ImageStorage, memoryStorage, openChain, openDisk, parseBackingName } from '../src/index.js'
import { dataImage } from './data-image.js'
import { CLUSTER, extents, read, within } from './hostile.js'

describe('backing chains', () => {
  const backed = (backingFile: string, backingFormat = 'qcow2') =>
    memoryStorage(dataImage({ virtualSize: CLUSTER, l2: [], backingFile, backingFormat }).bytes, backingFile)
  const chainOf = (images: (name: string) => ImageStorage) =>
    openChain(
      { name: '0', format: 'qcow2' },
      { open: async name => ({ storage: images(name), filename: name, namedAs: name }) },
    )

  it.each([1, 2, 3, 150])('a circle of %i', async length => {
    const images = Array.from({ length }, (_, i) => backed(`${(i + 1) % length}`))
    const chain = await chainOf(name => images[Number(name)]!)
    expect(chain.length).toBe(length + 1)
    expect(chain.at(-1)!.problem).toMatchObject({ code: 'corrupt-image', details: { cycle: true } })
    await expect(openDisk(chain)).rejects.toMatchObject({ code: 'corrupt-image' })
  })

  it('without end: each image names another one', async () => {
    const chain = await within(5, 200, () => chainOf(name => backed(`${Number(name) + 1}`)))
    expect(chain.length).toBe(201)
    await expect(openDisk(chain)).rejects.toThrow('longer than 200')
  })

  it('200 images, and a disk of holes through all of them', async () => {
    const { bytes } = dataImage({
      virtualSize: 128 * CLUSTER,
      l2: Array.from({ length: 128 }, (_, i) => BigInt(i % 2)),
    })
    const bottom = 199
    const chain = await openChain(
      { name: '0', format: 'qcow2' },
      {
        open: async name => ({ storage: memoryStorage(bytes), filename: name, namedAs: name }),
        backing: Array.from({ length: bottom }, (_, i) => ({ name: `${i + 1}`, format: 'qcow2' })),
      },
    )
    const disk = await openDisk(chain)
    await within(5, 200, async () => {
      const all = await extents(disk)
      expect(all.length).toBe(128)
      expect(all[0]).toMatchObject({ depth: bottom, present: false })
      expect((await read(disk)).every(byte => byte === 0)).toBe(true)
    })
  })

  it.each([
    ['a driver that has a toString', '{"driver":[{"toString":1}]}'],
    ['a file name that has one', '{"driver":"file","filename":[{"toString":1}]}'],
    ['arrays in arrays', `{"driver":${'['.repeat(400)}${']'.repeat(400)}}`],
    ['objects in objects', `${'{"a":'.repeat(150)}1${'}'.repeat(150)}`],
    ['an option __proto__', '{"__proto__":["x"],"driver":"file","filename":"/a"}'],
    ['an option constructor', '{"constructor":1,"driver":"file","filename":"/a"}'],
  ])('a json: name with %s', async (_, json) => {
    const name = `json:${json}`
    expect(parseBackingName(name)).toMatchObject({ kind: 'other' })
    const chain = await chainOf(() => backed(name))
    expect(chain.at(-1)!.problem).toMatchObject({ code: 'reference-denied' })
  })
})
