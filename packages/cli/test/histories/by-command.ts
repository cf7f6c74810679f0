import { rmSync } from 'node:fs'
import { planToJson } from '@tidemark/planner'
import { type DirtyExtent, ownClusters, qemuImg, run } from '@tidemark/testkit'
import { tidemark, tidemarkJson } from '../cli.js'
import { byteSet } from '../sets.js'
import type { Judge } from './judge.js'
import type { Plans } from './plans.js'
import type { World } from './world.js'

const SCHEMA = '/usr/share/libvirt/schemas/domainbackup.rng'

/**
 * The same by the command, for one checkpoint now and then: its plan, `map` of one merge list, and the XML for virsh,
 * which must be what libvirt's schema wants.
 *
 * @returns what to do once the domain runs: libvirt takes the XML, and its files hold what they should
 */
export async function byCommand(
  world: World,
  judge: Judge,
  plans: Plans,
): Promise<(() => Promise<void>) | undefined> {
  const { random, lab, name } = world
  if (plans.size === 0 || !random.bool(0.4)) return undefined
  const [checkpoint, { plan, dirty }] = random.pick([...plans])
  const args = [
    'plan',
    'backup',
    '--domain',
    name,
    '--libvirt-root',
    lab.libvirtRoot,
    '--incremental',
    checkpoint,
  ]
  const full = plan.disks.filter(({ mode }) => mode === 'full').length
  const status = full === 0 ? 0 : full === plan.disks.length ? 11 : 10
  const wrong = (what: string): void => {
    judge.wrong.push(`since ${checkpoint}, by the command: ${what}`)
  }

  const told = await tidemarkJson<{ disks: unknown; dialect: unknown }>(args, { status })
  const { disks, dialect } = JSON.parse(JSON.stringify(planToJson(plan))) as typeof told
  if (JSON.stringify([told.disks, told.dialect]) !== JSON.stringify([disks, dialect])) {
    wrong(`it plans ${JSON.stringify(told)}, the library ${JSON.stringify(plan)}`)
  }
  const mapped = plan.disks.filter(({ target }) => dirty?.has(target))
  if (mapped.length > 0) {
    const { target, merge } = random.pick(mapped)
    const [top, ...below] = merge
    const bitmaps = [top!.bitmap, ...below.map(({ bitmap, filename }) => `${bitmap}@${filename}`)]
    const extents = await tidemarkJson<DirtyExtent[]>([
      ...['map', top!.filename],
      ...bitmaps.flatMap(bitmap => ['--bitmap', bitmap]),
    ])
    const set = dirty!.get(target)
    if (JSON.stringify(byteSet(extents)) !== JSON.stringify(set))
      wrong(`map of ${target} is ${byteSet(extents)}, not ${set}`)
  }

  const { stdout: xml } = await tidemark([...args, '--format', 'xml', '--target-dir', lab.images])
  const valid = await run('xmllint', ['--noout', '--relaxng', SCHEMA, '-'], { input: xml, accept: 'any' })
  if (valid.status !== 0) wrong(`libvirt's schema refuses\n${xml}\n${valid.stderr}`)
  return async () => {
    const outcome = await lab.backupBegin(name, xml)
    if (!outcome.accepted) wrong(`libvirt refuses its XML: ${outcome.error}\n${xml}`)
    for (const { target, mode, libvirt } of plan.disks) {
      const file = [...xml.matchAll(/<target file=["']([^"']*)["']/g)]
        .map(([, each]) => each!)
        .find(each => each.includes(`-${target}.`))
      if (file === undefined) {
        wrong(`its XML has no file for ${target}`)
        continue
      }
      if (!outcome.accepted) continue
      const own = ownClusters(file)
      const backing = (await qemuImg.info(file, { forceShare: true }))['backing-filename']
      // Bitmaps in the chained dialect are none of libvirt's.
      const whole = mode === 'full' || libvirt === 'reject'
      if (whole !== (backing === undefined))
        wrong(`${target} is ${mode}, its copy has backing file ${backing}`)
      const { content } = world.at(target)
      if (whole && !isWhole(own, content)) wrong(`the whole copy of ${target} is not the disk`)
      rmSync(file)
    }
  }
}

/** A whole copy may leave out what reads as zeros. */
function isWhole(own: ReadonlyMap<number, Uint8Array>, content: Buffer): boolean {
  const copy = Buffer.alloc(content.length)
  for (const [offset, bytes] of own) copy.set(bytes, offset)
  return Buffer.compare(copy, content) === 0
}
