import { mkdirSync, writeFileSync } from 'node:fs'
import { qcow2Blockdev, qemuImg, qemuIo, type Random, StorageDaemon, type TempDir } from '@tidemark/testkit'
import { type ByteSet, union } from '../sets.js'

/**
 * How bitmaps share the work. `upgraded`: chained at first, and from some checkpoint on all of them record, as on a host
 * whose libvirt went from before 6.6 to after.
 */
export type Habit = 'independent' | 'chained' | 'upgraded'

/** A disk with all that was ever written to it. */
export class OfflineDisk {
  readonly target: string
  readonly granularity: number
  /** Top first. */
  files: readonly string[]
  readonly content: Buffer
  /** Checkpoint that took it in → the disk then. */
  readonly moments = new Map<string, Buffer>()
  /** Checkpoint → what was written since. */
  readonly written = new Map<string, ByteSet>()
  /** Somebody removed a bitmap: which plans that spoils depends on the dialect. */
  harmed = false

  constructor(target: string, file: string, size: number, granularity: number) {
    this.target = target
    this.files = [file]
    this.content = Buffer.alloc(size)
    this.granularity = granularity
  }

  get top(): string {
    return this.files[0]!
  }
}

/** A domain that is always off: QEMU's tools write to its disks, and make checkpoints in any dialect. */
export class OfflineDomain {
  readonly disks: OfflineDisk[] = []
  readonly checkpoints: string[] = []
  readonly log: string[] = []
  readonly #dir: TempDir
  readonly #random: Random
  readonly #habit: Habit
  #images = 0

  constructor(dir: TempDir, random: Random, habit: Habit) {
    this.#dir = dir
    this.#random = random
    this.#habit = habit
    mkdirSync(dir.file('checkpoints'))
  }

