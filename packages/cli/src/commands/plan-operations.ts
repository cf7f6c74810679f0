import { resolve } from 'node:path'
import {
  type BackupFacts,
  type Dialect,
  type Measurements,
  type OperationsPlan,
  operationsExitStatus,
  operationsToJson,
  operationsToQmp,
  planCommit,
  planCopy,
  planDelete,
  planPull,
  planSnapshot,
  snapshotDisks,
  toKebab,
} from '@tidemark/planner'
import { type LoadedDomain, loadDomain, namesThen, openDomainImages } from '@tidemark/planner/node'
import { COMBINE_ARENA_BYTES, createEngine } from '@tidemark/qcow2'
import { type DomainOptions, domainLocation, leftOut, mapRule } from '../domain-options.js'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Interruption } from '../interruption.js'
import type { Output } from '../output.js'
import { Afterwards } from '../plan/afterwards.js'

export interface OperationOptions extends DomainOptions {
  readonly dialect?: Dialect | 'auto'
  readonly format?: 'json' | 'qmp' | 'sh'
  readonly apply?: boolean
  readonly dryRun?: boolean
  readonly bodies?: boolean
  readonly unsafeNoLock?: boolean
}

export interface CommitOptions extends OperationOptions {
  readonly disk?: string
  readonly top?: string
  readonly base?: string
}

export interface PullOptions extends OperationOptions {
  readonly disk?: string
  readonly base?: string
}

export interface CopyOptions extends OperationOptions {
  readonly disk?: string
  readonly target?: string
  readonly shallow?: boolean
}

export interface SnapshotOptions extends OperationOptions {
  readonly disk?: readonly string[]
}

function toldDialect({ dialect }: OperationOptions): Dialect | undefined {
  return dialect === 'auto' ? undefined : dialect
}

/** @param measurements what the bodies say, by checkpoint; undefined at first */
type Planning = (facts: BackupFacts, measurements?: ReadonlyMap<string, Measurements>) => OperationsPlan

/** `tidemark plan delete`. */
export function planDeleteCommand(
  checkpoint: string,
  options: OperationOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  const dialect = toldDialect(options)
  return run(
    (facts, measurements) => planDelete(facts, { checkpoint, dialect, measurements }),
    options,
    interruption,
    output,
  )
}

/** `tidemark plan commit`. */
export function planCommitCommand(
  { disk, top, base, ...options }: CommitOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  if (disk === undefined || top === undefined || base === undefined) {
    throw new UsageError('commit what into what? Give --disk TARGET, --top LAYER and --base LAYER')
  }
  const dialect = toldDialect(options)
  return run(
    (facts, measurements) => planCommit(facts, { disk, top, base, dialect, measurements }),
    options,
    interruption,
    output,
  )
}

/** `tidemark plan pull`. */
export function planPullCommand(
  { disk, base, ...options }: PullOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  if (disk === undefined) throw new UsageError('pull into which disk? Give --disk TARGET')
  const dialect = toldDialect(options)
  return run(
    (facts, measurements) => planPull(facts, { disk, base, dialect, measurements }),
    options,
    interruption,
    output,
  )
}

/** `tidemark plan copy`. */
export function planCopyCommand(
  { disk, target, shallow, ...options }: CopyOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  if (disk === undefined || !target) {
    throw new UsageError('copy what to where? Give --disk TARGET and --target FILE')
  }
  const request = { disk, target: resolve(target), shallow, dialect: toldDialect(options) }
  const plan: Planning = (facts, measurements) => {
    mustBeNew(facts, disk, request.target)
    return planCopy(facts, { ...request, measurements })
  }
  return run(plan, options, interruption, output)
}

/** `tidemark plan snapshot`. */
export function planSnapshotCommand(
  { disk, ...options }: SnapshotOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  const named = disk?.map(overlayOf)
  const twice = named?.find(([target], i) => named.findIndex(each => each[0] === target) < i)
  if (twice !== undefined) throw new UsageError(`--disk ${twice[0]} is given twice`)
  const suffix = Math.floor(Date.now() / 1000)
  const plan: Planning = facts => {
    const entries =
      named ??
      snapshotDisks(facts.domain.disks).map(({ target }): readonly [string, string | undefined] => [
        target,
        undefined,
      ])
    const overlays = entries.map(
      ([target, file]) => [target, file ?? besideTop(facts, target, suffix)] as const,
    )
    for (const [target, file] of overlays) mustBeNew(facts, target, file)
    return planSnapshot(facts, { overlays: new Map(overlays), dialect: toldDialect(options) })
  }
  return run(plan, options, interruption, output)
}

