/** Block commit, pull and copy: layers are united, and with them their bitmaps. */
import { PlanError } from '../errors.js'
import type { BackupFacts, LayerFacts } from '../facts.js'
import type { Dialect } from '../plan/types.js'
import { applyToFacts, newImage, withChain } from './apply.js'
import { combineChained } from './chained.js'
import { chainedProblems } from './chained-problems.js'
import { dialectOf, dialectProblems } from './dialect.js'
import {
  chainProblems,
  type DiskChain,
  findDisk,
  findLayer,
  type LayerRef,
  placesOf,
  problem,
  sizeProblems,
} from './disks.js'
import { type MergeResult, merge, placeOf } from './merge.js'
import { lostNotes, onlyBelow, skippedNotes, withoutUnsayable } from './notes.js'
import { sharedBase } from './shared-layers.js'
import {
  type CheckpointMeasurements,
  chainedTraps,
  dialectTraps,
  disarmTraps,
  recordsItself,
} from './traps.js'
import type {
  BitmapOperation,
  DataStep,
  OperationAction,
  OperationProblem,
  OperationsPlan,
  Place,
} from './types.js'

interface JobRequest {
  /** The disk's target. */
  readonly disk: string
  /** The caller's word. Undefined: found from the bitmaps' flags. */
  readonly dialect?: Dialect | undefined
  /** What the bodies say, by checkpoint: a bitmap that has lost writes is broken too. Absent: directories alone count. */
  readonly measurements?: CheckpointMeasurements | undefined
}

export interface CommitRequest extends JobRequest {
  /** The uppermost layer whose data go into `base`; 0 is the disk's own image (an active commit). */
  readonly top: LayerRef
  readonly base: LayerRef
}

export interface PullRequest extends JobRequest {
  /** The layer that stays below the top. Undefined: none does. */
  readonly base?: LayerRef | undefined
}

export interface CopyRequest extends JobRequest {
  /** The file of the copy. */
  readonly target: string
  /** Only the top layer; what is below stays the copy's backing chain. */
  readonly shallow?: boolean | undefined
}

/**
 * Plans what happens to bitmaps when the layers from `top` to above `base` are committed into `base`.
 *
 * @throws {PlanError} `disk-unknown`, `layer-unknown`, `layer-order`
 */
export function planCommit(facts: BackupFacts, request: CommitRequest): OperationsPlan {
  const found = findDisk(facts, request.disk)
  const { chain } = found
  const job = new Job(facts, found, 'commit', request)
  if (!job.readable) return job.plan([])
  const top = findLayer(found, request.top)
  const base = findLayer(found, request.base)
  if (top >= base) {
    throw layerOrder(request.disk, `the base (layer ${base}) must be below the top (layer ${top})`)
  }
  const target = placeOf(request.disk, chain, base)
  const data: DataStep = {
    ...{ kind: 'commit', top: placeOf(request.disk, chain, top), base: target },
    overlay: top === 0 ? undefined : placeOf(request.disk, chain, top - 1),
    baseFormat: chain[base]!.format,
  }
  job.problems.push(...sharedBase(facts, found, top, base))
  if (!job.canHold(base)) return job.plan([data])
  job.combine({ top, base, target, command: 'qemu-img commit' })
  // What is committed is recorded by those bitmaps of the base that record: they lack nothing afterwards.
  const after = (layers: readonly LayerFacts[]) => [...layers.slice(0, top), ...layers.slice(base)]
  const lost = (name: string) =>
    request.measurements
      ?.get(name)
      ?.get(request.disk)
      ?.violations.some(({ layer }) => layer === base)
  job.disarm(target, after, name => recordsItself(chain[base]!, name) && !lost(name))
  if (base > 0 && top > 0 && job.operations.length > 0) job.reopen.push(target)
  return job.plan([data])
}

/**
 * Plans what happens to bitmaps when the layers between the top and `base` are pulled up into the top.
 *
 * @throws {PlanError} `disk-unknown`, `layer-unknown`, `layer-order`
 */
