import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildCheckpointTree, parseCheckpoint } from '@tidemark/planner'
import { loadDomain } from '@tidemark/planner/node'
import { liveChains, type Random } from '@tidemark/testkit'
import { contentOf, type Disk } from './disk.js'
import type { World } from './world.js'

/** Something that happens to a running domain. */
export interface Step {
  readonly kind: string
  /** How often it is chosen beside the others; 0 where it cannot be. */
  weight(world: World): number
  /** @returns what was done, in few words */
  run(world: World): Promise<string>
}

const some = (list: readonly unknown[], weight: number): number => (list.length > 0 ? weight : 0)
const qcow2 = ({ attached }: World): Disk[] => attached.filter(({ format }) => format === 'qcow2')
const layered = (world: World, least: number): Disk[] =>
  qcow2(world).filter(({ files }) => files.length >= least)

/** The names of the domain's checkpoints as libvirt has them, oldest first. */
export async function checkpointNames({ lab, name }: World): Promise<string[]> {
  const { checkpoints } = await loadDomain({ domain: name, libvirtRoot: lab.libvirtRoot })
  return checkpoints.map(({ name }) => name).sort((a, b) => Number(a.slice(2)) - Number(b.slice(2)))
}

export async function guestWrite({ lab, name, random }: World, disk: Disk): Promise<string> {
  const length = random.int(1, random.pick([8, 128, 256])) * 512
  const offset = random.int(0, Math.floor(disk.size / 512) - 1) * 512
  const end = Math.min(offset + length, Math.floor(disk.size / 512) * 512)
  const pattern = random.int(0, 255)
  await lab.guestWrite(name, disk.target!, pattern, offset, end - offset)
  disk.content.fill(pattern, offset, end)
  return `${disk.id} ${offset}+${end - offset}`
}

const write: Step = {
  kind: 'write',
  weight: () => 8,
  async run(world) {
    const words: string[] = []
    for (const disk of world.attached.filter(() => world.random.bool(0.7))) {
      words.push(await guestWrite(world, disk))
    }
    return words.join(', ') || 'nothing'
  },
}

async function takeCheckpoint(world: World, included: readonly Disk[], listed: boolean): Promise<string> {
  const cp = `cp${world.next()}`
  const disks = world.attached.map(
    disk => `<disk name='${disk.target}' checkpoint='${included.includes(disk) ? 'bitmap' : 'no'}'/>`,
  )
  await world.lab.checkpoint(world.name, cp, listed ? { disks: disks.join('') } : {})
  for (const disk of included) disk.moments.set(cp, { content: Buffer.from(disk.content) })
  return `${cp} of ${included.map(({ id }) => id).join(' ')}`
}

const checkpoint: Step = {
  kind: 'checkpoint',
  weight: world => some(qcow2(world), 6),
  async run(world) {
    const all = qcow2(world)
    return await takeCheckpoint(world, all, all.length < world.attached.length)
  },
}

const checkpointSome: Step = {
  kind: 'checkpoint-some',
  weight: world => (qcow2(world).length > 1 ? 2 : 0),
  async run(world) {
    const all = qcow2(world)
    const left = world.random.pick(all)
    return await takeCheckpoint(
      world,
      all.filter(disk => disk !== left),
      true,
    )
  },
}

const snapshot: Step = {
  kind: 'snapshot',
  weight: world =>
    some(
      qcow2(world).filter(({ files }) => files.length < 5),
      4,
    ),
  async run(world) {
    const able = qcow2(world).filter(({ files }) => files.length < 5)
    const chosen = world.random.bool(0.3) ? able : [world.random.pick(able)]
    const overlays = new Map(chosen.map(disk => [disk, world.file(disk.id)]))
    await world.lab.snapshot(
      world.name,
      `s${world.next()}`,
      Object.fromEntries([...overlays].map(([{ target }, file]) => [target!, file])),
    )
    for (const [disk, file] of overlays) disk.files = [file, ...disk.files]
    return chosen.map(({ id }) => id).join(' ')
  },
}

/**
 * A block job that libvirt refuses leaves all as it was. One that is done changes nothing that the guest sees, but where
 * a layer was cut: then what a deeper one has behind that comes to light.
 */
