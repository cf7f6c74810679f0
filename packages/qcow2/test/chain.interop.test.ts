// Longer than most: names, mapping and problems of chains need the same folders, images and helpers.
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { needs, qemuImg, tempDir, writeQcow2 } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import {
  type ChainLayer,
  closeChain,
  type ImageOpener,
  type OpenChainOptions,
  openChain,
  Qcow2Error,
} from '../src/index.js'
import { fileOpener } from '../src/node/index.js'

const peers = needs('qemu-img')
const dir = tempDir()
afterAll(() => dir.remove())
let serial = 0
function folder(): string {
  const path = dir.file(`d${serial++}`)
  mkdirSync(path)
  return path
}

const local = fileOpener({ references: 'local' })

async function chain(
  name: string,
  options: Partial<OpenChainOptions> & { format?: string } = {},
): Promise<ChainLayer[]> {
  const { format, ...rest } = options
  const layers = await openChain({ name, format }, { open: local, probe: true, ...rest })
  await closeChain(layers)
  return layers
}

const shape = (layers: readonly ChainLayer[]) =>
  layers.map(({ filename, format, problem }) =>
    problem === undefined ? [filename, format] : [filename, format, problem.code],
  )

describe.skipIf(peers.skip)(`chains as qemu-img makes and sees them${peers.label}`, () => {
  it.each([
    ['relative', (base: string) => base],
    ['relative, a folder up', (base: string, at: string) => `../${at.split('/').at(-1)}/${base}`],
    ['absolute', (base: string, at: string) => join(at, base)],
    ['file:', (base: string, at: string) => `file:${join(at, base)}`],
    ['file:///', (base: string, at: string) => `file://${join(at, base)}`],
    [
      'json: nested',
      (base: string, at: string) =>
        `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: join(at, base) } })}`,
    ],
    [
      'json: dotted',
      (base: string, at: string) =>
        `json:${JSON.stringify({ driver: 'qcow2', 'file.driver': 'file', 'file.filename': join(at, base) })}`,
    ],
  ])('%s', async (_, nameOf) => {
    const at = folder()
    const [base, middle, top] = ['base.qcow2', 'mid.qcow2', 'top.qcow2'].map(name => join(at, name)) as [
      string,
      string,
      string,
    ]
    await qemuImg.create(base, 2 ** 20)
    await qemuImg.create(middle, undefined, { backing: nameOf('base.qcow2', at) })
    await qemuImg.create(top, undefined, { backing: nameOf('mid.qcow2', at) })
    const theirs = await qemuImg.infoChain(top)
    const ours = await chain(top)
    expect(theirs.length).toBe(3)
    expect(ours.map(layer => [layer.depth, layer.format, layer.problem])).toEqual(
      [0, 1, 2].map(i => [i, 'qcow2', undefined]),
    )
    expect(ours.map(layer => layer.inspection?.virtualSize)).toEqual(theirs.map(info => info['virtual-size']))
    expect(ours.map(layer => layer.inspection?.backingFile)).toEqual(
      theirs.map(info => info['backing-filename']),
    )
    expect(new Set(ours.map(layer => layer.storage?.identity)).size).toBe(3)
  })

  it('json: says the format where the header does not', async () => {
    const at = folder()
    const [bottom, base, top] = ['bottom.raw', 'base.qcow2', 'top.qcow2'].map(name => join(at, name)) as [
      string,
      string,
      string,
    ]
    await qemuImg.create(bottom, 2 ** 20, { format: 'raw' })
    await qemuImg.create(base, undefined, { backing: bottom, backingFormat: 'raw' })
    const name = `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: base } })}`
    writeQcow2(top, { backingFile: name })
    expect((await qemuImg.infoChain(top)).map(({ format }) => format)).toEqual(['qcow2', 'qcow2', 'raw'])
    expect(shape(await chain(top))).toEqual([
      [top, 'qcow2'],
      [base, 'qcow2'],
      [bottom, 'raw'],
    ])
  })

  it('a raw bottom, and one whose format nobody says', async () => {
    const at = folder()
    const raw = join(at, 'disk.raw')
    const top = join(at, 'top.qcow2')
    await qemuImg.create(raw, 2 ** 20, { format: 'raw' })
    await qemuImg.create(top, undefined, { backing: 'disk.raw', backingFormat: 'raw' })
    expect(shape(await chain(top))).toEqual([
      [top, 'qcow2'],
      [raw, 'raw'],
    ])
    writeQcow2(top, { backingFile: 'disk.raw' })
    expect(shape(await chain(top))).toEqual([
      [top, 'qcow2'],
      [raw, 'raw'],
    ])
  })
})

