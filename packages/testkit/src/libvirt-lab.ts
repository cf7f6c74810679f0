import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type BackupOutcome, backupBegin, backupXml, type Verdict } from './libvirt-backup.js'
import { LibvirtHome } from './libvirt-home.js'
import {
  diskXml,
  domainXml,
  type LabDisk,
  type LabDomain,
  type SeenDisk,
  seenDisks,
  xmlText,
} from './libvirt-xml.js'
import { type CreateOptions, create } from './qemu-img.js'
import { RunError, type RunResult } from './run.js'
import { fitsShell, VirshShell } from './virsh-shell.js'

/** A disk of a running domain, with QEMU's name of the device and the size that QEMU sees. */
export interface LiveDisk extends SeenDisk {
  device: string
  size: number
}

/** Choices for `checkpoint`. */
export interface CheckpointOptions {
  description?: string
  /** The content of `<disks>`, as XML; without it every writable disk is in. */
  disks?: string
}

interface QueryBlock {
  qdev?: string
  inserted?: { image: { 'virtual-size': number } }
}

/**
 * A real libvirt for tests, isolated from the machine's own: nothing of it is seen outside, and `stop` leaves
 * no process and no folder. Domains run in software emulation without an operating system; qemu-io is the guest.
 *
 * @example
 * const lab = await LibvirtLab.start()
 * try { … } finally { await lab.stop() }
 */
export class LibvirtLab {
  readonly #home: LibvirtHome
  #serial = 0
  /** Shells that wait for the next command; as many as ran at once. */
  readonly #shells: VirshShell[] = []
  #hung = false
  /** What tidemark's `--libvirt-root` wants: holds `qemu/DOM.xml` and `qemu/checkpoint/DOM/*.xml`. */
  readonly libvirtRoot: string
  /** A folder for images that the lab's QEMU can read and write. */
  readonly images: string

  private constructor(home: LibvirtHome) {
    this.#home = home
    this.libvirtRoot = home.libvirtRoot
    this.images = home.makeFolder('images')
  }

  static async start(): Promise<LibvirtLab> {
    return new LibvirtLab(await LibvirtHome.start())
  }

  /**
   * False once libvirt's daemon has died by itself or a command of virsh was never answered: what libvirt said since is
   * no answer. (virsh starts another daemon, which `stop` ends too.)
   */
  get alive(): boolean {
    return this.#home.alive && !this.#hung
  }

  /** Ends all domains at once (as a power cut does), the daemon, and removes the folders. */
  async stop(): Promise<void> {
    await this.#home.stop()
  }