async function blockJob(
  world: World,
  job: string,
  disk: Disk,
  args: readonly string[],
  left: () => readonly string[],
): Promise<string> {
  const { lab, name } = world
  const layers = async () => (await liveChains(lab, name)).get(disk.target!)!
  const sizes = new Set((await layers()).map(({ virtualSize }) => virtualSize))
  const { status, stderr } = await lab.tryVirsh(job, name, disk.target!, ...args, '--wait')
  if (status !== 0) {
    await lab.tryVirsh('blockjob', name, disk.target!, '--abort')
    if (!/inconsistent|resize/.test(stderr)) throw new Error(`${job} of ${disk.id}: ${stderr}`)
    return ', refused'
  }
  // virsh calls a job done that ended by itself before it was ready: QEMU cannot grow a base with broken bitmaps.
  const now = (await layers()).map(({ filename }) => filename).join()
  if (now === disk.files.join() && sizes.size > 1) return ', failed without a word'
  if (now !== left().join()) throw new Error(`${job} of ${disk.id} left ${now}`)
  disk.files = left()
  await lab.guestFlush(name, disk.target!)
  const content = await contentOf(disk, { shared: true })
  if (Buffer.compare(content, disk.content) === 0) return ''
  if (sizes.size === 1) throw new Error(`${job} changed what the guest of disk ${disk.id} sees`)
  disk.resized(content)
  return ', its layers were of unequal size'
}

const commitActive: Step = {
  kind: 'commit-active',
  weight: world => some(layered(world, 2), 3),
  async run(world) {
    const disk = world.random.pick(layered(world, 2))
    const base = world.random.int(1, disk.files.length - 1)
    const args = ['--base', disk.files[base]!, '--active', '--pivot']
    const said = await blockJob(world, 'blockcommit', disk, args, () => disk.files.slice(base))
    return `${disk.id} 0→${base}${said}`
  },
}

const commitIntermediate: Step = {
  kind: 'commit-intermediate',
  weight: world => some(layered(world, 3), 5),
  async run(world) {
    const disk = world.random.pick(layered(world, 3))
    const base = world.random.int(2, disk.files.length - 1)
    const top = world.random.int(1, base - 1)
    const args = ['--top', disk.files[top]!, '--base', disk.files[base]!]
    const left = () => [...disk.files.slice(0, top), ...disk.files.slice(base)]
    return `${disk.id} ${top}→${base}${await blockJob(world, 'blockcommit', disk, args, left)}`
  },
}

const pull: Step = {
  kind: 'pull',
  weight: world => some(layered(world, 2), 1.5),
  async run(world) {
    const disk = world.random.pick(layered(world, 2))
    const base = world.random.int(2, disk.files.length)
    const args = base < disk.files.length ? ['--base', disk.files[base]!] : []
    const left = () => [disk.top, ...disk.files.slice(base)]
    return `${disk.id} ${base}→0${await blockJob(world, 'blockpull', disk, args, left)}`
  },
}

async function unplug({ lab, name }: World, disk: Disk): Promise<void> {
  await lab.detachDisk(name, disk.target!)
  disk.target = undefined
}

async function plug({ lab, name }: World, disk: Disk, target: string): Promise<void> {
  await lab.attachDisk(name, { target, source: disk.top, format: disk.format })
  disk.target = target
}

const detach: Step = {
  kind: 'detach',
  weight: world => (world.attached.length > 1 ? 1.5 : 0),
  async run(world) {
    const disk = world.random.pick(world.attached)
    const was = disk.target
    await unplug(world, disk)
    return `${disk.id} from ${was}`
  },
}

const attach: Step = {
  kind: 'attach',
  weight: world => some(world.detached, 3),
  async run(world) {
    const disk = world.random.pick(world.detached)
    await plug(world, disk, world.random.pick(world.freeTargets()))
    return `${disk.id} at ${disk.target}`
  },
}

