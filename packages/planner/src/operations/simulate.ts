/** What would be: facts as they are after a change that nobody has made. */
import { PlanError } from '../errors.js'
import type { BackupFacts } from '../facts.js'
import type { Dialect } from '../plan/types.js'
import { applyToFacts, newImage, withChain, withoutCheckpoint } from './apply.js'
import { planCommit, planCopy, planPull } from './block-jobs.js'
import { planDelete } from './delete.js'
import { findDisk } from './disks.js'
import { planSnapshot, snapshotDisks } from './snapshot.js'
import type { CheckpointMeasurements } from './traps.js'
import type { OperationsPlan } from './types.js'

export type Change =
  | { readonly kind: 'delete'; readonly checkpoint: string }
  | { readonly kind: 'detach'; readonly disk: string }
  /** Bytes. */
  | { readonly kind: 'resize'; readonly disk: string; readonly size: number }
  | { readonly kind: 'commit'; readonly disk: string; readonly top: string; readonly base: string }
  | { readonly kind: 'pull'; readonly disk: string; readonly base: string | undefined }
  /** The domain moves to the copy. */
  | { readonly kind: 'copy'; readonly disk: string; readonly target: string; readonly shallow: boolean }
  /** Of one disk, or of all. */
  | { readonly kind: 'snapshot'; readonly disk: string | undefined }

const FORMS =
  'delete=CHECKPOINT, detach=DISK, resize=DISK=SIZE, commit=DISK:TOP:BASE, pull=DISK[:BASE], copy=DISK:FILE, ' +
  'shallow-copy=DISK:FILE or snapshot[=DISK]'

/**
 * Reads a change as it is written on a command line.
 *
 * @param parseSize reads a size in bytes
 * @throws {RangeError} it is none of these; what `parseSize` throws
 * @example parseChange('commit=vda:0:1', Number) // { kind: 'commit', disk: 'vda', top: '0', base: '1' }
 */
export function parseChange(text: string, parseSize: (text: string) => number): Change {
  const [, kind = '', rest] = /^([^=]*)(?:=(.*))?$/s.exec(text) ?? []
  if (kind === 'snapshot' && rest !== '') return { kind, disk: rest }
  const found = rest === undefined ? undefined : readChange(kind, rest, parseSize)
  if (found !== undefined) return found
  throw new RangeError(`'${text}' is no change: ${FORMS}`)
}

function readChange(kind: string, rest: string, parseSize: (text: string) => number): Change | undefined {
  const [, disk, value] = /^([^:=]+)[:=](.+)$/s.exec(rest) ?? []
  switch (kind) {
    case 'delete':
      return rest === '' ? undefined : { kind, checkpoint: rest }
    case 'detach':
      return rest === '' ? undefined : { kind, disk: rest }
    case 'resize':
      return disk === undefined ? undefined : { kind, disk, size: parseSize(value!) }
    case 'commit': {
      const [, top, base] = /^(.+):(.+)$/s.exec(value ?? '') ?? []
      return disk === undefined || top === undefined ? undefined : { kind, disk, top, base: base! }
    }
    case 'pull':
      if (rest === '') return undefined
      return { kind, disk: disk ?? rest, base: value }
    case 'copy':
    case 'shallow-copy':
      if (disk === undefined) return undefined
      return { kind: 'copy', disk, target: value!, shallow: kind === 'shallow-copy' }
    default:
      return undefined
  }
}

/**
 * The facts after the change: bitmaps as the operations of this folder leave them, layers and the domain's disks as the
 * data's move does, a deleted checkpoint's children under its parent. Pure.
 *
 * @param measurements what the bodies say now, by checkpoint; see `DeleteRequest`
 * @throws {PlanError} `operation-blocked` for what cannot be done; what planning it throws
 * @example planBackup(simulate(facts, { kind: 'delete', checkpoint: 'cp2' }), { incremental: 'cp1' })
 */
