import { randomUUID } from 'node:crypto'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type BitmapEngine, createEngine } from '@tidemark/qcow2'
import { type LibvirtLab, Random } from '@tidemark/testkit'
import { Disk } from './disk.js'

const KiB = 1024

/** A domain with its disks, as far as its history has come. */
export class World {
  readonly lab: LibvirtLab
  readonly seed: string
  readonly random: Random
  /** The domain. */
  readonly name: string
  readonly uuid = randomUUID()
  readonly disks: Disk[] = []
  running = false
  /** What was done, for whoever has to understand a failure. */
  readonly log: string[] = []
  readonly engine: BitmapEngine = createEngine()
  #serial = 0

  constructor(lab: LibvirtLab, seed: string) {
    this.lab = lab
    this.seed = seed
    this.random = new Random(seed)
    this.name = `h-${seed.replaceAll(/[^\w-]/g, '_')}`
  }

  /** One to three disks plugged in, sometimes one more beside, sometimes a raw one. */
  async begin(): Promise<void> {
    const { random } = this
    const count = random.int(1, 3)
    for (let i = 0; i < count; i++) await this.addDisk(this.freeTargets()[0])
    if (random.bool(0.5)) await this.addDisk(undefined)
    if (random.bool(0.15)) await this.addDisk(this.freeTargets()[0], 'raw')
    await this.define()
    await this.start()
  }

  async addDisk(target: string | undefined, format: Disk['format'] = 'qcow2'): Promise<Disk> {
    const id = String.fromCharCode(97 + this.disks.length)
    const size = this.random.int(16, 64) * 64 * KiB + this.random.pick([0, 0, 512, 4096])
    const clusterSize = this.random.pick([4 * KiB, 64 * KiB, 64 * KiB])
    const file = this.file(id)
    await this.lab.createImage(file, size, format === 'raw' ? { format } : { clusterSize })
    const disk = new Disk(id, format, file, size)
    disk.target = target
    this.disks.push(disk)
    return disk
  }

  get attached(): Disk[] {
    return this.disks.filter(({ target }) => target !== undefined)
  }

  get detached(): Disk[] {
    return this.disks.filter(({ target }) => target === undefined)
  }

  at(target: string): Disk {
    const found = this.disks.find(disk => disk.target === target)
    if (found === undefined) throw new Error(`nothing is at ${target}`)
    return found
  }

  freeTargets(): string[] {
    return ['sda', 'sdb', 'sdc', 'sdd', 'sde'].filter(
      name => !this.disks.some(({ target }) => target === name),
    )
  }

  /** A number that was not given before. */
  next(): number {
    return ++this.#serial
  }

  /** A file that is not there yet. */
  file(what: string): string {
    return this.lab.image(`${this.name}-${what}-${this.next()}.qcow2`)
  }

  /** The domain's definition as the disks are. */
  async define(): Promise<void> {
    const disks = this.attached
      .map(({ target, top, format }) => ({ target: target!, source: top, format }))
      .sort((a, b) => (a.target < b.target ? -1 : 1))
    await this.lab.defineDomain({ name: this.name, uuid: this.uuid, disks })
  }

  async start(): Promise<void> {
    await this.lab.startDomain(this.name, { paused: true })
    this.running = true
  }

  async stop(): Promise<void> {
    await this.lab.destroyDomain(this.name)
    this.running = false
  }

  /** Ends what is left of the domain, its metadata and images too. */
  async end(): Promise<void> {
    const { lab, name } = this
    if (this.running) await lab.tryVirsh('destroy', name)
    await lab.tryVirsh('undefine', name, '--checkpoints-metadata')
    for (const file of readdirSync(lab.images)) {
      if (file.startsWith(`${name}-`)) rmSync(join(lab.images, file))
    }
  }
}