export function planPull(facts: BackupFacts, request: PullRequest): OperationsPlan {
  const found = findDisk(facts, request.disk)
  const { chain } = found
  const job = new Job(facts, found, 'pull', request)
  if (!job.readable) return job.plan([])
  const base = request.base === undefined ? undefined : findLayer(found, request.base)
  if ((base ?? chain.length) < 2) {
    const message = base === undefined ? 'the chain is one image' : `the base is layer ${base}`
    throw layerOrder(request.disk, `there is nothing to pull between the top and the base: ${message}`)
  }
  const top = placeOf(request.disk, chain, 0)
  const data: DataStep = {
    ...{ kind: 'pull', top, base: base === undefined ? undefined : placeOf(request.disk, chain, base) },
    baseFormat: base === undefined ? undefined : chain[base]!.format,
  }
  if (!job.canHold(0)) return job.plan([data])
  job.combine({ top: 0, base, target: top, command: 'qemu-img rebase' })
  const after = (layers: readonly LayerFacts[]) => [layers[0]!, ...layers.slice(base ?? layers.length)]
  job.disarm(top, after, () => false)
  return job.plan([data])
}

/**
 * Plans the bitmaps of a copy.
 *
 * @throws {PlanError} `disk-unknown`
 */
export function planCopy(facts: BackupFacts, request: CopyRequest): OperationsPlan {
  const found = findDisk(facts, request.disk)
  const { chain } = found
  const job = new Job(facts, found, 'copy', request)
  if (!job.readable) return job.plan([])
  const target: Place = { disk: request.disk, layer: 'target', filename: request.target }
  const below = request.shallow === true && chain.length > 1
  const data: DataStep = {
    ...{ kind: 'copy', top: placeOf(request.disk, chain, 0), topFormat: chain[0]!.format, target },
    backing: below ? placeOf(request.disk, chain, 1) : undefined,
    backingFormat: below ? chain[1]!.format : undefined,
  }
  job.combine({
    top: 0,
    base: request.shallow === true ? 1 : undefined,
    target,
    command: 'qemu-img convert',
  })
  const stays = request.shallow === true ? 1 : chain.length
  const after = (layers: readonly LayerFacts[]) => [
    newImage(target, layers[0]!, job.operations),
    ...layers.slice(stays),
  ]
  job.disarm(target, after, () => false)
  return job.plan([data])
}

function layerOrder(disk: string, why: string): PlanError {
  return new PlanError('layer-order', `disk ${disk}: ${why}`, { disk })
}

interface Combination {
  readonly top: number
  readonly base: number | undefined
  readonly target: Place
  /** The tool that moves the data and knows nothing of bitmaps. */
  readonly command: string
}

/** What does not keep from listing what would be done. */
const READABLE: ReadonlySet<OperationProblem['code']> = new Set([
  'image-in-use',
  'bitmap-corrupt',
  'dialect-unclear',
])

/** What the three have in common. */
class Job {
  operations: readonly BitmapOperation[] = []
  readonly reopen: Place[] = []
  readonly problems: OperationProblem[]
  readonly #facts: BackupFacts
  readonly #found: DiskChain
  readonly #action: OperationAction
  readonly #dialect: Dialect
  readonly #dialectEvidence: OperationsPlan['dialectEvidence']
  readonly #measurements: CheckpointMeasurements | undefined

  constructor(facts: BackupFacts, found: DiskChain, action: OperationAction, request: JobRequest) {
    this.#facts = facts
    this.#found = found
    this.#action = action
    this.#measurements = request.measurements
    const { dialect, dialectEvidence } = dialectOf(facts, request.dialect)
    this.#dialect = dialect
    this.#dialectEvidence = dialectEvidence
    this.problems = [...chainProblems(found), ...dialectProblems(facts, { dialect, dialectEvidence })]
  }

  /** False where an image is not known: then no list of operations means anything. */
  get readable(): boolean {
    return this.problems.every(({ code }) => READABLE.has(code))
  }

