// Backups that are planned offline and carried out by the plan's own script, in chains: a full one, then increments from
// checkpoint to checkpoint, and from older ones; in both dialects and across an upgrade; with disks that need a full
// copy among them. Each restore is the disk to the byte, and each increment what was written, no more.
//
// TIDEMARK_SEED=SEED does one again.
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type DirtyExtent, needs, qemuImg, Random, run, tempDir } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { plainEnv, tidemark } from './cli.js'
import { inParallel } from './pool.js'
import { type Habit, type OfflineDisk, OfflineDomain } from './restore/offline-domain.js'
import { byteSet, union, widen } from './sets.js'
import { top } from './webshop.js'

const path = `${join(top, 'node_modules/.bin')}:${process.env.PATH}`
const only = process.env.TIDEMARK_SEED
const EACH = 5
const ROUNDS = 4

const peers = needs('qemu-img', 'qemu-io', 'qemu-storage-daemon')
describe.skipIf(peers.skip)(`backups planned and carried out offline${peers.label}`, () => {
  it.each(['independent', 'chained', 'upgraded'] as const)(
    '%s: chains of increments restore every disk',
    async habit => {
      const seeds = Array.from({ length: EACH }, (_, i) => `${habit}-${i}`)
      const counts = { incremental: 0, full: 0, mixed: 0 }
      const failures: string[] = []
      await inParallel(
        seeds.filter(seed => only === undefined || only === seed),
        3,
        async seed => {
          await oneDomain(seed, habit, counts).catch(error => failures.push(error.message))
        },
      )
      expect(failures.join('\n\n')).toBe('')
      if (only !== undefined) return
      expect(counts.incremental).toBeGreaterThan(20)
      expect(counts.full).toBeGreaterThan(3)
      expect(counts.mixed).toBeGreaterThan(1)
    },
    600_000,
  )
})

interface Counts {
  incremental: number
  full: number
  /** Scripts with both. */
  mixed: number
}

async function oneDomain(seed: string, habit: Habit, counts: Counts): Promise<void> {
  const random = new Random(seed)
  const dir = tempDir()
  const domain = new OfflineDomain(dir, random, habit)
  try {
    await domain.begin()
    await domain.write()
    /** What a restore of the last backup gives. */
    const chain = new Map(domain.disks.map(disk => [disk.target, Buffer.from(disk.content)]))
    let last = await domain.checkpoint()
    for (let round = 0; round < ROUNDS; round++) {
      await domain.write()
      if (random.bool(0.35)) {
        await domain.snapshot()
        await domain.write()
      }
      if (random.bool(0.35)) {
        await domain.harm()
        await domain.write()
      }
      await backUp(domain, last, dir.file(`since-last-${round}`), counts, target => chain.get(target)!, chain)
      if (random.bool(0.5)) {
        const older = random.pick(domain.checkpoints)
        const then = (target: string) => domain.disks.find(disk => disk.target === target)!.moments.get(older)
        await backUp(domain, older, dir.file(`since-older-${round}`), counts, then)
      }
      last = await domain.checkpoint()
    }
  } catch (error) {
    const again = `TIDEMARK_SEED='${seed}' npx vitest run packages/cli/test/restore.interop.test.ts`
    throw new Error([again, ...domain.log, (error as Error).stack].join('\n'))
  } finally {
    dir.remove()
  }
}

/**
 * Plans since a checkpoint, runs the plan's script and restores each disk.
 *
 * @param base what an increment is laid over; undefined where there is no backup of that time
 * @param results where the restored disks go
 */
async function backUp(
  domain: OfflineDomain,
  since: string,
  folder: string,
  counts: Counts,
  base: (target: string) => Buffer | undefined,
  results = new Map<string, Buffer>(),
): Promise<void> {
  mkdirSync(folder)
  const args = ['plan', 'backup', ...domain.args, '--incremental', since]
  const { stdout: script, stderr } = await tidemark([...args, '--format', 'sh', '--target-dir', folder])
  expect(stderr).toBe('')
  await run('sh', ['-e'], { input: script, cwd: folder, env: { ...plainEnv, PATH: path } })
  domain.log.push(
    `backup since ${since}: ${[...script.matchAll(/^# (vd.: .*)$/gm)].map(([, line]) => line).join('; ')}`,
  )
  const modes = new Set<string>()
  for (const disk of domain.disks) {
    const mode = new RegExp(`^# ${disk.target}: (incremental|full)`, 'm').exec(script)?.[1]
    if (mode === undefined) throw new Error(`no line for ${disk.target}:\n${script}`)
    modes.add(mode)
    const sound = disk.moments.has(since) && !disk.harmed
    if (sound) expect([disk.target, mode]).toEqual([disk.target, 'incremental'])
    counts[mode as 'incremental' | 'full']++
    const restored =
      mode === 'full' ? await wholeCopy(disk, folder) : increment(disk, since, folder, base(disk.target))
    expect(differsAt(restored, disk.content), `${disk.target} since ${since}, ${mode}`).toBe(-1)
    results.set(disk.target, restored)
  }
  if (modes.size > 1) counts.mixed++
}

async function wholeCopy({ target }: OfflineDisk, folder: string): Promise<Buffer> {
  const raw = join(folder, `${target}.full.raw`)
  await qemuImg.convert(join(folder, `${target}.full.qcow2`), raw)
  return readFileSync(raw)
}

function increment(disk: OfflineDisk, since: string, folder: string, base: Buffer | undefined): Buffer {
  const { target, content, granularity } = disk
  if (base === undefined) throw new Error(`${target} is incremental since ${since}, which did not take it in`)
  const dirty = byteSet(
    JSON.parse(readFileSync(join(folder, `${target}.dirty.json`), 'utf8')) as DirtyExtent[],
  )
  const data = readFileSync(join(folder, `${target}.dirty.raw`))
  expect(data.length).toBe(content.length)
  const written = widen(disk.written.get(since) ?? [], granularity, content.length)
  expect(union([dirty]), `${target} since ${since}`).toEqual(written)
  const restored = Buffer.from(base)
  for (let i = 0; i < dirty.length; i += 2) data.copy(restored, dirty[i]!, dirty[i]!, dirty[i + 1]!)
  return restored
}

/** The first byte in which they differ, or −1. */
function differsAt(a: Buffer, b: Buffer): number {
  if (a.equals(b)) return -1
  const at = a.findIndex((byte, i) => byte !== b[i])
  return at < 0 ? Math.min(a.length, b.length) : at
}
