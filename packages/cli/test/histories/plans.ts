import { type BackupPlan, bodyQueries, parseDomain, planBackup } from '@tidemark/planner'
import { loadDomain, measureBodies, namesThen, openDomainImages } from '@tidemark/planner/node'
import { dirtyExtents, findBitmap, openBitmap } from '@tidemark/qcow2'
import { liveChains } from '@tidemark/testkit'
import type { ByteSet } from '../sets.js'
import type { World } from './world.js'

/** A plan since one checkpoint, with the dirty bytes of each disk that has something to merge, where bodies could be read. */
export interface Planned {
  readonly plan: BackupPlan
  /** Target → the union of the plan's merge list. Absent: the domain runs, its bodies are in QEMU's memory. */
  readonly dirty?: ReadonlyMap<string, ByteSet>
}

/** Checkpoint → plan. */
export type Plans = ReadonlyMap<string, Planned>

const order = (name: string): number => Number(name.slice(2))

/** Facts from a running QEMU, by QMP: what libvirt goes by this moment. */
export async function planLive(world: World): Promise<Plans> {
  const { lab, name } = world
  const domain = parseDomain(await lab.virsh('dumpxml', name))
  const { checkpoints, problems } = await loadDomain({ domain: name, libvirtRoot: lab.libvirtRoot })
  if (problems.length > 0) throw new Error(`${problems[0]!.file}: ${problems[0]!.error.message}`)
  const chains = await liveChains(lab, name)
  const plans = new Map<string, Planned>()
  for (const incremental of checkpoints.map(each => each.name).sort((a, b) => order(a) - order(b))) {
    plans.set(incremental, { plan: planBackup({ domain, checkpoints, chains }, { incremental }) })
  }
  return plans
}

/**
 * Facts from the files of a domain that is off, bodies too.
 *
 * @param sizeThen checkpoint → target → bytes, where the plan is told
 */
export async function planOffline(
  { lab, name, engine }: World,
  sizeThen: ReadonlyMap<string, ReadonlyMap<string, number>>,
): Promise<Plans> {
  const { domain, checkpoints, problems } = await loadDomain({ domain: name, libvirtRoot: lab.libvirtRoot })
  if (problems.length > 0) throw new Error(`${problems[0]!.file}: ${problems[0]!.error.message}`)
  const images = await openDomainImages(domain, { engine, names: namesThen(checkpoints) })
  try {
    const { chains, fileIds, layers } = images
    const facts = { domain, checkpoints, chains, fileIds }
    const plans = new Map<string, Planned>()
    for (const incremental of checkpoints.map(each => each.name).sort((a, b) => order(a) - order(b))) {
      const request = { incremental, sizeThen: sizeThen.get(incremental) }
      const first = planBackup(facts, request)
      const measurements = await measureBodies(images, bodyQueries(facts, first), engine)
      const plan = planBackup(facts, { ...request, measurements })
      const dirty = new Map<string, ByteSet>()
      for (const { target, merge, dirtyBytes } of plan.disks) {
        if (merge.length === 0 || dirtyBytes === undefined) continue
        const sources = merge.map(({ layer, bitmap }) => {
          const inspection = layers.get(target)![layer]!.inspection!
          return openBitmap(inspection, findBitmap(inspection, bitmap), engine)
        })
        const set: number[] = []
        for await (const chunk of dirtyExtents(engine, sources)) set.push(...chunk)
        dirty.set(target, set)
      }
      plans.set(incremental, { plan, dirty })
    }
    return plans
  } finally {
    await images.close()
  }
}