  /** False, and a note, where the target of the data can hold no bitmaps. */
  canHold(layer: number): boolean {
    const { disk, chain } = this.#found
    const { format, filename, compat, bitmapsStale } = chain[layer]!
    const evidence = { layer, filename }
    if (format !== 'qcow2') {
      const message = `layer ${layer} of ${disk.target}, ${filename}, is ${format} and holds no bitmaps: all bitmaps of the layers above it are lost`
      this.problems.push(problem('not-qcow2', 'note', disk.target, message, evidence))
      return false
    }
    if (compat === '0.10') {
      const message = `layer ${layer} of ${disk.target}, ${filename}, is a version 2 image, which can hold no bitmaps: qemu-img amend -o compat=1.1 makes it one that can`
      this.problems.push(problem('image-version-2', 'blocks', disk.target, message, evidence))
    } else if (bitmapsStale) {
      const message = `the bitmaps of layer ${layer} of ${disk.target}, ${filename}, are stale, and cannot be added to: qemu-img check -r leaks drops them`
      this.problems.push(problem('bitmaps-stale', 'blocks', disk.target, message, evidence))
    }
    return true
  }

  combine({ top, base, target, command }: Combination): void {
    const { disk, chain } = this.#found
    const name = disk.target
    const end = base ?? chain.length
    let operations: MergeResult['operations']
    if (this.#dialect === 'chained') {
      const combined = combineChained({ disk: name, chain, top, base, target })
      operations = combined.operations
      this.problems.push(...chainedProblems(name, chain, combined, target, base))
    } else {
      const merged = merge({ disk: name, chain, top, base, target })
      operations = merged.operations
      const left = [...merged.skipped, ...onlyBelow(chain, top, top + 1, end)]
      this.problems.push(...skippedNotes(name, chain, left))
    }
    const sayable = withoutUnsayable(name, operations)
    operations = sayable.operations
    this.operations = operations
    this.problems.push(...sayable.notes)
    const involved = operations.flatMap(operation => {
      const sources = operation.kind === 'merge' ? operation.sources : []
      return [operation, ...sources].map(({ layer }) => layer).filter(layer => typeof layer === 'number')
    })
    this.problems.push(
      ...lostNotes(name, command, operations),
      ...sizeProblems(
        this.#found,
        [...new Set(involved)].sort((a, b) => a - b),
      ),
    )
  }

  /** A broken bitmap must not be taken for sound just because the layer that told so has gone. */
  disarm(
    target: Place,
    moved: (layers: readonly LayerFacts[]) => readonly LayerFacts[],
    covered: (name: string) => boolean,
  ): void {
    const { disk } = this.#found
    if (this.#dialect === 'independent') {
      const disarmed = disarmTraps({
        ...{ facts: this.#facts, disk: disk.target, operations: this.operations },
        ...{ target, moved, covered, measurements: this.#measurements },
      })
      this.operations = disarmed.operations
      this.problems.push(...disarmed.notes)
    }
    if (this.problems.some(({ severity }) => severity === 'blocks')) return
    const between = applyToFacts(this.#facts, this.operations)
    const after = withChain(between, disk.target, moved(between.chains.get(disk.target)!))
    const states = [between, after]
    if (this.#dialect === 'chained') {
      this.problems.push(...chainedTraps(this.#facts, states, disk.target, this.#measurements))
    } else if (this.#dialectEvidence.source === 'found') {
      this.problems.push(...dialectTraps(this.#facts, states))
    }
  }

  plan(data: readonly DataStep[]): OperationsPlan {
    const blocked = this.problems.some(({ severity }) => severity === 'blocks')
    return {
      domain: this.#facts.domain.name,
      action: this.#action,
      checkpoint: undefined,
      dialect: this.#dialect,
      dialectEvidence: this.#dialectEvidence,
      disks: [this.#found.disk.target],
      layers: placesOf(this.#found),
      operations: this.operations,
      reopen: blocked ? [] : this.reopen,
      data,
      problems: this.problems,
    }
  }
}
