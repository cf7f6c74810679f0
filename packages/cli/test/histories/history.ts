import type { LibvirtLab } from '@tidemark/testkit'
import { byCommand } from './by-command.js'
import type { Coverage } from './coverage.js'
import { contentOf } from './disk.js'
import { Judge } from './judge.js'
import { offlineSteps } from './offline.js'
import { type Plans, planOffline } from './plans.js'
import { checkpointNames, chooseStep, liveSteps, type Step } from './steps.js'
import { World } from './world.js'

/** A history in which somebody was wrong: its message tells it step by step, and how to do it again. */
export class HistoryError extends Error {
  constructor(world: World, wrong: readonly string[], cause?: unknown) {
    const told = [
      `TIDEMARK_SEED='${world.seed}' npx vitest run packages/cli/test/histories.interop.test.ts`,
      ...world.disks.map(
        ({ id, target, files, size }) => `disk ${id} at ${target}, ${size} bytes: ${files.join(' over ')}`,
      ),
      ...world.log.map((line, i) => `${i + 1}. ${line}`),
      ...wrong.map(line => `WRONG: ${line}`),
    ]
    super(told.join('\n'), { cause })
    this.name = 'HistoryError'
  }
}

/**
 * One random history of a domain in a real libvirt, judged after each step.
 *
 * @throws HistoryError
 */
export async function runHistory(lab: LibvirtLab, seed: string, coverage: Coverage): Promise<void> {
  const world = new World(lab, seed)
  const judge = new Judge(world, coverage)
  try {
    await world.begin()
    const steps = world.random.int(9, 15)
    for (let i = 0; i < steps && judge.wrong.length === 0; i++) {
      const roll = world.random.float()
      if (i > 2 && roll < 0.13) await offPeriod(world, coverage, judge, 'restart')
      else if (i > 2 && roll < 0.2) await offPeriod(world, coverage, judge, 'crash')
      else {
        await take(world, coverage, chooseStep(liveSteps, world, world.random))
        await judge.live()
      }
    }
    if (judge.wrong.length === 0) await offPeriod(world, coverage, judge, 'restart')
  } catch (error) {
    throw new HistoryError(world, [...judge.wrong, `${(error as Error).stack}`], error)
  } finally {
    // A daemon that died or hangs ends nothing: the lab ends the rest.
    if (lab.alive) await world.end().catch(() => {})
  }
  if (judge.wrong.length > 0) throw new HistoryError(world, judge.wrong)
}

async function take(world: World, coverage: Coverage, { kind, run }: Step): Promise<void> {
  coverage.count('steps', kind)
  world.log.push(kind)
  world.log[world.log.length - 1] = `${kind}: ${await run(world)}`
}

/** The domain ends, well or not; its images may be changed by hand; it is planned from the files, and started. */
async function offPeriod(
  world: World,
  coverage: Coverage,
  judge: Judge,
  how: 'restart' | 'crash',
): Promise<void> {
  const { random } = world
  coverage.count('steps', how)
  world.log.push(how)
  if (how === 'crash') {
    await world.lab.crashDomain(world.name)
    world.running = false
    // What QEMU had not yet written of its tables is lost.
    for (const disk of world.attached) disk.content = await contentOf(disk)
  } else {
    await world.stop()
    for (const disk of world.attached) {
      if (Buffer.compare(await contentOf(disk), disk.content) !== 0)
        throw new Error(`disk ${disk.id} does not hold what was written`)
    }
  }
  const changes = random.pick([0, 1, 1, 2])
  for (let i = 0; i < changes; i++) await take(world, coverage, chooseStep(offlineSteps, world, random))
  if (changes > 0) await world.define()

  const sizes = random.bool(0.3) ? await sizesThen(world) : new Map<string, Map<string, number>>()
  const plans = await planOffline(world, sizes)
  judge.offline(plans)
  const told = sizes.size > 0
  if (told) tellResized(world, judge, plans)
  const xml = told ? undefined : await byCommand(world, judge, plans)
  await world.start()
  await judge.live(plans)
  await xml?.()
}

async function sizesThen(world: World): Promise<Map<string, Map<string, number>>> {
  const names = await checkpointNames(world)
  return new Map(
    names.map(name => [
      name,
      new Map(
        world.attached.flatMap(({ target, moments }) => {
          const moment = moments.get(name)
          return moment === undefined ? [] : [[target!, moment.content.length]]
        }),
      ),
    ]),
  )
}

/** Told of another size, no plan is incremental. */
function tellResized(world: World, judge: Judge, plans: Plans): void {
  for (const [checkpoint, { plan }] of plans) {
    for (const { target, mode, reasons } of plan.disks) {
      const disk = world.at(target)
      const moment = disk.moments.get(checkpoint)
      const resized = moment !== undefined && moment.content.length !== disk.size
      const said = reasons.some(({ code }) => code === 'disk-resized')
      if (resized !== said || (resized && mode === 'incremental')) {
        judge.wrong.push(`since ${checkpoint}, ${target}: resized ${resized}, said ${said}, ${mode}`)
      }
    }
  }
}