/** Layers may be named from the current folder. @throws {CommandError} `overlay-unfit` */
function mustBeNew({ chains }: BackupFacts, disk: string, file: string): void {
  for (const [target, chain] of chains) {
    const layer = chain.findIndex(({ filename }) => resolve(filename) === file)
    if (layer < 0) continue
    const message = `${file} is layer ${layer} of ${target} already`
    throw new CommandError('overlay-unfit', message, { disk, filename: file })
  }
}

/** `vda=/images/overlay.qcow2`, or the target alone. */
function overlayOf(text: string): readonly [target: string, file: string | undefined] {
  const [, target, file] = /^([^=]+)(?:=(.+))?$/s.exec(text) ?? []
  if (target === undefined) throw new UsageError(`--disk ${text}: expected TARGET or TARGET=OVERLAY`)
  return [target, file === undefined ? undefined : resolve(file)]
}

/** As libvirt names an overlay: the image's name, and the snapshot's in place of the suffix. */
function besideTop({ chains, domain }: BackupFacts, target: string, suffix: number): string {
  const top = chains.get(target)?.[0]?.filename ?? domain.disks.find(each => each.target === target)?.source
  return `${(top ?? target).replace(/\.[^./]*$/, '')}.${suffix}`
}

async function run(
  makePlan: Planning,
  options: OperationOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  checkOptions(options)
  const loaded = await loadDomain(domainLocation(options))
  for (const problem of loaded.problems) output.warn(leftOut(problem))
  const { plan, facts, afterwards } = await withImages(loaded, options, output, makePlan)
  const status = operationsExitStatus(plan)
  const forPeople = options.format === undefined && output.format === 'human'
  if (status === exitStatus.error) {
    if (forPeople) await print(plan, afterwards, loaded, options, output)
    throw blocked(plan)
  }
  if (options.apply || options.dryRun) {
    const { applyOperations } = await import('../bitmap/apply-operations.js')
    return applyOperations(plan, facts, afterwards, options, interruption, output)
  }
  await print(plan, afterwards, loaded, options, output)
  return status
}

function checkOptions({ apply, dryRun, format, unsafeNoLock }: OperationOptions): void {
  const writes = apply || dryRun
  if (writes && format !== undefined) throw new UsageError('--format goes without --apply and --dry-run')
  if (unsafeNoLock && !writes) throw new UsageError('--unsafe-no-lock goes with --apply')
}

async function withImages(
  { domain, checkpoints }: LoadedDomain,
  options: OperationOptions,
  output: Output,
  makePlan: Planning,
): Promise<{ readonly plan: OperationsPlan; readonly facts: BackupFacts; readonly afterwards: Afterwards }> {
  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
  const mapRules = (options.mapSource ?? []).map(mapRule)
  const names = namesThen(checkpoints)
  const images = await openDomainImages(domain, { engine, mapRules, names, blocking: true })
  try {
    if (!images.locksKnown) output.warn('/proc/locks cannot be read: whether the domain runs is not known')
    const { chains, fileIds } = images
    const facts = { domain, checkpoints, chains, fileIds }
    let plan = makePlan(facts)
    if (options.bodies && operationsExitStatus(plan) === exitStatus.ok && plan.action !== 'snapshot') {
      const { measureAll } = await import('../checkpoint/measure-all.js')
      plan = makePlan(facts, await measureAll({ facts, images, engine, dialect: toldDialect(options) }))
    }
    return { plan, facts, afterwards: new Afterwards(plan, images, mapRules) }
  } finally {
    await images.close()
  }
}

function blocked(plan: OperationsPlan): CommandError {
  const problems = plan.problems.filter(({ severity }) => severity === 'blocks')
  const [first] = problems
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : ''
  const message = `${plan.action} cannot be done: ${first!.message}${more}`
  return new CommandError('operation-blocked', message, { reason: first!.code, plan: operationsToJson(plan) })
}

async function print(
  plan: OperationsPlan,
  afterwards: Afterwards,
  loaded: LoadedDomain,
  { format }: OperationOptions,
  output: Output,
): Promise<void> {
  if (format === 'qmp') return output.json(operationsToQmp(plan))
  if (format === 'sh') return output.write(afterwards.script())
  const { remaining } = afterwards
  if (format === 'json' || output.format === 'json') {
    const problems = loaded.problems.map(({ file, error }) => ({
      ...{ file, code: error.code, message: error.message },
    }))
    return output.json({
      ...operationsToJson(plan),
      remaining,
      ...(problems.length > 0 ? { 'load-problems': toKebab(problems) } : {}),
    })
  }
  const { operationsToText } = await import('../render/operations-text.js')
  return output.write(operationsToText(plan, remaining, output.colors, output.width))
}