describe('names', () => {
  it('are relative to the image that has them, through folders', async () => {
    const at = folder()
    mkdirSync(join(at, 'sub'))
    const [base, middle, top] = [join(at, 'base.qcow2'), join(at, 'sub/mid.qcow2'), join(at, 'top.qcow2')]
    writeQcow2(base)
    writeQcow2(middle, { backingFile: '../base.qcow2', backingFormat: 'qcow2' })
    writeQcow2(top, { backingFile: 'sub/mid.qcow2', backingFormat: 'qcow2' })
    expect(shape(await chain(top))).toEqual([
      [top, 'qcow2'],
      [middle, 'qcow2'],
      // As text, like QEMU: the kernel resolves it.
      [`${at}/sub/../base.qcow2`, 'qcow2'],
    ])
  })

  it('with .. behind a symbolic link mean the folder that the kernel finds', async () => {
    const at = folder()
    mkdirSync(join(at, 'images'))
    mkdirSync(join(at, 'data/vm1'), { recursive: true })
    symlinkSync('../data/vm1', join(at, 'images/current'))
    writeQcow2(join(at, 'data/base.qcow2'), { virtualSize: 4 * 65536 })
    writeQcow2(join(at, 'images/base.qcow2'), { virtualSize: 8 * 65536 })
    writeQcow2(join(at, 'data/vm1/top.qcow2'), { backingFile: '../base.qcow2', backingFormat: 'qcow2' })
    const [, base] = await chain(join(at, 'images/current/top.qcow2'))
    expect(base!.inspection!.virtualSize).toBe(4 * 65536)
  })

  it('mapped: images copied elsewhere', async () => {
    const now = folder()
    const then = '/var/lib/images'
    writeQcow2(join(now, 'base.qcow2'))
    writeQcow2(join(now, 'mid.qcow2'), { backingFile: `${then}/base.qcow2`, backingFormat: 'qcow2' })
    writeQcow2(join(now, 'top.qcow2'), { backingFile: 'mid.qcow2', backingFormat: 'qcow2' })
    const open = fileOpener({ references: 'local', mapPath: path => path.replace(then, now) })
    const layers = await chain(`${then}/top.qcow2`, { open })
    expect(layers.map(({ filename, namedAs }) => [filename, namedAs])).toEqual(
      ['top', 'mid', 'base'].map(name => [join(now, `${name}.qcow2`), `${then}/${name}.qcow2`]),
    )
  })

  it('mapped one by one: a rule for a file goes before the folder of the image above', async () => {
    const [here, there] = [folder(), folder()]
    writeQcow2(join(there, 'base.qcow2'))
    writeQcow2(join(here, 'top.qcow2'), { backingFile: 'base.qcow2', backingFormat: 'qcow2' })
    const rules: Record<string, string> = {
      '/then/top.qcow2': join(here, 'top.qcow2'),
      '/then/base.qcow2': join(there, 'base.qcow2'),
    }
    const open = fileOpener({ references: 'local', mapPath: path => rules[path] ?? path })
    const layers = await chain('/then/top.qcow2', { open })
    expect(layers.map(({ filename, namedAs }) => [filename, namedAs])).toEqual(
      ['top', 'base'].map(name => [rules[`/then/${name}.qcow2`], `/then/${name}.qcow2`]),
    )
  })

  it('end at the first NUL, formats too, as QEMU reads them', async () => {
    const at = folder()
    writeQcow2(join(at, 'base.qcow2'))
    writeQcow2(join(at, 'top.qcow2'), { backingFile: 'base.qcow2\0x', backingFormat: 'qcow2\0' })
    expect(shape(await chain(join(at, 'top.qcow2')))).toEqual([
      [join(at, 'top.qcow2'), 'qcow2'],
      [join(at, 'base.qcow2'), 'qcow2'],
    ])
  })

  it('of a format that nobody knows leave the chain open, not ended', async () => {
    const at = folder()
    writeQcow2(join(at, 'base.qcow2'))
    writeQcow2(join(at, 'top.qcow2'), { backingFile: 'base.qcow2', backingFormat: 'QCOW2' })
    const [, base] = await chain(join(at, 'top.qcow2'))
    expect(base!.problem).toMatchObject({ code: 'unsupported-feature' })
  })

  it('as the caller has them may go on with what the last image says', async () => {
    const at = folder()
    const [top, middle, base] = ['top', 'mid', 'base'].map(name => join(at, `${name}.qcow2`)) as [
      string,
      string,
      string,
    ]
    writeQcow2(base)
    writeQcow2(middle, { backingFile: 'base.qcow2', backingFormat: 'qcow2' })
    writeQcow2(top)
    const backing = [{ name: middle, format: 'qcow2' }]
    expect(shape(await chain(top, { backing }))).toHaveLength(2)
    expect(shape(await chain(top, { backing, backingGoesOn: true }))).toEqual([
      [top, 'qcow2'],
      [middle, 'qcow2'],
      [base, 'qcow2'],
    ])
  })

  it('as the caller has them are paths, however they look', async () => {
    const at = folder()
    writeQcow2(join(at, 'top.qcow2'))
    const deep = `json:${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`
    const [, below] = await chain(join(at, 'top.qcow2'), { backing: [{ name: deep, format: 'qcow2' }] })
    expect(below!.problem?.code).toMatch(/image-missing|read-failed/)
    const [, nowhere] = await chain(join(at, 'top.qcow2'), { backing: [{ name: '', format: 'raw' }] })
    expect(nowhere!.problem).toMatchObject({ code: 'reference-denied' })
  })

  it('as the caller has them, instead of what the images say', async () => {
    const at = folder()
    const [a, b, c] = ['a.qcow2', 'b.qcow2', 'c.qcow2'].map(name => join(at, name)) as [
      string,
      string,
      string,
    ]
    writeQcow2(a, { backingFile: 'b.qcow2', backingFormat: 'qcow2' })
    for (const file of [b, c]) writeQcow2(file)
    expect(shape(await chain(a, { backing: [{ name: c, format: 'qcow2' }] }))).toEqual([
      [a, 'qcow2'],
      [c, 'qcow2'],
    ])
    expect(shape(await chain(a, { backing: [] }))).toEqual([[a, 'qcow2']])
    expect(shape(await chain(a, { topOnly: true }))).toEqual([[a, 'qcow2']])
  })
})

