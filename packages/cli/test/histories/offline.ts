import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { qemuImg, qemuIo, qemuIoCrash, run } from '@tidemark/testkit'
import { contentOf, type Disk } from './disk.js'
import type { Step } from './steps.js'
import type { World } from './world.js'

const qcow2 = ({ disks }: World): Disk[] => disks.filter(({ format }) => format === 'qcow2')

interface StoredBitmap {
  readonly disk: Disk
  readonly file: string
  readonly name: string
  readonly flags: readonly string[]
}

/** Every bitmap of every image. */
async function storedBitmaps(world: World): Promise<StoredBitmap[]> {
  const found: StoredBitmap[] = []
  for (const disk of qcow2(world)) {
    for (const file of disk.files) {
      const { 'format-specific': specific } = await qemuImg.info(file)
      for (const { name, flags } of specific?.data.bitmaps ?? []) found.push({ disk, file, name, flags })
    }
  }
  return found
}

/** What `qemu-img bitmap` does to one bitmap, of whichever layer. */
function byHand(kind: 'clear' | 'remove' | 'disable', weight: number): Step {
  return {
    kind: `${kind}-by-hand`,
    weight: () => weight,
    async run(world) {
      // QEMU changes nothing of an inconsistent one, but removes it.
      const able = (await storedBitmaps(world)).filter(
        ({ flags }) =>
          (kind === 'remove' || !flags.includes('in-use')) && (kind !== 'disable' || flags.includes('auto')),
      )
      if (able.length === 0) return 'there is none'
      // Below the top is where libvirt does not look.
      const deep = able.filter(({ disk, file }) => file !== disk.top)
      const { disk, file, name } = world.random.pick(deep.length > 0 && world.random.bool(0.7) ? deep : able)
      await qemuImg.bitmap(`--${kind}`, file, name)
      if (kind === 'clear') disk.clearedNow(name)
      if (kind === 'remove') disk.removedNow(name, file)
      if (kind === 'disable') disk.disabled.add(name)
      return `${name} of ${disk.id}, layer ${disk.files.indexOf(file)}`
    },
  }
}

/** The deepest layer loses the bitmap of a checkpoint that began there: libvirt accepts what is left. */
const removeDeepest: Step = {
  kind: 'remove-deepest-by-hand',
  weight: world => (qcow2(world).some(({ files }) => files.length > 1) ? 3 : 0),
  async run(world) {
    const all = await storedBitmaps(world)
    const deepest = all.filter(
      ({ disk, file, name }) =>
        file !== disk.top &&
        !all.some(
          other =>
            other.disk === disk &&
            other.name === name &&
            disk.files.indexOf(other.file) > disk.files.indexOf(file),
        ),
    )
    if (deepest.length === 0) return 'there is none'
    const { disk, file, name } = world.random.pick(deepest)
    await qemuImg.bitmap('--remove', file, name)
    disk.removedNow(name, file)
    return `${name} of ${disk.id}, layer ${disk.files.indexOf(file)}`
  },
}

async function resize(world: World, kind: 'shrink' | 'grow'): Promise<string> {
  const disk = world.random.pick(qcow2(world))
  const by = world.random.int(1, 8) * 65536
  const size = kind === 'grow' ? disk.size + by : Math.max(65536, disk.size - by)
  const { status, stderr } = await run(
    'qemu-img',
    ['resize', '-q', '-f', 'qcow2', '--shrink', disk.top, String(size)],
    { accept: 'any' },
  )
  if (status !== 0) {
    // QEMU resizes no image with an inconsistent bitmap.
    if (!/bitmap/.test(stderr)) throw new Error(stderr)
    return `${disk.id} to ${size}, refused`
  }
  disk.resized(await contentOf(disk))
  return `${disk.id} to ${size}`
}

const shrink: Step = { kind: 'shrink', weight: () => 1.5, run: world => resize(world, 'shrink') }
const growOffline: Step = { kind: 'grow-offline', weight: () => 0.7, run: world => resize(world, 'grow') }

/** By a program that knows bitmaps, as qemu-io does. */
const foreignWrite: Step = {
  kind: 'foreign-write',
  weight: () => 1,
  async run(world) {
    const disk = world.random.pick(qcow2(world))
    const offset = world.random.int(0, Math.floor(disk.size / 512) - 1) * 512
    await qemuIo(disk.top, [`write -P ${world.random.int(1, 255)} ${offset} 512`])
    disk.content = await contentOf(disk)
    return `${disk.id} ${offset}`
  },
}