  /** Ends the daemon, calls `meanwhile` (which may change its files) and starts it again; domains run on. */
  async restart(meanwhile: () => void = () => {}): Promise<void> {
    // Their connections end with the daemon.
    for (const shell of this.#shells.splice(0)) shell.kill()
    await this.#home.restart(meanwhile)
  }

  /** The path of an image in the lab's folder. */
  image(name: string): string {
    return join(this.images, name)
  }

  /** Makes an image that the lab's QEMU may write, by default in its folder. */
  async createImage(name: string, size?: number | string, options: CreateOptions = {}): Promise<string> {
    const file = name.startsWith('/') ? name : this.image(name)
    await create(file, size, options)
    this.#home.own(file)
    return file
  }

  /** Gives a file or folder to the lab's user: for what was made as root. */
  own(path: string): void {
    this.#home.own(path)
  }

  /** Runs virsh and gives its output. @throws RunError with libvirt's words. */
  async virsh(...args: readonly string[]): Promise<string> {
    return (await this.#virsh(args, [0])).stdout
  }

  /** Runs virsh where a refusal is an answer. */
  async tryVirsh(...args: readonly string[]): Promise<RunResult> {
    return await this.#virsh(args, 'any')
  }

  async #virsh(args: readonly string[], accept: number[] | 'any'): Promise<RunResult> {
    const timeout = 120_000
    const connect = ['-q', '-c', 'qemu:///session']
    if (!fitsShell(args)) return await this.#home.run('virsh', [...connect, ...args], { accept, timeout })
    const shell = this.#shells.pop() ?? new VirshShell(this.#home.spawn('virsh', connect))
    const result = await shell.run(args, timeout).catch(error => {
      this.#hung = true
      throw error
    })
    if (shell.alive) this.#shells.push(shell)
    if (accept === 'any' || accept.includes(result.status)) return result
    throw new RunError(`virsh ${args.join(' ')}`, result, `exit status ${result.status}`)
  }

  /** Writes XML to a file of the lab, for a virsh command that takes one. */
  #file(xml: string): string {
    const file = join(this.#home.root, `x${this.#serial++}.xml`)
    writeFileSync(file, xml)
    return file
  }

  /** Defines a domain, or defines it anew. */
  async defineDomain(domain: LabDomain): Promise<void> {
    await this.virsh('define', this.#file(domainXml(domain)))
  }

  /** @param options.paused its firmware does not run: less work for the machine, and all that is of images is the same */
  async startDomain(domain: string, options: { paused?: boolean } = {}): Promise<void> {
    await this.virsh('start', domain, ...(options.paused ? ['--paused'] : []))
  }

  /** Ends QEMU by SIGTERM: it closes its images and writes their bitmaps. */
  async destroyDomain(domain: string): Promise<void> {
    await this.virsh('destroy', '--graceful', domain)
  }

  /** kill -9 of the domain's QEMU, and waits until libvirt has noticed. */
  async crashDomain(domain: string): Promise<void> {
    const pidFile = join(this.#home.root, 'r/libvirt/qemu/run', `${domain}.pid`)
    process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGKILL')
    for (let tries = 0; tries < 300; tries++) {
      if ((await this.virsh('domstate', domain)).startsWith('shut off')) return
      await sleep(20)
    }
    throw new Error(`libvirt does not notice that ${domain} is dead`)
  }

  /** A QMP command to the domain's QEMU. */
  async qmp<T>(domain: string, execute: string, args: Record<string, unknown> = {}): Promise<T> {
    const command = JSON.stringify({ execute, arguments: args })
    const answer = JSON.parse(await this.virsh('qemu-monitor-command', domain, command))
    if (answer.error) throw new Error(`${execute}: ${answer.error.desc}`)
    return answer.return
  }

  /** The disks of a running domain, hotplugged ones too. Empty drives are left out. */
  async liveDisks(domain: string): Promise<LiveDisk[]> {
    const blocks = await this.qmp<QueryBlock[]>(domain, 'query-block')
    return seenDisks(await this.virsh('dumpxml', domain)).flatMap(disk => {
      // scsi-hd is known by its alias, virtio-blk by a path that holds it.
      const block = blocks.find(
        ({ qdev }) => qdev === disk.alias || qdev?.split('/').includes(disk.alias ?? '-'),
      )
      if (block?.qdev === undefined || !block.inserted) return []
      return [{ ...disk, device: block.qdev, size: block.inserted.image['virtual-size'] }]
    })
  }

  /**
   * Writes as the guest would: through the device, so that every recording bitmap sees it.
   *
   * @param disk target (`sda`) or index.
   * @param pattern the byte, 0–255.
   */
  async guestWrite(
    domain: string,
    disk: string | number,
    pattern: number,
    offset: number,
    length: number,
  ): Promise<void> {
    const found = await this.#liveDisk(domain, disk)
    // QEMU prints the failure of a write to its own log, so it must be certain beforehand.
    if (offset + length > found.size)
      throw new RangeError(`a write to ${offset + length} of ${found.size} bytes`)
    await this.#guestIo(domain, found, `write -P ${pattern} ${offset} ${length}`)
  }

  /** Flushes as the guest would: what QEMU held back of its tables is then in the files. */
  async guestFlush(domain: string, disk: string | number): Promise<void> {
    await this.#guestIo(domain, await this.#liveDisk(domain, disk), 'flush')
  }

  async #liveDisk(domain: string, disk: string | number): Promise<LiveDisk> {
    const disks = await this.liveDisks(domain)
    const found = typeof disk === 'number' ? disks[disk] : disks.find(({ target }) => target === disk)
    if (!found) throw new Error(`${domain} has no disk ${disk}`)
    return found
  }

  async #guestIo(domain: string, { device }: LiveDisk, io: string): Promise<void> {
    const command = `qemu-io -d ${device} "${io}"`
    const words = await this.virsh('qemu-monitor-command', domain, '--hmp', command)
    if (words.trim() !== '') throw new Error(`${command}: ${words}`)
  }

  async checkpoint(domain: string, name: string, options: CheckpointOptions = {}): Promise<void> {
    const description = options.description
      ? `<description>${xmlText(options.description)}</description>`
      : ''
    const disks = options.disks === undefined ? '' : `<disks>${options.disks}</disks>`
    const xml = `<domaincheckpoint><name>${name}</name>${description}${disks}</domaincheckpoint>`
    await this.virsh('checkpoint-create', domain, this.#file(xml))
  }

  /** Tells libvirt what a checkpoint of its is, as after metadata was lost: `xml` replaces what it knew. */
  async redefineCheckpoint(domain: string, xml: string): Promise<void> {
    await this.virsh('checkpoint-create', domain, this.#file(xml), '--redefine')
  }

  /** Plugs a disk into the running domain and, unless told, into its definition. */
  async attachDisk(domain: string, disk: LabDisk, options: { config?: boolean } = {}): Promise<void> {
    const config = options.config === false ? [] : ['--config']
    await this.virsh('attach-device', domain, this.#file(diskXml(disk)), '--live', ...config)
  }

  async detachDisk(domain: string, target: string, options: { config?: boolean } = {}): Promise<void> {
    const config = options.config === false ? [] : ['--config']
    await this.virsh('detach-disk', domain, target, '--live', ...config)
  }

  /**
   * An external disk-only snapshot without metadata: each named disk gets an overlay, its definition follows.
   *
   * @param disks target → file of the overlay; other disks are left alone.
   */
  async snapshot(domain: string, name: string, disks: Record<string, string>): Promise<void> {
    const all = seenDisks(await this.virsh('dumpxml', domain))
    const specs = all.flatMap(({ target }) => {
      const file = disks[target]?.replaceAll(',', ',,')
      return [
        '--diskspec',
        file === undefined ? `${target},snapshot=no` : `${target},snapshot=external,file=${file}`,
      ]
    })
    await this.virsh('snapshot-create-as', domain, name, '--disk-only', '--no-metadata', '--atomic', ...specs)
  }

  /**
   * Starts a backup and, in push mode, waits for its end. What libvirt refuses is an answer, not an error.
   */
  async backupBegin(domain: string, xml: string): Promise<BackupOutcome> {
    const begin = await this.tryVirsh('backup-begin', domain, this.#file(xml))
    return await backupBegin(begin, xml, (...args) => this.virsh('domjobinfo', domain, ...args))
  }

  /**
   * Whether libvirt takes an incremental push backup of this one disk since that checkpoint. The backup is
   * really made, and its file removed.
   */
  async backupVerdict(domain: string, checkpoint: string, target: string): Promise<Verdict> {
    const folder = this.#home.makeFolder('backup')
    const file = join(folder, `${this.#serial++}.qcow2`)
    const outcome = await this.backupBegin(domain, backupXml(checkpoint, [{ target, file }]))
    rmSync(file, { force: true })
    return outcome.accepted ? { verdict: 'accept' } : { verdict: 'reject', error: outcome.error }
  }
}

/** Calls `work` with a lab and stops it afterwards, whatever `work` did. */
export async function withLibvirtLab<T>(work: (lab: LibvirtLab) => Promise<T>): Promise<T> {
  const lab = await LibvirtLab.start()
  try {
    return await work(lab)
  } finally {
    await lab.stop()
  }
}
