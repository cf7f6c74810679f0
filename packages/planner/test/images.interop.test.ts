/** Images that QEMU made, and what is odd about them: what the planner is told, and what it makes of it. */
import { chmodSync, copyFileSync, rmSync, symlinkSync } from 'node:fs'
import { COMBINE_ARENA_BYTES, createEngine } from '@tidemark/qcow2'
import { needs, qemuImg, qemuIo, run, type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DomainDisk, planBackup, planToSh } from '../src/index.js'
import { type MapRule, openDomainImages } from '../src/node/index.js'
import { checkpoint, disk, domain } from './facts.js'

const peers = needs('qemu-img')

describe.skipIf(peers.skip)(`odd images${peers.label}`, () => {
  let dir: TempDir
  beforeAll(() => {
    dir = tempDir()
  })
  afterAll(() => dir.remove())

  const image = async (name: string, options: Parameters<typeof qemuImg.create>[2] = {}): Promise<string> => {
    const file = dir.file(name)
    await qemuImg.create(file, options.backing === undefined ? '8M' : undefined, options)
    await qemuImg.bitmap('--add', file, 'cp1')
    return file
  }
  const planOf = async (
    source: string,
    change: Partial<DomainDisk> = {},
    mapRules: readonly MapRule[] = [],
  ) => {
    const vda = disk('vda', source, change)
    const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
    const images = await openDomainImages(domain([vda]), { engine, mapRules })
    await images.close()
    const checkpoints = [checkpoint('cp1', { domain: domain([vda]) })]
    return planBackup({ domain: domain([vda]), checkpoints, ...images }, { incremental: 'cp1' })
  }
  const verdict = async (...args: Parameters<typeof planOf>) => {
    const { mode, libvirt, reasons } = (await planOf(...args)).disks[0]!
    return [mode, libvirt, ...reasons.map(({ code }) => code)]
  }

  it('marked corrupt: QEMU opens it for no guest', async () => {
    const file = await image('corrupt.qcow2')
    expect(await verdict(file)).toEqual(['incremental', 'accept'])
    // incompatible_features, bit 1.
    await run('sh', ['-c', `printf '\\002' | dd of=${file} bs=1 seek=79 conv=notrunc status=none`])
    await expect(qemuIo(file, ['write 0 64k'])).rejects.toThrow('cannot be opened read/write')
    expect(await verdict(file)).toEqual(['full', 'reject', 'image-corrupt'])
  })

  it('that who asks may not open: not known', async () => {
    const file = await image('closed.qcow2')
    chmodSync(file, 0)
    // Root may open anything, so it asks as another user.
    const root = process.geteuid!() === 0
    try {
      if (root) process.seteuid!(65534)
      expect(await verdict(file)).toEqual(['unknown', 'unknown', 'image-inaccessible'])
    } finally {
      if (root) process.seteuid!(0)
      chmodSync(file, 0o644)
    }
    expect(await verdict(file)).toEqual(['incremental', 'accept'])
  })

  it('with an external data file: without it the image is nothing, and a raw one is open to others', async () => {
    const data = dir.file('data.raw')
    for (const [raw, codes] of [
      ['off', []],
      ['on', ['data-file-raw']],
    ] as const) {
      const file = dir.file(`data-${raw}.qcow2`)
      rmSync(data, { force: true })
      await run('qemu-img', [
        'create',
        '-qfqcow2',
        '-o',
        `data_file=${data},data_file_raw=${raw}`,
        file,
        '8M',
      ])
      await qemuImg.bitmap('--add', file, 'cp1')
      expect(await verdict(file)).toEqual(['incremental', 'accept', ...codes])
      rmSync(data)
      expect(await verdict(file)).toEqual(['full', 'reject', 'image-missing', ...codes.slice(1)])
      expect(await verdict(file, {}, [{ from: data, to: file }])).toEqual(['incremental', 'accept', ...codes])
    }
  })

  describe("the domain's <backingStore> and the image's header", () => {
    const over = (...files: string[]) => ({
      backingStore: files.map(source => ({ type: 'file', source, format: 'qcow2' })),
    })
    let base: string
    let top: string
    beforeAll(async () => {
      base = await image('base.qcow2')
      top = await image('top.qcow2', { backing: base })
    })

    it('differ: a note, and no shell commands, which would read another disk', async () => {
      const other = await image('other.qcow2')
      for (const [change, header, below] of [
        [over(), base, null],
        [over(other), base, other],
      ] as const) {
        const plan = await planOf(top, change)
        expect(plan.disks[0]).toMatchObject({
          mode: 'incremental',
          libvirt: 'accept',
          reasons: [
            { code: 'backing-file-differs', severity: 'note', evidence: { layer: 0, header, below } },
          ],
        })
        expect(planToSh(plan)).toMatch(/^printf .*vda: not backed up: .*\nexit 1\n$/m)
        expect(planToSh(plan)).not.toMatch(/^tidemark|^qemu-img/m)
      }
      expect(await verdict(base, over(other))).toEqual(['incremental', 'accept', 'backing-file-differs'])
    })

    it('agree, by whatever name', async () => {
      const link = dir.file('link.qcow2')
      symlinkSync(base, link)
      const relative = await image('relative.qcow2', { backing: base })
      await run('qemu-img', ['rebase', '-u', '-F', 'qcow2', '-b', './base.qcow2', relative])
      for (const [source, below] of [
        [top, base],
        [top, link],
        [relative, base],
      ] as const) {
        expect(await verdict(source, over(below))).toEqual(['incremental', 'accept'])
      }
      expect(await verdict(top, { ...over(), backingStoreGoesOn: true })).toEqual(['incremental', 'accept'])
    })

    it('agree where both were copied elsewhere', async () => {
      const away = tempDir()
      try {
        for (const name of ['top.qcow2', 'base.qcow2']) copyFileSync(dir.file(name), away.file(name))
        const rules = [{ from: '/host', to: away.path }]
        const there = [`/host/top.qcow2`, over('/host/base.qcow2')] as const
        // The header still names the folder where the test made it.
        expect(await verdict(...there, [...rules, { from: dir.path, to: away.path }])).toEqual([
          ...['incremental', 'accept'],
        ])
        await run('qemu-img', [
          'rebase',
          '-u',
          '-F',
          'qcow2',
          '-b',
          '/host/base.qcow2',
          away.file('top.qcow2'),
        ])
        expect(await verdict(...there, rules)).toEqual(['incremental', 'accept'])
      } finally {
        away.remove()
      }
    })
  })

  it('with an internal snapshot: QEMU goes back to none while there are bitmaps, whether they record or not', async () => {
    const file = dir.file('snapshot.qcow2')
    await qemuImg.create(file, '8M')
    await qemuImg.snapshot('-c', 'before', file)
    await qemuImg.bitmap('--add', file, 'cp1')
    await expect(qemuImg.snapshot('-a', 'before', file)).rejects.toThrow('active dirty bitmaps')
    await qemuImg.bitmap('--disable', file, 'cp1')
    await expect(qemuImg.snapshot('-a', 'before', file)).rejects.toThrow('active dirty bitmaps')
    await qemuImg.bitmap('--enable', file, 'cp1')
    expect(await verdict(file)).toEqual(['incremental', 'accept'])
  })
})
