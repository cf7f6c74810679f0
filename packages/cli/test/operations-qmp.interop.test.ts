import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { needs, qemuImg, qemuIo, run, StorageDaemon, type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { copyImages, outlines, storedBitmaps } from './chain-bitmaps.js'
import { plainEnv, tidemark, tidemarkJson } from './cli.js'
import { union } from './sets.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-storage-daemon')
const MiB = 1024 * 1024
const path = `${fileURLToPath(new URL('../../../node_modules/.bin', import.meta.url))}:${process.env.PATH}`
const targets = ['vda', 'vdb']

interface Command {
  readonly id: string
  readonly execute: string
  readonly arguments: Record<string, unknown>
}

const plans: Record<string, { readonly args: readonly string[]; readonly after?: readonly string[] }> = {
  'delete the oldest': { args: ['delete', 'cp1'] },
  'delete one between': { args: ['delete', 'cp2'] },
  'delete the newest': { args: ['delete', 'cp3'] },
  'active commit': { args: ['commit', '--disk', 'vda', '--top', '0', '--base', '2'] },
  'commit below the top': { args: ['commit', '--disk', 'vda', '--top', '1', '--base', '2'] },
  pull: { args: ['pull', '--disk', 'vdb'] },
  'pull onto a base': { args: ['pull', '--disk', 'vdb', '--base', '2'] },
}

