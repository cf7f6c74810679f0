import { existsSync, rmSync } from 'node:fs'
import type { DiskPlan } from '@tidemark/planner'
import { backupXml, ownClusters } from '@tidemark/testkit'
import { widen } from '../sets.js'
import type { Coverage } from './coverage.js'
import type { Disk } from './disk.js'
import { careful, excuses, type Miss } from './known.js'
import { type Planned, type Plans, planLive } from './plans.js'
import { differing, STEP, setOf, stepsOf } from './steps-of.js'
import type { World } from './world.js'

/** What libvirt said of one disk, and what it copied. */
interface Answer {
  readonly accepted: boolean
  readonly error?: string
  /** Guest offset → bytes. */
  readonly own?: ReadonlyMap<number, Uint8Array>
}

/** One backup of all disks that should be accepted; each alone of those that should not, or where that fails. */
async function askLibvirt(
  world: World,
  checkpoint: string,
  disks: readonly DiskPlan[],
): Promise<Map<string, Answer>> {
  const answers = new Map<string, Answer>()
  const ask = async (targets: readonly string[]): Promise<boolean> => {
    const files = targets.map(target => ({ target, file: world.file('backup') }))
    const outcome = await world.lab.backupBegin(world.name, backupXml(checkpoint, files))
    for (const { target, file } of files) {
      if (outcome.accepted) answers.set(target, { accepted: true, own: ownClusters(file) })
      else answers.set(target, { accepted: false, error: outcome.error })
      if (existsSync(file)) rmSync(file)
    }
    return outcome.accepted
  }
  const targets = (libvirt: string) =>
    disks.filter(disk => disk.libvirt === libvirt).map(({ target }) => target)
  const accept = targets('accept')
  if (accept.length > 0 && !(await ask(accept))) for (const target of accept) await ask([target])
  for (const { target, libvirt } of disks) if (libvirt !== 'accept') await ask([target])
  return answers
}

/** The disk then, cut or filled with zeros to its size now. */
function sized(content: Buffer, size: number): Buffer {
  return Buffer.concat([content], size)
}

function restored(base: Buffer, own: ReadonlyMap<number, Uint8Array>): Buffer {
  const disk = Buffer.from(base)
  for (const [offset, bytes] of own) disk.set(bytes, offset)
  return disk
}

const blocking = ({ reasons }: DiskPlan): string[] => [
  ...new Set(reasons.filter(({ severity }) => severity === 'blocks').map(({ code }) => code)),
]

/** What is wrong, one line each: empty where all agree. */
export class Judge {
  readonly #world: World
  readonly #coverage: Coverage
  readonly wrong: string[] = []

  constructor(world: World, coverage: Coverage) {
    this.#world = world
    this.#coverage = coverage
  }

  /** Plans from the files, before anybody asks libvirt: would a restore have every byte? */
  offline(plans: Plans): void {
    for (const [checkpoint, { plan, dirty }] of plans) {
      for (const disk of plan.disks) {
        const subject = this.#world.at(disk.target)
        this.#said(disk)
        if (disk.mode !== 'incremental') continue
        const set = dirty?.get(disk.target)
        if (set === undefined) {
          this.#say(checkpoint, disk, 'is incremental, yet its merge list could not be read')
          continue
        }
        this.#missed(subject, checkpoint, disk, plans, stepsOf(set), plan.dialect)
      }
    }
  }

  /**
   * The running domain: libvirt's verdict on each disk since each checkpoint, what it copied, and whether a restore
   * has every byte.
   *
   * @param before plans from the files, of the moment before it was started
   */
  async live(before?: Plans): Promise<void> {
    const plans = await planLive(this.#world)
    const answers = new Map<string, Map<string, Answer>>()
    for (const [checkpoint, { plan }] of plans) {
      answers.set(checkpoint, await askLibvirt(this.#world, checkpoint, plan.disks))
    }
    const copies = (target: string) =>
      new Map(
        [...answers].flatMap(([checkpoint, all]) => {
          const own = all.get(target)?.own
          return own === undefined ? [] : [[checkpoint, new Set(own.keys())] as const]
        }),
      )
    for (const [checkpoint, planned] of plans) {
      for (const disk of planned.plan.disks) {
        const answer = answers.get(checkpoint)!.get(disk.target)!
        this.#said(disk)
        this.#verdict(checkpoint, disk, answer, 'live')
        if (disk.mode === 'unknown')
          this.#say(checkpoint, disk, 'cannot be told, though QEMU itself was asked')
        if (answer.own !== undefined)
          this.#increment(checkpoint, disk, planned, answer.own, copies(disk.target))
        this.#since(checkpoint, disk.target, answer, before)
      }
    }
  }

  /** What the files said before the start. */
  #since(checkpoint: string, target: string, answer: Answer, before: Plans | undefined): void {
    const planned = before?.get(checkpoint)
    const disk = planned?.plan.disks.find(each => each.target === target)
    if (planned === undefined || disk === undefined) return
    this.#verdict(checkpoint, disk, answer, 'offline')
    const set = planned.dirty?.get(target)
    if (disk.libvirt !== 'accept' || answer.own === undefined || set === undefined) return
    const wanted = widen(set, STEP, this.#world.at(target).size)
    const found = setOf(answer.own)
    if (JSON.stringify(found) !== JSON.stringify(wanted)) {
      this.#say(checkpoint, disk, `libvirt copied ${found.join(' ')}, the merge list is ${wanted.join(' ')}`)
    }
  }

  #verdict(checkpoint: string, disk: DiskPlan, { accepted, error }: Answer, when: string): void {
    const said = accepted ? 'accept' : 'reject'
    this.#coverage.count('verdicts', `${when} ${said}`)
    this.#coverage.count('verdicts', `${when} ${disk.mode}`)
    if (disk.libvirt !== said) {
      this.#say(
        checkpoint,
        disk,
        `${when}: libvirt says ${said}${error ? ` (${error})` : ''}, the plan ${disk.libvirt}`,
      )
    }
  }

  #said(disk: DiskPlan): void {
    for (const { code, severity } of disk.reasons) {
      this.#coverage.count('reasons', severity === 'note' ? `${code} (note)` : code)
    }
  }

