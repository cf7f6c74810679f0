import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LibvirtLab, needs, qemuImg, Random, run, type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { copyImages, lacks, outlines, storedBitmaps } from './chain-bitmaps.js'
import { plainEnv, tidemark, tidemarkJson } from './cli.js'

const peers = needs('libvirt')
const KiB = 1024
const SIZE = 16 * 1024 * KiB
const domain = 'jobs'
const path = `${fileURLToPath(new URL('../../../node_modules/.bin', import.meta.url))}:${process.env.PATH}`

interface Step {
  /** What libvirt is told; `chain` has the disk's files, top first. */
  readonly virsh: (chain: readonly string[]) => readonly string[]
  readonly plan: (chain: readonly string[]) => readonly string[]
  /** The layers to compare afterwards. */
  readonly left: (chain: readonly string[]) => readonly string[]
  /** The layer into which QEMU's commit writes: bitmaps that record there record that too. */
  readonly written?: (chain: readonly string[]) => string
  /** Images that there must be for --apply: the others are compared by the script alone. */
  readonly makes?: boolean
}

/** Its disk lacks a bitmap in the middle of the chain. */
const trap = 'pull of everything'
const file = (chain: readonly string[], layer: number): string => chain.at(layer)!
const steps: Record<string, Step> = {
  'active commit': {
    virsh: chain => ['blockcommit', '--base', file(chain, -1), '--active', '--pivot', '--wait'],
    plan: chain => ['commit', '--top', '0', '--base', file(chain, -1)],
    left: chain => chain.slice(-1),
    written: chain => file(chain, -1),
  },
  'commit of the layer below the top': {
    virsh: chain => ['blockcommit', '--top', file(chain, 1), '--base', file(chain, 2), '--wait'],
    plan: () => ['commit', '--top', '1', '--base', '2'],
    left: chain => [file(chain, 0), ...chain.slice(2)],
    written: chain => file(chain, 2),
  },
  'commit of two layers in the middle': {
    virsh: chain => ['blockcommit', '--top', file(chain, 1), '--base', file(chain, 3), '--wait'],
    plan: chain => ['commit', '--top', file(chain, 1), '--base', file(chain, 3)],
    left: chain => [file(chain, 0), file(chain, 3)],
    written: chain => file(chain, 3),
  },
  'pull of everything': {
    virsh: () => ['blockpull', '--wait'],
    plan: () => ['pull'],
    left: chain => chain.slice(0, 1),
  },
  'pull down to a base': {
    virsh: chain => ['blockpull', '--base', file(chain, 2), '--wait'],
    plan: () => ['pull', '--base', '2'],
    left: chain => [file(chain, 0), ...chain.slice(2)],
  },
  'deep copy': {
    virsh: chain => [
      'blockcopy',
      '--dest',
      `${chain[0]}.copy`,
      '--transient-job',
      '--pivot',
      '--wait',
      '--format',
      'qcow2',
    ],
    plan: chain => ['copy', '--target', `${chain[0]}.copy`],
    left: chain => [`${chain[0]}.copy`],
    makes: true,
  },
  'shallow copy': {
    virsh: chain => [
      'blockcopy',
      '--dest',
      `${chain[0]}.copy`,
      '--shallow',
      '--transient-job',
      '--pivot',
      '--wait',
      '--format',
      'qcow2',
    ],
    plan: chain => ['copy', '--shallow', '--target', `${chain[0]}.copy`],
    left: chain => [`${chain[0]}.copy`, ...chain.slice(1)],
    makes: true,
  },
}