describe.skipIf(peers.skip).each(['independent', 'chained'])(
  `%s bitmaps: QMP in a real QEMU, --apply, and the script do the same${peers.label}`,
  dialect => {
    let dir: TempDir
    let images: string
    const chained = dialect === 'chained'
    const layers = (target: string, folder: string) =>
      [2, 1, 0].map(n => join(folder, `${target}.${n}.qcow2`))
    const where = (folder: string) => [
      ...['--domain-xml', dir.file('domain.xml'), '--checkpoint-dir', dir.file('checkpoints')],
      ...['--map-source', `${images}=${folder}`, '--dialect', dialect],
    ]

    beforeAll(async () => {
      dir = tempDir()
      images = dir.file('images')
      mkdirSync(images)
      mkdirSync(dir.file('checkpoints'))
      for (const [i, target] of targets.entries()) await makeDisk(target, i)
      const disk = (target: string, layer = 0): string =>
        `<disk type='file' device='disk'><driver type='qcow2'/><source file='${layers(target, images)[layer]}'/><target dev='${target}'/></disk>`
      writeFileSync(
        dir.file('domain.xml'),
        `<domain type='kvm'><name>d</name><devices>${targets.map(each => disk(each)).join('')}</devices></domain>`,
      )
      for (const [i, name] of ['cp1', 'cp2', 'cp3'].entries()) {
        const parent = i === 0 ? '' : `<parent><name>cp${i}</name></parent>`
        const disks = targets
          .map(each => `<disk name='${each}' checkpoint='bitmap' bitmap='${name}'/>`)
          .join('')
        // The first was made when the base was the top.
        const then = `<domain type='kvm'><name>d</name><devices>${targets.map(each => disk(each, 2 - i)).join('')}</devices></domain>`
        writeFileSync(
          join(dir.file('checkpoints'), `${name}.xml`),
          `<domaincheckpoint><name>${name}</name>${parent}<creationTime>${1_700_000_000 + i}</creationTime><disks>${disks}</disks>${then}</domaincheckpoint>`,
        )
      }
    }, 600_000)
    afterAll(() => dir?.remove())

    /** cp1, a snapshot, cp2, another snapshot, cp3; a write before and after each. */
    async function makeDisk(target: string, n: number): Promise<void> {
      const [top, middle, base] = layers(target, images)
      const write = (file: string, at: number) => qemuIo(file, [`write -q ${at * MiB + n * 65536} 200k`])
      const add = async (file: string, name: string, older: readonly string[]) => {
        if (chained) for (const each of older) await qemuImg.bitmap('--disable', file, each)
        await qemuImg.bitmap('--add', file, name)
      }
      await qemuImg.create(base!, 16 * MiB)
      await add(base!, 'cp1', [])
      await write(base!, 1)
      await qemuImg.create(middle!, undefined, { backing: base! })
      await add(middle!, 'cp1', [])
      await write(middle!, 2)
      await add(middle!, 'cp2', ['cp1'])
      await write(middle!, 3)
      await qemuImg.create(top!, undefined, { backing: middle! })
      for (const name of chained ? ['cp2'] : ['cp1', 'cp2']) await qemuImg.bitmap('--add', top!, name)
      await write(top!, 4)
      await add(top!, 'cp3', ['cp2'])
      await write(top!, 5)
    }

    /** As a running domain has its images: what is below the top read-only. */
    async function openAll(folder: string): Promise<StorageDaemon> {
      const daemon = await StorageDaemon.start()
      for (const target of targets) {
        const files = layers(target, folder)
        for (const layer of [2, 1, 0]) {
          const node = `${target}-layer${layer}`
          await daemon.qmp('blockdev-add', {
            driver: 'file',
            'node-name': `${node}-file`,
            filename: files[layer],
          })
          await daemon.qmp('blockdev-add', {
            ...{ driver: 'qcow2', 'node-name': node, file: `${node}-file`, 'read-only': layer > 0 },
            backing: layer === 2 ? null : `${target}-layer${layer + 1}`,
          })
        }
      }
      return daemon
    }

    it.each(Object.entries(plans))(
      '%s',
      async (name, { args }) => {
        const folders = ['qmp', 'apply', 'script'].map(way => join(dir.path, `${name} ${way}`))
        const [live, applied, scripted] = folders as [string, string, string]
        for (const folder of folders) await copyImages(images, folder)
        const plan = (folder: string, ...more: string[]) => ['plan', ...args, ...where(folder), ...more]

        const commands = await tidemarkJson<Command[]>(plan(live, '--format', 'qmp'))
        expect(commands.filter(({ execute }) => execute === 'transaction')).toHaveLength(1)
        const daemon = await openAll(live)
        try {
          for (const command of commands) {
            // The base of an active commit is the disk by then.
            if (command.execute === 'block-dirty-bitmap-add') {
              const node = String(command.arguments.node)
              await daemon.qmp('blockdev-reopen', {
                options: [
                  {
                    driver: 'qcow2',
                    'node-name': node,
                    file: `${node}-file`,
                    backing: null,
                    'read-only': false,
                  },
                ],
              })
            }
            await daemon.qmp(command.execute, command.arguments)
          }
          await daemon.quit()
        } finally {
          await daemon.kill()
        }
        const { status, stderr } = await tidemark(plan(applied, '--apply'))
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
        const { stdout: script } = await tidemark(plan(scripted, '--format', 'sh'))
        const bitmapsOnly = script
          .split('\n')
          .filter(line => !line.startsWith('qemu-img'))
          .join('\n')
        await run('sh', ['-e'], { input: bitmapsOnly, env: { ...plainEnv, PATH: path } })

        let changed = 0
        for (const file of readdirSync(images)) {
          const before = await storedBitmaps(join(images, file))
          const theirs = await storedBitmaps(join(live, file))
          const ours = await storedBitmaps(join(applied, file))
          expect([...ours.values()], file).toEqual([...theirs.values()])
          expect([...(await storedBitmaps(join(scripted, file))).values()], file).toEqual([...ours.values()])
          if (JSON.stringify([...before]) !== JSON.stringify([...ours])) changed++
          if (!chained || args[0] !== 'delete') continue
          // The deleted one's marks are its parent's now, and its parent records where it did.
          const gone = before.get(args[1]!)
          const parent = `cp${Number(args[1]!.at(-1)) - 1}`
          if (gone === undefined || args[1] === 'cp1') continue
          expect(ours.get(parent)!.bits).toEqual(union([gone.bits, before.get(parent)?.bits ?? []]))
          expect(ours.get(parent)!.flags).toEqual(gone.flags)
        }
        expect(changed).toBeGreaterThan(0)
      },
      600_000,
    )

    it('a snapshot', async () => {
      const live = join(dir.path, 'snapshot qmp')
      const scripted = join(dir.path, 'snapshot script')
      for (const folder of [live, scripted]) await copyImages(images, folder)
      const disks = (folder: string) =>
        targets.flatMap(each => ['--disk', `${each}=${join(folder, `${each}.new`)}`])
      const commands = await tidemarkJson<Command[]>([
        ...['plan', 'snapshot', ...where(live), ...disks(live), '--format', 'qmp'],
      ])
      const daemon = await openAll(live)
      try {
        for (const target of targets) {
          const node = `${target}-overlay`
          await qemuImg.create(join(live, `${target}.new`), 16 * MiB)
          await daemon.qmp('blockdev-add', {
            ...{ driver: 'file', 'node-name': `${node}-file`, filename: join(live, `${target}.new`) },
          })
          await daemon.qmp('blockdev-add', {
            driver: 'qcow2',
            'node-name': node,
            file: `${node}-file`,
            backing: null,
          })
        }
        for (const { execute, arguments: data } of commands) await daemon.qmp(execute, data)
        await daemon.quit()
      } finally {
        await daemon.kill()
      }
      const { stdout } = await tidemark([
        'plan',
        'snapshot',
        ...where(scripted),
        ...disks(scripted),
        '--format',
        'sh',
      ])
      await run('sh', ['-e'], { input: stdout, env: { ...plainEnv, PATH: path } })
      for (const target of targets) {
        const theirs = await storedBitmaps(join(live, `${target}.new`))
        expect(outlines(theirs)).toHaveLength(chained ? 1 : 3)
        expect([...(await storedBitmaps(join(scripted, `${target}.new`))).values()]).toEqual([
          ...theirs.values(),
        ])
        const chain = await qemuImg.info(join(scripted, `${target}.new`))
        // As the host of the domain calls it.
        expect(chain['backing-filename']).toBe(layers(target, images)[0])
      }
    }, 600_000)

    it('nothing is written where something holds an image, nor where one disk has no such bitmap', async () => {
      const folder = join(dir.path, 'held')
      await copyImages(images, folder)
      const daemon = await openAll(folder)
      try {
        const held = await tidemark(['plan', 'delete', 'cp1', ...where(folder), '--apply'])
        expect(held.status).toBe(4)
      } finally {
        await daemon.quit()
      }
      for (const file of layers('vdb', folder)) {
        const { stdout } = await qemuImg.bitmap('--remove', file, 'cp1').catch(() => ({ stdout: '' }))
        expect(stdout).toBe('')
      }
      const untouched = await storedBitmaps(layers('vda', folder)[1]!)
      const missing = await tidemark(['plan', 'delete', 'cp1', ...where(folder), '--apply'])
      expect(missing.status).toBe(1)
      expect(missing.stderr).toContain("no layer of vdb has the bitmap 'cp1'")
      expect([...(await storedBitmaps(layers('vda', folder)[1]!)).values()]).toEqual([...untouched.values()])
    }, 600_000)
  },
)
