import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { type DirtyMaps, dirtyMaps, makeWebshop, needs, qemuImg, tempDir } from '../src/index.js'

const peers = needs('libvirt', 'qemu-nbd', 'nbdinfo')
const bundled = new URL('../../../examples/webshop/', import.meta.url)
const json = (name: string): unknown => JSON.parse(readFileSync(new URL(name, bundled), 'utf8'))
// The lab's user must get through to the images.
const dir = tempDir(0o711)
afterAll(() => dir.remove())

describe.skipIf(peers.skip)(`the bundled example${peers.label}`, () => {
  it('is what the real libvirt makes and says today', async () => {
    const example = await makeWebshop(dir.file('out'), dir.file('images'))
    expect(example.verdicts).toEqual(json('libvirt-verdicts.json'))
    expect(example.dirtyMaps).toEqual(json('dirty-maps.json'))
    for (const name of ['monday', 'tuesday', 'wednesday']) {
      const path = `libvirt/qemu/checkpoint/webshop/${name}.xml`
      const ours = readFileSync(dir.file(`out/${path}`), 'utf8')
      const there = readFileSync(new URL(path, bundled), 'utf8')
      // The machine type carries QEMU's version.
      const plain = (xml: string): string => xml.replace(/machine='[^']*'/, '')
      expect(plain(ours).replaceAll(dir.file('images'), '/var/lib/libvirt/images/webshop')).toBe(plain(there))
    }
  }, 600_000)

  it('has sound images, whose bitmaps are as told', async () => {
    for (const [name, maps] of Object.entries(json('dirty-maps.json') as DirtyMaps)) {
      const file = fileURLToPath(new URL(`images/${name}`, bundled))
      const found = await qemuImg.check(qemuImg.withoutBacking(file))
      expect(found).toMatchObject({ status: 0, corruptions: 0, leaks: 0 })
      expect(Object.fromEntries(await dirtyMaps(file))).toEqual(maps)
    }
  }, 600_000)

  it('does not take the place of images that are there', async () => {
    await expect(makeWebshop(dir.file('out2'), dir.path)).rejects.toThrow(/exists/)
  })
})