const foreignCrash: Step = {
  kind: 'foreign-crash',
  weight: () => 0.5,
  async run(world) {
    const disk = world.random.pick(qcow2(world))
    const file = world.random.pick(disk.files)
    await qemuIoCrash(file, ['read -q 0 512'])
    return `${disk.id}, layer ${disk.files.indexOf(file)}`
  },
}

const overlayByHand: Step = {
  kind: 'overlay-by-hand',
  weight: world => (qcow2(world).some(({ files }) => files.length < 5) ? 0.7 : 0),
  async run(world) {
    const disk = world.random.pick(qcow2(world).filter(({ files }) => files.length < 5))
    const file = world.file(disk.id)
    await world.lab.createImage(file, undefined, { backing: disk.top })
    disk.files = [file, ...disk.files]
    return disk.id
  },
}

/** An image is put between two that libvirt knows, and that share a bitmap if there are such. */
const insertByHand: Step = {
  kind: 'insert-by-hand',
  weight: world => (qcow2(world).some(({ files }) => files.length > 1) ? 2.5 : 0),
  async run(world) {
    const all = await storedBitmaps(world)
    const names = (file: string) => all.filter(each => each.file === file).map(({ name }) => name)
    const places = qcow2(world).flatMap(disk =>
      disk.files.slice(1).map((below, i) => ({ disk, at: i + 1, below })),
    )
    const shared = places.filter(({ disk, at, below }) =>
      names(disk.files[at - 1]!).some(name => names(below).includes(name)),
    )
    const { disk, at } = world.random.pick(shared.length > 0 ? shared : places)
    const between = world.file(disk.id)
    await world.lab.createImage(between, undefined, { backing: disk.files[at]! })
    await run('qemu-img', ['rebase', '-u', '-F', 'qcow2', '-b', between, disk.files[at - 1]!])
    disk.files = [...disk.files.slice(0, at), between, ...disk.files.slice(at)]
    disk.content = await contentOf(disk)
    return `${disk.id}, above layer ${at}`
  },
}

/** Another image at a disk's target, with bitmaps of the same names: libvirt asks for no more. */
const impostor: Step = {
  kind: 'impostor',
  weight: world => (world.disks.length < 5 && world.attached.some(({ moments }) => moments.size > 0) ? 1 : 0),
  async run(world) {
    const old = world.random.pick(world.attached.filter(({ moments }) => moments.size > 0))
    const { target } = old
    old.target = undefined
    const disk = await world.addDisk(target)
    for (const name of old.moments.keys()) await qemuImg.bitmap('--add', disk.top, name)
    disk.content = Buffer.alloc(disk.size, 7)
    await qemuIo(disk.top, [`write -P 7 0 ${disk.size}`])
    return `${disk.id} for ${old.id} at ${target}`
  },
}

/** What a program that does not know bitmaps does: autoclear bit 0, in the last of the bytes 88 to 95. */
const stale: Step = {
  kind: 'stale',
  weight: () => 1,
  async run(world) {
    const layered = qcow2(world).filter(({ files }) => files.length > 1)
    const disk = world.random.pick(layered.length > 0 ? layered : qcow2(world))
    const file = world.random.pick(disk.files.length > 1 ? disk.files.slice(1) : disk.files)
    const fd = openSync(file, 'r+')
    try {
      const byte = new Uint8Array(1)
      readSync(fd, byte, 0, 1, 95)
      byte[0]! &= 0xfe
      writeSync(fd, byte, 0, 1, 95)
    } finally {
      closeSync(fd)
    }
    return `${disk.id}, layer ${disk.files.indexOf(file)}`
  },
}

/** What happens to the images while the domain is off. */
export const offlineSteps: readonly Step[] = [
  ...[byHand('clear', 1.5), byHand('remove', 2), byHand('disable', 1.5)],
  ...[
    removeDeepest,
    shrink,
    growOffline,
    foreignWrite,
    foreignCrash,
    overlayByHand,
    insertByHand,
    stale,
    impostor,
  ],
]
