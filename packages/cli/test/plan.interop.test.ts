import { readdirSync, rmSync } from 'node:fs'
import {
  backupXml,
  type DirtyExtent,
  LibvirtLab,
  type MapExtent,
  needs,
  qemuImg,
  run,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { checkpoints, disks, domain, makeHurtDomain } from './hurt-domain.js'
import { type ByteSet, byteSet, widen } from './sets.js'

const peers = needs('libvirt')

interface Reason {
  readonly code: string
  readonly severity: string
}

interface DiskPlan {
  readonly target: string
  readonly mode: string
  readonly libvirt: string
  readonly 'virtual-size': number
  readonly 'dirty-bytes'?: number
  readonly merge: readonly { readonly filename: string; readonly bitmap: string }[]
  readonly reasons: readonly Reason[]
}

/** In the order of the tests, which is that of one domain's life. */
describe.skipIf(peers.skip)(`the plan and the real libvirt agree${peers.label}`, () => {
  let lab: LibvirtLab
  const plans = new Map<string, readonly DiskPlan[]>()
  /** Checkpoint and target → what `tidemark map` says of the merge list. */
  const dirty = new Map<string, ByteSet>()
  /** Checkpoint → the backup's XML, made while the domain was off. */
  const xml = new Map<string, { push: string; pull: string }>()

  const args = (checkpoint: string): string[] => [
    ...['plan', 'backup', '--domain', domain, '--libvirt-root', lab.libvirtRoot],
    ...['--incremental', checkpoint],
  ]
  const plan = async (checkpoint: string, status: number): Promise<readonly DiskPlan[]> =>
    (await tidemarkJson<{ disks: readonly DiskPlan[] }>(args(checkpoint), { status })).disks
  const blocking = ({ reasons }: DiskPlan): string[] => [
    ...new Set(reasons.filter(({ severity }) => severity === 'blocks').map(({ code }) => code)),
  ]

  beforeAll(async () => {
    lab = await LibvirtLab.start()
    await makeHurtDomain(lab)
  }, 600_000)
  afterAll(async () => await lab?.stop(), 60_000)

  it.each(checkpoints)('plans since %s, while the domain is off', async checkpoint => {
    const found = await plan(checkpoint, 10)
    plans.set(checkpoint, found)
    const nth = checkpoints.indexOf(checkpoint)
    const wanted = Object.entries(disks).map(([target, { story, says }]) => {
      const { libvirt, codes } = says[nth]!
      return { target, story, libvirt, codes: [...codes], mode: codes.length === 0 ? 'incremental' : 'full' }
    })
    const said = found.map(disk => {
      const { target, libvirt, mode } = disk
      return { target, story: disks[target]?.story, libvirt, codes: blocking(disk), mode }
    })
    expect(said).toEqual(wanted)
    for (const { target, merge, libvirt, 'dirty-bytes': dirtyBytes } of found) {
      if (libvirt !== 'accept') continue
      const [first, ...rest] = merge
      const more = rest.flatMap(({ filename, bitmap }) => ['--bitmap', `${bitmap}@${filename}`])
      const map = await tidemarkJson<DirtyExtent[]>([
        ...['map', first!.filename, '--bitmap', first!.bitmap],
        ...more,
      ])
      dirty.set(`${checkpoint} ${target}`, byteSet(map))
      expect(dirtyBytes, target).toBe(map.reduce((sum, { type, length }) => sum + type * length, 0))
    }
    // Where libvirt would walk into a trap, people are told in so many words.
    const traps = wanted.filter(({ libvirt, mode }) => libvirt === 'accept' && mode === 'full')
    const { stdout } = await tidemark(args(checkpoint))
    const list = traps.map(({ target }) => target).join(', ')
    expect(stdout.replaceAll('\n', ' ')).toContain(`libvirt would accept ${list} as incremental, but`)
    const to = ['--format', 'xml', '--target-dir', lab.images]
    const push = (await tidemark([...args(checkpoint), ...to])).stdout
    xml.set(checkpoint, { push, pull: (await tidemark([...args(checkpoint), ...to, '--pull'])).stdout })
  })

  it('says that it cannot tell while the domain runs', async () => {
    await lab.startDomain(domain)
    const found = await plan('cp1', 4)
    const sda = found.find(({ target }) => target === 'sda')!
    expect(sda).toMatchObject({ mode: 'unknown', merge: [{ bitmap: 'cp1' }] })
    expect(sda).not.toHaveProperty('dirty-bytes')
    expect(sda.reasons.map(({ code }) => code)).toContain('image-in-use')
    // What the checkpoint's own record rules out needs no look at the image.
    expect(found.find(({ target }) => target === 'sdl')).toMatchObject({ mode: 'full' })
    const { status, error } = await tidemarkError([...args('cp1'), '--format', 'xml'])
    expect({ status, code: error.code }).toEqual({ status: 4, code: 'plan-unknown' })
  })

  const accepted = new Map<string, Record<string, string>>()
  it.each(checkpoints)(
    "libvirt's verdicts since %s are the plan's, and it copies what map says",
    async checkpoint => {
      const verdicts: Record<string, string> = {}
      for (const { target, 'virtual-size': size } of plans.get(checkpoint)!) {
        const file = lab.image(`backup-${checkpoint}-${target}`)
        const outcome = await lab.backupBegin(domain, backupXml(checkpoint, [{ target, file }]))
        verdicts[target] = outcome.accepted ? 'accept' : 'reject'
        if (outcome.accepted) {
          const set = dirty.get(`${checkpoint} ${target}`)!
          const { bytes, granularity } = await copied(file)
          expect(bytes, `${checkpoint} ${target}`).toEqual(widen(set, granularity, size))
        }
        rmSync(file, { force: true })
      }
      accepted.set(checkpoint, verdicts)
      const planned = plans.get(checkpoint)!.map(({ target, libvirt }) => [target, libvirt])
      expect(verdicts).toEqual(Object.fromEntries(planned))
    },
    600_000,
  )

  it.each(checkpoints)(
    'virsh takes the XML since %s, push and pull',
    async checkpoint => {
      const { push, pull } = xml.get(checkpoint)!
      expect(await lab.backupBegin(domain, push)).toEqual({ accepted: true })
      const names = [...push.matchAll(/<target file=['"]([^'"]*)['"]\/>/g)].map(([, file]) => file!)
      expect(names.length).toBe(Object.keys(disks).length)
      for (const { target, mode, 'virtual-size': size } of plans.get(checkpoint)!) {
        const file = names.find(name => name.includes(`-${target}.`))!
        if (mode === 'incremental') {
          const set = dirty.get(`${checkpoint} ${target}`)!
          const { bytes, granularity } = await copied(file)
          expect(bytes, `${checkpoint} ${target}`).toEqual(widen(set, granularity, size))
        } else {
          // A full copy has no backing file.
          expect((await qemuImg.info(file))['backing-filename'], target).toBeUndefined()
        }
      }
      expect(await lab.backupBegin(domain, pull)).toEqual({ accepted: true })
      await lab.virsh('domjobabort', domain)
      for (const file of names) rmSync(file)
    },
    600_000,
  )

  it('after kill -9 nothing is incremental, for the plan as for libvirt', async () => {
    await lab.checkpoint(domain, 'cp4', { disks: "<disk name='sda'/><disk name='sdb'/>" })
    await lab.crashDomain(domain)
    const crashed = await plan('cp1', 11)
    expect(blocking(crashed.find(({ target }) => target === 'sda')!)).toEqual(['bitmap-inconsistent'])
    expect(blocking(crashed.find(({ target }) => target === 'sdd')!)).toEqual(['bitmap-inconsistent'])
    // A bitmap that was made in that run never came to disk.
    const lost = await plan('cp4', 11)
    expect(blocking(lost.find(({ target }) => target === 'sda')!)).toEqual(['bitmap-missing'])
    const everyone = [
      ['cp1', crashed],
      ['cp4', lost],
    ] as const
    await lab.startDomain(domain)
    for (const [checkpoint, found] of everyone) {
      for (const { target, libvirt } of found.filter(({ target }) => /^sd[abdg]$/.test(target))) {
        const { verdict } = await lab.backupVerdict(domain, checkpoint, target)
        expect(verdict, `${checkpoint} ${target}`).toBe(libvirt)
      }
    }
    await lab.destroyDomain(domain)
  }, 600_000)

  it('leaves nothing of its own beside the images', () => {
    expect(readdirSync(lab.images).filter(name => name.startsWith('backup-'))).toEqual([])
  })
})

/** The bytes that a backup's file holds itself, not its backing file, and in what steps QEMU copied. */
async function copied(file: string): Promise<{ bytes: ByteSet; granularity: number }> {
  // The domain holds the backing file: look all the same.
  const { stdout } = await run('qemu-img', ['map', '-U', '--output=json', file])
  const extents = (JSON.parse(stdout) as MapExtent[]).map(({ start, length, depth }) => ({
    offset: start,
    length,
    type: depth === 0 ? 1 : 0,
    description: '',
  }))
  const { 'cluster-size': clusterSize } = await qemuImg.info(file, { forceShare: true })
  // block_copy_calculate_cluster_size: at least 64 KiB, else the target's cluster.
  return { bytes: byteSet(extents), granularity: Math.max(65536, clusterSize!) }
}