export function simulate(
  facts: BackupFacts,
  change: Change,
  dialect?: Dialect,
  measurements?: CheckpointMeasurements,
): BackupFacts {
  switch (change.kind) {
    case 'delete': {
      const plan = doable(planDelete(facts, { checkpoint: change.checkpoint, dialect, measurements }))
      const checkpoints = withoutCheckpoint(facts.checkpoints, change.checkpoint)
      return { ...applyToFacts(facts, plan.operations), checkpoints }
    }
    case 'detach': {
      findDisk(facts, change.disk)
      const chains = new Map(facts.chains)
      chains.delete(change.disk)
      const disks = facts.domain.disks.filter(({ target }) => target !== change.disk)
      return { ...facts, chains, domain: { ...facts.domain, disks } }
    }
    case 'resize': {
      const { chain } = findDisk(facts, change.disk)
      const [top, ...below] = chain
      return withChain(facts, change.disk, top && [{ ...top, virtualSize: change.size }, ...below])
    }
    case 'commit': {
      const plan = doable(planCommit(facts, { ...change, dialect, measurements }))
      const [step] = plan.data
      if (step?.kind !== 'commit') throw notKnown(plan)
      const from = step.top.layer as number
      const now = applyToFacts(facts, plan.operations)
      const chain = [...now.chains.get(change.disk)!]
      chain.splice(from, (step.base.layer as number) - from)
      return withChain(now, change.disk, chain)
    }
    case 'pull': {
      const plan = doable(planPull(facts, { ...change, dialect, measurements }))
      const [step] = plan.data
      if (step?.kind !== 'pull') throw notKnown(plan)
      const now = applyToFacts(facts, plan.operations)
      const [top, ...rest] = now.chains.get(change.disk)!
      const below = step.base === undefined ? [] : rest.slice((step.base.layer as number) - 1)
      return withChain(now, change.disk, [top!, ...below])
    }
    case 'copy': {
      const plan = doable(planCopy(facts, { ...change, dialect, measurements }))
      const [step] = plan.data
      if (step?.kind !== 'copy') throw notKnown(plan)
      const chain = facts.chains.get(change.disk)!
      const below = change.shallow ? chain.slice(1) : []
      return withChain(facts, change.disk, [newImage(step.target, chain[0]!, plan.operations), ...below])
    }
    case 'snapshot': {
      const disks =
        change.disk === undefined ? snapshotDisks(facts.domain.disks) : [findDisk(facts, change.disk).disk]
      const overlays = new Map(disks.map(({ target, source }) => [target, freshName(source!, facts, target)]))
      const plan = doable(planSnapshot(facts, { overlays, dialect }))
      return plan.data.reduce((before, step) => {
        if (step.kind !== 'snapshot') return before
        const chain = before.chains.get(step.overlay.disk)!
        return withChain(before, step.overlay.disk, [
          newImage(step.overlay, chain[0]!, plan.operations),
          ...chain,
        ])
      }, facts)
    }
  }
}

function doable(plan: OperationsPlan): OperationsPlan {
  const blocked = plan.problems.find(({ severity }) => severity === 'blocks')
  if (blocked === undefined) return plan
  throw new PlanError('operation-blocked', `${plan.action} cannot be done: ${blocked.message}`, {
    ...{ domain: plan.domain, targets: [blocked.disk], reason: blocked.code },
  })
}

function notKnown(plan: OperationsPlan): PlanError {
  const message = plan.problems[0]?.message ?? 'its images are not known'
  return new PlanError('plan-unknown', `${plan.action} cannot be foreseen: ${message}`, {
    targets: plan.disks,
  })
}

/** A name that no image of the chain has. */
function freshName(source: string, { chains }: BackupFacts, target: string): string {
  const names = new Set((chains.get(target) ?? []).flatMap(({ namedAs, filename }) => [namedAs, filename]))
  for (let n = 1; ; n++) {
    const name = `${source}.snapshot${n}`
    if (!names.has(name)) return name
  }
}