/** Random histories of one domain: each step's disk has four layers, five checkpoints, and some harm. */
describe.skipIf(peers.skip)(
  `bitmaps after what libvirt does, and after what tidemark plans${peers.label}`,
  () => {
    let lab: LibvirtLab
    let dir: TempDir
    const names = Object.keys(steps)
    const targets = names.map((_, i) => `sd${String.fromCharCode(97 + i)}`)
    const chains = new Map<string, string[]>()
    const random = new Random('operations')

    const snapshot = async (name: string): Promise<void> => {
      const overlays = Object.fromEntries(
        targets.map(target => [target, lab.image(`${target}.${name}.qcow2`)]),
      )
      await lab.snapshot(domain, name, overlays)
      for (const target of targets) chains.get(target)!.unshift(overlays[target]!)
    }
    const writes = async (): Promise<void> => {
      for (const target of targets) {
        const offset = random.int(0, SIZE / 512 - 600) * 512
        await lab.guestWrite(domain, target, random.int(1, 255), offset, random.int(1, 600) * 512)
      }
    }
    const options = (images: string): string[] => [
      ...['--domain', domain, '--libvirt-root', join(dir.path, 'libvirt')],
      ...['--map-source', `${lab.images}=${images}`],
    ]
    const elsewhere = (images: string) => (name: string) => name.replace(`${lab.images}/`, `${images}/`)

    beforeAll(async () => {
      lab = await LibvirtLab.start()
      dir = tempDir(0o711)
      const disks = targets.map(target => ({ target, source: lab.image(`${target}.qcow2`) }))
      for (const { source } of disks) await lab.createImage(source, SIZE)
      for (const { target, source } of disks) chains.set(target, [source])
      await lab.defineDomain({ name: domain, disks })
      await lab.startDomain(domain)
      await writes()
      await lab.checkpoint(domain, 'cp1')
      await writes()
      await snapshot('s1')
      await lab.checkpoint(domain, 'cp2')
      await writes()
      await snapshot('s2')
      await writes()
      await lab.checkpoint(domain, 'cp3')
      await writes()
      await snapshot('s3')
      await writes()
      await lab.checkpoint(domain, 'cp4')
      await writes()
      await lab.destroyDomain(domain)
      // Broken ones are passed over, by both. What a pull hides is a trap, which libvirt walks into.
      for (const [i, target] of targets.entries()) {
        const chain = chains.get(target)!
        if (random.bool()) await qemuImg.bitmap('--disable', chain[0]!, 'cp3')
        if (names[i] === trap || random.bool(0.3)) await qemuImg.bitmap('--remove', chain[2]!, 'cp1')
      }
      await run('cp', ['-r', lab.libvirtRoot, join(dir.path, 'libvirt')])
      for (const name of ['apply', 'script']) await copyImages(lab.images, join(dir.path, name))
      await lab.startDomain(domain)
    }, 600_000)
    afterAll(async () => {
      await lab?.stop()
      dir?.remove()
    }, 600_000)

    it.each(names)(
      '%s',
      async name => {
        const step = steps[name]!
        const target = targets[names.indexOf(name)]!
        const chain = chains.get(target)!
        const [command, ...rest] = step.virsh(chain)
        await lab.virsh(command!, domain, target, ...rest)
      },
      600_000,
    )

    it('libvirt accepts a backup that the pull has made wrong', async () => {
      const verdict = await lab.backupVerdict(domain, 'cp1', targets[names.indexOf(trap)]!)
      expect(verdict).toEqual({ verdict: 'accept' })
    }, 600_000)

    it('the same, planned and applied to copies', async () => {
      await lab.destroyDomain(domain)
      for (const [i, name] of names.entries()) {
        const { makes, plan } = steps[name]!
        const chain = chains.get(targets[i]!)!
        for (const way of ['apply', 'script']) {
          const images = join(dir.path, way)
          const there = chain.map(elsewhere(images))
          const [kind, ...rest] = plan(there)
          const args = ['plan', kind!, ...options(images), '--disk', targets[i]!, ...rest]
          if (way === 'apply' && !makes) {
            const { status, stderr } = await tidemark([...args, '--apply'])
            expect({ status, stderr }, name).toEqual({ status: 0, stderr: '' })
          } else if (way === 'script') {
            const { stdout, status } = await tidemark([...args, '--format', 'sh'])
            expect(status, name).toBe(0)
            await run('sh', ['-e'], { input: stdout, env: { ...plainEnv, PATH: path } })
          }
        }
      }
    }, 600_000)

    it.each(names)(
      '%s: the same bitmaps',
      async name => {
        const { left, makes, written } = steps[name]!
        const chain = chains.get(targets[names.indexOf(name)]!)!
        for (const image of left(chain)) {
          const theirs = await storedBitmaps(image)
          const script = await storedBitmaps(elsewhere(join(dir.path, 'script'))(image))
          if (image === left(chain)[0]) expect(theirs.size, name).toBeGreaterThan(0)
          // libvirt goes on recording into one whose gap it has pulled away; here it is removed.
          const traps = [...theirs].filter(
            ([bitmap, { flags }]) => flags.length > (script.get(bitmap)?.flags.length ?? 0),
          )
          for (const [bitmap] of traps) expect(name.startsWith('pull'), `${name}: ${bitmap}`).toBe(true)
          if (name === trap) expect(traps.map(([bitmap]) => bitmap)).toEqual(['cp1'])
          const untrapped = (all: typeof theirs) =>
            new Map([...all].filter(([bitmap]) => !traps.some(([trap]) => trap === bitmap)))
          expect(outlines(untrapped(script)), `${name}: ${image}`).toEqual(outlines(untrapped(theirs)))
          for (const [bitmap, { bits }] of untrapped(theirs)) {
            // qemu-img's own copying is recorded too: more, never less.
            expect(lacks(script.get(bitmap)!.bits, bits), `${name}: ${bitmap} of ${image}`).toEqual([])
          }
          if (makes) {
            for (const [bitmap, { bits }] of theirs) {
              expect(script.get(bitmap)!.bits, `${name}: ${bitmap} of ${image}`).toEqual(bits)
            }
            continue
          }
          const before = await storedBitmaps(elsewhere(join(dir.path, 'apply'))(image))
          expect(outlines(untrapped(before)), `${name}: ${image}`).toEqual(outlines(untrapped(theirs)))
          for (const [bitmap, { bits }] of untrapped(theirs)) {
            const own = before.get(bitmap)!.bits
            expect(lacks(bits, own), `${name}: ${bitmap} of ${image}`).toEqual([])
            if (written?.(chain) !== image) expect(own, `${name}: ${bitmap} of ${image}`).toEqual(bits)
          }
        }
      },
      600_000,
    )

    it('a deleted checkpoint: the same bitmaps', async () => {
      const images = join(dir.path, 'delete')
      await copyImages(lab.images, images)
      await lab.startDomain(domain)
      await lab.virsh('checkpoint-delete', domain, 'cp2')
      await lab.destroyDomain(domain)
      const left = names.flatMap((name, i) => steps[name]!.left(chains.get(targets[i]!)!))
      const xml = readFileSync(join(lab.libvirtRoot, 'qemu', `${domain}.xml`), 'utf8')
      expect(xml).toContain('.copy')
      // By their bodies some of these have lost writes, since libvirt pulled a trap: then nothing would be deleted.
      const { stdout, status } = await tidemark([
        ...[
          'plan',
          'delete',
          'cp2',
          '--no-bodies',
          '--domain-xml',
          join(lab.libvirtRoot, 'qemu', `${domain}.xml`),
        ],
        ...['--checkpoint-dir', join(dir.path, 'libvirt/qemu/checkpoint', domain)],
        ...['--map-source', `${lab.images}=${images}`, '--apply'],
      ])
      expect({ status, stdout }).toEqual({
        status: 0,
        stdout: `Left to do:\n  virsh checkpoint-delete ${domain} cp2 --metadata\n`,
      })
      for (const image of left) {
        const theirs = await storedBitmaps(image)
        expect([...theirs.keys()]).not.toContain('cp2')
        const ours = await storedBitmaps(elsewhere(images)(image))
        expect([...ours.values()], image).toEqual([...theirs.values()])
      }
    }, 600_000)

    it('a snapshot: the same bitmaps on the overlays', async () => {
      await run('rm', ['-rf', join(dir.path, 'delete')])
      const images = join(dir.path, 'snapshot')
      await copyImages(lab.images, images)
      const xml = join(dir.path, 'before.xml')
      await run('cp', [join(lab.libvirtRoot, 'qemu', `${domain}.xml`), xml])
      await lab.startDomain(domain)
      const overlays = Object.fromEntries(targets.map(target => [target, lab.image(`${target}.last.qcow2`)]))
      await lab.snapshot(domain, 'last', overlays)
      await lab.destroyDomain(domain)
      const disks = Object.entries(overlays).flatMap(([target, overlay]) => [
        '--disk',
        `${target}=${elsewhere(images)(overlay)}`,
      ])
      const { stdout } = await tidemark([
        ...[
          'plan',
          'snapshot',
          '--domain-xml',
          xml,
          '--checkpoint-dir',
          join(dir.path, 'libvirt/qemu/checkpoint', domain),
        ],
        ...['--map-source', `${lab.images}=${images}`, '--format', 'sh', ...disks],
      ])
      await run('sh', ['-e'], { input: stdout, env: { ...plainEnv, PATH: path } })
      for (const overlay of Object.values(overlays)) {
        const theirs = await storedBitmaps(overlay)
        expect(theirs.size).toBeGreaterThan(0)
        const ours = await storedBitmaps(elsewhere(images)(overlay))
        expect([...ours.values()], overlay).toEqual([...theirs.values()])
      }
    }, 600_000)

    it('a running domain is told of, and nothing is written', async () => {
      await lab.startDomain(domain)
      const args = ['--domain', domain, '--libvirt-root', lab.libvirtRoot]
      const shown = await tidemark(['plan', 'snapshot', ...args])
      expect(shown.status).toBe(4)
      expect(shown.stdout).toContain('image-in-use')
      expect(
        (await tidemarkJson<{ problems: object[] }>(['plan', 'snapshot', ...args], { status: 4 })).problems,
      ).toContainEqual(expect.objectContaining({ code: 'image-in-use', severity: 'unknown' }))
      const refused = await tidemark(['plan', 'snapshot', ...args, '--format', 'sh'])
      expect(refused).toMatchObject({ status: 4, stdout: '' })
      await lab.destroyDomain(domain)
    }, 600_000)
  },
)