  async begin(): Promise<this> {
    const count = this.#random.int(1, 3)
    for (let i = 0; i < count; i++) {
      const size = this.#random.int(8, 40) * 65536 + this.#random.pick([0, 512, 4096])
      const file = this.#newFile()
      await qemuImg.create(file, size, { clusterSize: this.#random.pick([4096, 65536]) })
      this.disks.push(new OfflineDisk(`vd${'abc'[i]}`, file, size, this.#random.pick([4096, 65536, 32768])))
    }
    this.#writeXml()
    return this
  }

  /** Arguments that name the domain to the command. */
  get args(): string[] {
    return ['--domain-xml', this.#dir.file('domain.xml'), '--checkpoint-dir', this.#dir.file('checkpoints')]
  }

  #newFile(): string {
    return this.#dir.file(`image-${this.#images++}.qcow2`)
  }

  async write(): Promise<void> {
    for (const disk of this.disks) {
      const commands: string[] = []
      for (let left = this.#random.int(0, 4); left > 0; left--) {
        const sectors = disk.content.length / 512
        const first = this.#random.int(0, sectors - 1)
        const last = Math.min(first + this.#random.int(1, this.#random.pick([4, 300])), sectors)
        const [start, end] = [first * 512, last * 512]
        const pattern = this.#random.int(0, 255)
        commands.push(
          pattern === 0 ? `write -z ${start} ${end - start}` : `write -P ${pattern} ${start} ${end - start}`,
        )
        disk.content.fill(pattern, start, end)
        for (const [name, set] of disk.written) disk.written.set(name, union([set, [start, end]]))
      }
      if (commands.length > 0) await qemuIo(disk.top, commands)
      this.log.push(`${disk.target}: ${commands.join(', ')}`)
    }
  }

  /** An overlay takes over the bitmaps that record, as libvirt does. */
  async snapshot(): Promise<void> {
    const disk = this.#random.pick(this.disks)
    const overlay = this.#newFile()
    const recording = (await bitmapsOf(disk.top)).filter(({ flags }) => flags.includes('auto'))
    await qemuImg.create(overlay, undefined, { backing: disk.top })
    for (const { name, granularity } of recording) {
      await qemuImg.bitmap('--add', '-g', String(granularity), overlay, name)
    }
    disk.files = [overlay, ...disk.files]
    this.log.push(`${disk.target}: overlay ${overlay}`)
    this.#writeXml()
  }

  /** Somebody removes a bitmap of the top image, the newest more often than not. */
  async harm(): Promise<void> {
    const disk = this.#random.pick(this.disks)
    const bitmaps = await bitmapsOf(disk.top)
    if (bitmaps.length === 0) return
    const newest = bitmaps.find(({ name }) => name === this.checkpoints.at(-1))
    const { name } = (this.#random.bool(0.7) && newest) || this.#random.pick(bitmaps)
    await qemuImg.bitmap('--remove', disk.top, name)
    disk.harmed = true
    this.log.push(`${disk.target}: ${name} removed`)
  }

  /** @returns its name */
  async checkpoint(): Promise<string> {
    const nth = this.checkpoints.length + 1
    const name = `cp${nth}`
    const chained = this.#habit === 'chained' || (this.#habit === 'upgraded' && nth <= 3)
    const left = this.disks.length > 1 && this.#random.bool(0.15) ? this.#random.pick(this.disks) : undefined
    for (const disk of this.disks) {
      if (disk === left) continue
      const old = chained ? (await bitmapsOf(disk.top)).filter(({ flags }) => flags.includes('auto')) : []
      const make = this.#random.bool() ? byQemuImg : byTransaction
      await make(
        disk,
        name,
        old.map(each => each.name),
      )
      disk.moments.set(name, Buffer.from(disk.content))
      disk.written.set(name, [])
    }
    const parent = this.checkpoints.at(-1)
    this.checkpoints.push(name)
    this.log.push(`${name}${left ? ` without ${left.target}` : ''}`)
    const disks = this.disks.map(
      each => `<disk name='${each.target}' checkpoint='${each === left ? 'no' : 'bitmap'}'/>`,
    )
    writeFileSync(
      this.#dir.file(`checkpoints/${name}.xml`),
      `<domaincheckpoint><name>${name}</name>${parent ? `<parent><name>${parent}</name></parent>` : ''}` +
        `<creationTime>${1_700_000_000 + nth}</creationTime><disks>${disks.join('')}</disks>${this.#xml()}</domaincheckpoint>`,
    )
    return name
  }

  #writeXml(): void {
    writeFileSync(this.#dir.file('domain.xml'), this.#xml())
  }

  #xml(): string {
    const disks = this.disks.map(({ target, files: [top, ...below] }) => {
      const backing = below.reduceRight(
        (inner, file) =>
          `<backingStore type='file'><format type='qcow2'/><source file='${file}'/>${inner}</backingStore>`,
        '<backingStore/>',
      )
      return (
        `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${top}'/>${backing}` +
        `<target dev='${target}' bus='virtio'/></disk>`
      )
    })
    return `<domain type='qemu'><name>vm</name><devices>${disks.join('')}</devices></domain>`
  }
}

async function bitmapsOf(file: string) {
  return (await qemuImg.info(file))['format-specific']?.data.bitmaps ?? []
}

async function byQemuImg(
  { top, granularity }: OfflineDisk,
  name: string,
  old: readonly string[],
): Promise<void> {
  for (const each of old) await qemuImg.bitmap('--disable', top, each)
  await qemuImg.bitmap('--add', '-g', String(granularity), top, name)
}

/** In one transaction, as libvirt did it before 6.6. */
async function byTransaction(disk: OfflineDisk, name: string, old: readonly string[]): Promise<void> {
  const daemon = await StorageDaemon.start([qcow2Blockdev('disk', disk.top)])
  try {
    const add = { node: 'disk', name, persistent: true, granularity: disk.granularity }
    const actions = [
      ...old.map(each => ({ type: 'block-dirty-bitmap-disable', data: { node: 'disk', name: each } })),
      { type: 'block-dirty-bitmap-add', data: add },
    ]
    await daemon.qmp('transaction', { actions })
  } finally {
    await daemon.quit()
  }
}
