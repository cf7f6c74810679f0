/** What there is of a domain's checkpoints, and what each is good for now. */
import type { TreeProblem } from '../checkpoints/problems.js'
import { buildCheckpointTree, type CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointDisk, CheckpointFacts } from '../facts.js'
import type { ReasonCode, Severity } from '../plan/reasons.js'
import type { BackupPlan, Dialect, DiskMode, DiskPlan, LibvirtVerdict } from '../plan/types.js'
import { type EveryCheckpointOptions, planEveryCheckpoint } from './every-checkpoint.js'

/** A disk of the domain as it is now, since one checkpoint. */
export interface DiskUse {
  readonly target: string
  readonly mode: DiskMode
  readonly libvirt: LibvirtVerdict
  /** Bytes; undefined where not measured. */
  readonly dirtyBytes: number | undefined
  readonly reasons: readonly {
    readonly code: ReasonCode
    readonly severity: Severity
    readonly message: string
  }[]
}

export interface CheckpointOverview {
  readonly name: string
  readonly parent: string | undefined
  readonly description: string | undefined
  /** Unix seconds. */
  readonly creationTime: number | undefined
  /** libvirt's current checkpoint, the parent of the next one. */
  readonly current: boolean
  /** Its own list of disks; undefined where it has none, so that every writable disk is in it. */
  readonly disks: readonly CheckpointDisk[] | undefined
  /** Targets that have a bitmap of it by its record. */
  readonly recorded: readonly string[]
  /** For each disk of the domain what a backup since here would be. */
  readonly now: readonly DiskUse[]
  /** Over the disks that it recorded: all, some or none could be incremental; `unknown`: it cannot be told. */
  readonly usable: 'all' | 'some' | 'none' | 'unknown'
  /** Why libvirt does not load its metadata. */
  readonly libvirtSkips: string | undefined
}

export interface CheckpointsOverview {
  readonly domain: string
  readonly dialect: Dialect
  /** Undefined without checkpoints, and where the tree is broken. */
  readonly current: string | undefined
  /** In the order of their files; of two with one name the first. */
  readonly checkpoints: readonly CheckpointOverview[]
  readonly problems: readonly TreeProblem[]
  /** A running QEMU holds an image of the domain. */
  readonly running: boolean
}

/**
 * All checkpoints, with whether each is usable now: the plan's verdict from it, disk by disk. Never throws.
 *
 * @param options `measurements` where bodies were read
 * @example
 * ```ts
 * for (const { name, usable } of checkpointsOverview(facts).checkpoints) console.log(name, usable)
 * ```
 */
export function checkpointsOverview(
  facts: BackupFacts,
  options: EveryCheckpointOptions = {},
): CheckpointsOverview {
  const tree = buildCheckpointTree(facts.checkpoints)
  let dialect: Dialect = options.dialect ?? 'independent'
  const checkpoints: CheckpointOverview[] = []
  for (const plan of planEveryCheckpoint(facts, options)) {
    dialect = plan.dialect
    checkpoints.push(overviewOf(tree, plan))
  }
  const { current, problems } = tree
  return { domain: facts.domain.name, dialect, current, checkpoints, problems, running: isRunning(facts) }
}

/** Whether a writer holds an image of the domain: QEMU locks all of a running domain's. */
export function isRunning({ chains }: Pick<BackupFacts, 'chains'>): boolean {
  return [...chains.values()].some(chain => chain.some(({ locked }) => locked))
}

function overviewOf(tree: CheckpointTree, plan: BackupPlan): CheckpointOverview {
  const checkpoint = tree.get(plan.incremental)!
  const { name, parent, description, creationTime, disks, libvirtSkips } = checkpoint
  const now = plan.disks.map(diskUse)
  const counted = now.filter(use => !isOutside(use))
  return {
    ...{ name, parent, description, creationTime, disks, libvirtSkips },
    current: name === tree.current,
    recorded: recordedTargets(checkpoint),
    now,
    usable: usability(counted.map(({ mode }) => mode)),
  }
}

/** The checkpoint never had it, so that it says nothing about the checkpoint. */
export function isOutside({ reasons }: Pick<DiskUse, 'reasons'>): boolean {
  return reasons.some(({ code }) => code === 'disk-excluded' || code === 'disk-not-in-checkpoint')
}

function usability(modes: readonly DiskMode[]): CheckpointOverview['usable'] {
  if (modes.includes('unknown')) return 'unknown'
  const good = modes.filter(mode => mode === 'incremental').length
  return good === 0 ? 'none' : good === modes.length ? 'all' : 'some'
}

function diskUse({ target, mode, libvirt, dirtyBytes, reasons }: DiskPlan): DiskUse {
  const said = reasons.map(({ code, severity, message }) => ({ code, severity, message }))
  return { target, mode, libvirt, dirtyBytes, reasons: said }
}

/** The disks that a checkpoint says it has bitmaps of: its list, or else all writable ones of its time. */
function recordedTargets({ disks, domain }: CheckpointFacts): readonly string[] {
  if (disks !== undefined) {
    return disks.filter(({ checkpoint }) => checkpoint === 'bitmap').map(({ name }) => name)
  }
  const then = domain?.disks ?? []
  return then.filter(({ source, readonly }) => source !== undefined && !readonly).map(({ target }) => target)
}