  /** The increment that libvirt made over the disk of that time. */
  #increment(
    checkpoint: string,
    disk: DiskPlan,
    { plan }: Planned,
    own: ReadonlyMap<number, Uint8Array>,
    copies: ReadonlyMap<string, ReadonlySet<number>>,
  ): void {
    const subject = this.#world.at(disk.target)
    for (const [offset, bytes] of own) {
      if (Buffer.compare(bytes, subject.content.subarray(offset, offset + bytes.length)) !== 0) {
        this.#say(checkpoint, disk, `libvirt copied other bytes at ${offset} than the guest sees`)
      }
    }
    const moment = subject.moments.get(checkpoint)
    if (disk.mode === 'incremental' && moment === undefined) {
      this.#say(checkpoint, disk, 'is incremental, though the checkpoint did not take it in')
    }
    if (moment === undefined) {
      for (const code of blocking(disk)) this.#coverage.count('traps', code)
      return
    }
    const clusters = differing(restored(sized(moment.content, subject.size), own), subject.content)
    if (disk.mode === 'incremental' && clusters.length > 0) {
      this.#excuse({
        ...{ disk: subject, checkpoint, plan: disk, clusters, bodies: false },
        ...{ newer: copies, dialect: plan.dialect },
      })
    }
    if (disk.mode === 'full') {
      const kind = clusters.length === 0 ? 'needless' : 'traps'
      for (const code of blocking(disk)) {
        this.#coverage.count(kind, code)
        if (kind === 'needless' && !careful.includes(code)) {
          this.#say(checkpoint, disk, 'is full, though what libvirt copied restores it')
        }
      }
    }
  }

  #missed(
    subject: Disk,
    checkpoint: string,
    disk: DiskPlan,
    plans: Plans,
    has: ReadonlySet<number>,
    dialect: string,
  ): void {
    const moment = subject.moments.get(checkpoint)
    if (moment === undefined) {
      this.#say(checkpoint, disk, 'is incremental, though the checkpoint did not take it in')
      return
    }
    const clusters = differing(sized(moment.content, subject.size), subject.content).filter(
      at => !has.has(at),
    )
    if (clusters.length === 0) return
    const later = [...plans].filter(([name]) => Number(name.slice(2)) > Number(checkpoint.slice(2)))
    const newer = new Map(
      later.flatMap(([name, { dirty, plan }]) => {
        const sound = plan.disks.find(({ target }) => target === disk.target)?.mode === 'incremental'
        const set = dirty?.get(disk.target)
        return set === undefined || !sound ? [] : [[name, stepsOf(set)] as const]
      }),
    )
    this.#excuse({ disk: subject, checkpoint, plan: disk, clusters, bodies: true, newer, dialect })
  }

  #excuse(miss: Miss): void {
    const found = excuses(miss)
    if (found !== undefined) for (const id of found) this.#coverage.count('known', id)
    else {
      const { checkpoint, plan, clusters, bodies } = miss
      const how = bodies ? 'from the files' : 'live'
      this.#say(checkpoint, plan, `${how}: a restore lacks what was written at ${clusters.join(' ')}`)
    }
  }

  #say(checkpoint: string, { target, mode, libvirt, reasons }: DiskPlan, what: string): void {
    const codes = reasons.map(({ code, severity }) => (severity === 'note' ? `(${code})` : code)).join(' ')
    const { id } = this.#world.at(target)
    this.wrong.push(
      `since ${checkpoint}, ${target} (disk ${id}): ${what} [${mode}, libvirt ${libvirt}; ${codes}]`,
    )
  }
}