/** The same source at another target, and another source at its old one. */
const swap: Step = {
  kind: 'swap',
  weight: world => (world.disks.length > 1 ? 1.5 : 0),
  async run(world) {
    const disk = world.random.pick(world.attached)
    const other = world.random.pick(world.disks.filter(each => each !== disk))
    const [here, there] = [disk.target!, other.target ?? world.random.pick(world.freeTargets())]
    if (other.target !== undefined) await unplug(world, other)
    await unplug(world, disk)
    await plug(world, other, here)
    await plug(world, disk, there)
    return `${disk.id} at ${there}, ${other.id} at ${here}`
  },
}

const grow: Step = {
  kind: 'grow',
  weight: () => 1,
  async run(world) {
    // Only the top of a chain grows.
    const tall = layered(world, 2)
    const disk = world.random.pick(tall.length > 0 && world.random.bool(0.7) ? tall : world.attached)
    const size = disk.size + world.random.int(1, 16) * 65536
    const { status, stderr } = await world.lab.tryVirsh('blockresize', world.name, disk.target!, `${size}B`)
    if (status !== 0) {
      // QEMU resizes no image with an inconsistent bitmap.
      if (!/inconsistent/.test(stderr)) throw new Error(stderr)
      return `${disk.id}, refused`
    }
    disk.resized(Buffer.concat([disk.content], size))
    return `${disk.id} to ${size}`
  },
}

const deleteCheckpoint: Step = {
  kind: 'delete',
  weight: ({ disks }) =>
    some(
      disks.flatMap(({ moments }) => [...moments]),
      1.5,
    ),
  async run(world) {
    const names = await checkpointNames(world)
    if (names.length === 0) return 'none is left'
    const name = world.random.pick(names)
    const { status } = await world.lab.tryVirsh('checkpoint-delete', world.name, name)
    // Where one disk has no such bitmap libvirt refuses all of it.
    return `${name}${status === 0 ? '' : ', refused'}`
  },
}

const forget: Step = {
  kind: 'forget',
  weight: ({ disks }) =>
    some(
      disks.flatMap(({ moments }) => [...moments]),
      0.7,
    ),
  async run(world) {
    const names = await checkpointNames(world)
    if (names.length === 0) return 'none is left'
    const name = world.random.pick(names)
    await world.lab.virsh('checkpoint-delete', world.name, name, '--metadata')
    return name
  },
}

/** All metadata is lost and told anew, parents first, to the letter as it was. */
const redefine: Step = {
  kind: 'redefine',
  weight: ({ disks }) =>
    some(
      disks.flatMap(({ moments }) => [...moments]),
      1,
    ),
  async run({ lab, name }) {
    const folder = join(lab.libvirtRoot, 'qemu/checkpoint', name)
    const { checkpoints } = await loadDomain({ domain: name, libvirtRoot: lab.libvirtRoot })
    const tree = buildCheckpointTree(checkpoints)
    const roots = checkpoints.filter(({ parent }) => parent === undefined).map(each => each.name)
    const order = roots.flatMap(root => [root, ...tree.descendants(root)])
    const files = order.map(each => readFileSync(join(folder, `${each}.xml`), 'utf8'))
    for (const each of order.toReversed()) await lab.virsh('checkpoint-delete', name, each, '--metadata')
    for (const xml of files) await lab.redefineCheckpoint(name, xml)
    const after = await loadDomain({ domain: name, libvirtRoot: lab.libvirtRoot })
    const outline = (all: typeof checkpoints) =>
      JSON.stringify(all.map(({ name, parent, disks }) => [name, parent, disks]))
    if (outline(after.checkpoints) !== outline(checkpoints))
      throw new Error('redefined, they are not the same')
    for (const xml of files) parseCheckpoint(xml)
    return order.join(' ')
  },
}

export const liveSteps: readonly Step[] = [
  ...[write, checkpoint, checkpointSome, snapshot, commitActive, commitIntermediate, pull],
  ...[detach, attach, swap, grow, deleteCheckpoint, forget, redefine],
]

/** One of the steps that can be, by their weights. */
export function chooseStep(steps: readonly Step[], world: World, random: Random): Step {
  const weights = steps.map(step => step.weight(world))
  let left = random.float() * weights.reduce((sum, weight) => sum + weight, 0)
  for (const [i, step] of steps.entries()) {
    left -= weights[i]!
    if (left < 0) return step
  }
  return steps[0]!
}