describe('problems end a chain, and leave the layers above', () => {
  it.each([
    ['missing', 'no-such.qcow2', 'image-missing'],
    ['a protocol', 'nbd://host/disk', 'reference-denied'],
    ['a directory', '.', 'read-failed'],
    ['file: relative to who knows what', 'file:top.qcow2', 'reference-denied'],
    [
      'json: relative to who knows what',
      'json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}',
      'reference-denied',
    ],
    ['json: of a network', 'json:{"driver":"qcow2","file":{"driver":"nbd","host":"h"}}', 'reference-denied'],
    ['json: that is none', 'json:{', 'reference-denied'],
    [
      'json: with an offset into the file',
      'json:{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"/dev/null"}}',
      'reference-denied',
    ],
  ])('%s', async (_, backingFile, code) => {
    const top = join(folder(), 'top.qcow2')
    writeQcow2(top, { backingFile, backingFormat: 'qcow2', bitmaps: [{ name: 'b0' }] })
    const layers = await chain(top)
    expect(layers.map(layer => layer.problem?.code)).toEqual([undefined, code])
    expect(layers[0]!.inspection?.bitmapDirectory?.bitmaps.length).toBe(1)
    expect(layers[1]!.problem!.message).not.toBe('')
  })

  it('a backing image that is no qcow2, though it is said to be', async () => {
    const at = folder()
    writeFileSync(join(at, 'base'), Buffer.alloc(65536))
    writeQcow2(join(at, 'top'), { backingFile: 'base', backingFormat: 'qcow2' })
    expect(shape(await chain(join(at, 'top')))[1]).toEqual([join(at, 'base'), 'qcow2', 'not-qcow2'])
  })

  it('a guest’s header in a raw disk is not followed: format not said, qcow2 with a backing file', async () => {
    const at = folder()
    writeQcow2(join(at, 'evil'), { backingFile: '/etc/passwd', backingFormat: 'raw' })
    writeQcow2(join(at, 'top'), { backingFile: 'evil' })
    const layers = await chain(join(at, 'top'))
    expect(layers.map(layer => layer.problem?.code)).toEqual([undefined, 'reference-denied'])
    expect(layers[1]!.inspection).toBeUndefined()
    // Said to be raw: raw it is.
    writeQcow2(join(at, 'top'), { backingFile: 'evil', backingFormat: 'raw' })
    expect(shape(await chain(join(at, 'top')))).toEqual([
      [join(at, 'top'), 'qcow2'],
      [join(at, 'evil'), 'raw'],
    ])
  })

  it.each([1, 2, 3])('a circle of %i', async length => {
    const at = folder()
    for (let i = 0; i < length; i++) {
      writeQcow2(join(at, `${i}`), { backingFile: `${(i + 1) % length}`, backingFormat: 'qcow2' })
    }
    const layers = await chain(join(at, '0'))
    expect(layers.length).toBe(length + 1)
    expect(layers.at(-1)!.problem).toMatchObject({ code: 'corrupt-image', details: { cycle: true } })
  })

  it.each([200, 201, 250])('%i images, of which 200 are read', async length => {
    const at = folder()
    const last = length - 1
    writeQcow2(join(at, `${last}`), { clusterBits: 9 })
    for (let i = 0; i < last; i++)
      writeQcow2(join(at, `${i}`), { clusterBits: 9, backingFile: `${i + 1}`, backingFormat: 'qcow2' })
    const layers = await chain(join(at, '0'))
    expect(layers.length).toBe(Math.min(length, 201))
    expect(layers.filter(layer => layer.problem !== undefined).map(layer => layer.depth)).toEqual(
      length > 200 ? [200] : [],
    )
  })

  it('nothing but the top without leave', async () => {
    const at = folder()
    writeQcow2(join(at, 'base'))
    writeQcow2(join(at, 'top'), { backingFile: 'base', backingFormat: 'qcow2' })
    expect(shape(await chain(join(at, 'top'), { open: fileOpener() }))).toEqual([
      [join(at, 'top'), 'qcow2'],
      ['base', 'qcow2', 'reference-denied'],
    ])
  })

  it('only what is below a folder, wherever links lead', async () => {
    const [at, allowed] = [folder(), folder()]
    writeQcow2(join(allowed, 'base'))
    writeQcow2(join(at, 'secret'))
    mkdirSync(`${allowed}-not`)
    writeQcow2(join(`${allowed}-not`, 'base'))
    symlinkSync(join(at, 'secret'), join(allowed, 'link'))
    symlinkSync(join(allowed, 'base'), join(at, 'back'))
    const open = fileOpener({ references: [allowed] })
    const verdict = async (backingFile: string) => {
      writeQcow2(join(at, 'top'), { backingFile, backingFormat: 'qcow2' })
      const [, base] = await chain(join(at, 'top'), { open })
      return base!.problem?.code
    }
    expect(await verdict(join(allowed, 'base'))).toBeUndefined()
    expect(await verdict('back')).toBeUndefined()
    expect(await verdict(join(allowed, 'link'))).toBe('reference-denied')
    expect(await verdict(join(allowed, '../', at.split('/').at(-1)!, 'secret'))).toBe('reference-denied')
    expect(await verdict('secret')).toBe('reference-denied')
    expect(await verdict(join(`${allowed}-not`, 'base'))).toBe('reference-denied')
    expect(await verdict(join(allowed, 'gone'))).toBe('image-missing')
  })

  it('a format that nobody says is not looked for, unless allowed', async () => {
    const at = folder()
    writeQcow2(join(at, 'base'))
    writeQcow2(join(at, 'top'), { backingFile: 'base' })
    const codes = async (probe?: boolean) =>
      shape(await chain(join(at, 'top'), { probe: probe === true })).map(([, format, code]) => [format, code])
    expect(await codes()).toEqual([
      ['qcow2', undefined],
      ['unknown', 'reference-denied'],
    ])
    expect(await codes(true)).toEqual([
      ['qcow2', undefined],
      ['qcow2', undefined],
    ])
    // Looked for and found: but its own words lead nowhere.
    writeQcow2(join(at, 'base'), { dataFile: { name: '/etc/shadow' } })
    expect(await codes(true)).toEqual([
      ['qcow2', undefined],
      ['qcow2', 'reference-denied'],
    ])
  })

  it('a gate that denies', async () => {
    const at = folder()
    writeQcow2(join(at, 'base'))
    writeQcow2(join(at, 'top'), { backingFile: join(at, 'base'), backingFormat: 'qcow2' })
    const asked: string[] = []
    const open: ImageOpener = async (path, reference) => {
      asked.push(path)
      if (reference.from !== undefined) throw new Qcow2Error('reference-denied', `${path} is not allowed`)
      return local(path, reference)
    }
    expect(shape(await chain(join(at, 'top'), { open }))).toEqual([
      [join(at, 'top'), 'qcow2'],
      [join(at, 'base'), 'qcow2', 'reference-denied'],
    ])
    expect(asked).toEqual([join(at, 'top'), join(at, 'base')])
  })

  it('a gate that fails in another way: thrown, and what was open is closed', async () => {
    const at = folder()
    writeQcow2(join(at, 'top'), { backingFile: 'base', backingFormat: 'qcow2' })
    let closed = 0
    const open: ImageOpener = async (path, reference) => {
      if (reference.from !== undefined) throw new TypeError('a bug')
      const opened = await local(path, reference)
      const storage = { ...opened.storage, name: path, size: opened.storage.size, identity: 'x' }
      return {
        ...opened,
        storage: {
          ...storage,
          readInto: (target: Uint8Array, offset: number) => opened.storage.readInto(target, offset),
          close: async () => {
            closed++
            await opened.storage.close()
          },
        },
      }
    }
    await expect(openChain({ name: join(at, 'top') }, { open })).rejects.toThrow(TypeError)
    expect(closed).toBe(1)
  })

  it('a top that is missing or raw', async () => {
    expect(shape(await chain('/no/such'))).toEqual([['/no/such', 'unknown', 'image-missing']])
    const raw = join(folder(), 'disk')
    writeFileSync(raw, '')
    expect(shape(await chain(raw))).toEqual([[raw, 'raw']])
    expect(shape(await chain(raw, { format: 'qcow2' }))).toEqual([[raw, 'qcow2', 'not-qcow2']])
  })

  it('a copy of a file is another file', async () => {
    const at = folder()
    writeQcow2(join(at, 'a'), { backingFile: 'b', backingFormat: 'raw' })
    copyFileSync(join(at, 'a'), join(at, 'b'))
    expect(shape(await chain(join(at, 'a'))).length).toBe(2)
  })
})
