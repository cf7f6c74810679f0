/**
 * Broken bitmaps that would look sound afterwards: what told that they are broken is only out of sight. In the independent
 * dialect they are disabled or left behind; in the chained one, where that means nothing, it is refused.
 */
import { buildCheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, LayerFacts } from '../facts.js'
import type { DialectRule } from '../plan/dialect.js'
import { planDisk } from '../plan/disk.js'
import { diskHistories } from '../plan/disk-history.js'
import type { DiskMeasurement, Measurements } from '../plan/measure.js'
import type { Reason } from '../plan/reasons.js'
import { findBitmap, judgeBitmap, loadedBitmap } from '../validity.js'
import { applyToChain, withChain } from './apply.js'
import { foundRule } from './dialect.js'
import { problem } from './disks.js'
import { RULE } from './notes.js'
import type { BitmapOperation, OperationProblem, Place } from './types.js'

/** What the bodies say now, by checkpoint. */
export type CheckpointMeasurements = ReadonlyMap<string, Measurements>

export interface TrapQuestion {
  readonly facts: BackupFacts
  readonly disk: string
  /** What is to be done to the bitmaps. */
  readonly operations: readonly BitmapOperation[]
  /** The image that the bitmaps are united in. */
  readonly target: Place
  /** The chain once the data have moved, from the chain with the operations done. */
  readonly moved: (chain: readonly LayerFacts[]) => readonly LayerFacts[]
  /** Names for which the data's own copying is recorded, so that they lack nothing once the data have moved. */
  readonly covered: (name: string) => boolean
  readonly measurements?: CheckpointMeasurements | undefined
}

export interface Disarmed {
  /** All that is to be done, in place of the question's. */
  readonly operations: readonly BitmapOperation[]
  readonly notes: readonly OperationProblem[]
}

/**
 * Each bitmap that libvirt would refuse, or that a backup must not be made from, before, and that passes for sound after:
 * between the operations and the move of the data, or after both. In a layer below the top it is disabled: libvirt refuses
 * it. In the image that is the top afterwards there must be none, for there a disabled one beside others that record looks
 * like an older one of the chained dialect.
 */
export function disarmTraps(question: TrapQuestion): Disarmed {
  const { facts, disk, operations, target, moved, covered, measurements } = question
  const chain = facts.chains.get(disk)!
  const between = applyToChain(chain, operations)
  const after = moved(between)
  const united = after.find(({ filename }) => filename === target.filename)!
  const modeBefore = modes(facts, disk, 'independent', measurements)
  const kept = measurements && elsewhere(measurements, target)
  const modeBetween = modes(withChain(facts, disk, between), disk, 'independent', kept)
  const modeAfter = modes(withChain(facts, disk, after), disk, 'independent')
  const onTop = after[0] === united
  const traps = new Set<string>()
  const disarming: BitmapOperation[] = []
  const notes: OperationProblem[] = []
  for (const { name, recording, inconsistent } of united.bitmaps) {
    if (!recording || inconsistent) continue
    const before = judgeBitmap(chain, name)
    const broken = modeBefore(name)
    const appears = (now: readonly LayerFacts[], mode: ReturnType<typeof modes>) =>
      (!before.valid && judgeBitmap(now, name).valid) ||
      (broken?.mode === 'full' && mode(name)?.mode === 'incremental')
    const trap = appears(between, modeBetween) || (appears(after, modeAfter) && !covered(name))
    if (!trap) continue
    traps.add(name)
    const there = typeof target.layer === 'number' && findBitmap(chain[target.layer]!, name) !== undefined
    if (!onTop) disarming.push({ ...target, bitmap: name, kind: 'disable' })
    else if (there) disarming.push({ ...target, bitmap: name, kind: 'remove' })
    const rule = before.valid ? broken!.reasons[0]!.code : before.violation.rule
    const why = before.valid ? broken!.reasons[0]!.message : RULE[before.violation.rule]
    const done = onTop ? (there ? 'is removed' : 'is not carried over') : 'is disabled'
    const message =
      `bitmap '${name}' of ${disk} is broken now, and would look sound afterwards: libvirt would accept it and miss changes. ` +
      `It ${done}. (${why})`
    notes.push(problem('bitmap-trap', 'note', disk, message, { bitmap: name, rule }))
  }
  const isTrap = ({ layer, bitmap }: BitmapOperation) => layer === target.layer && traps.has(bitmap)
  const rest = onTop ? operations.filter(operation => !isTrap(operation)) : operations
  return { operations: [...rest, ...disarming], notes }
}

/** What was found in other images than this one, which holds more by then. */
function elsewhere(measurements: CheckpointMeasurements, { layer }: Place): CheckpointMeasurements {
  const others = (measurement: DiskMeasurement): DiskMeasurement => ({
    ...measurement,
    violations: measurement.violations.filter(violation => violation.layer !== layer),
  })
  const entries = [...measurements].map(([name, disks]): [string, Measurements] => [
    name,
    new Map([...disks].map(([disk, measurement]) => [disk, others(measurement)])),
  ])
  return new Map(entries)
}

/**
 * A problem that blocks, where the bitmaps' flags look like another dialect afterwards, in which one that counts as broken
 * now would not. Of no use where the caller tells the dialect.
 *
 * @param states facts between the operations and what follows, and after it
 */
export function dialectTraps(
  facts: BackupFacts,
  states: readonly BackupFacts[],
): readonly OperationProblem[] {
  const rule = foundRule(facts)
  for (const state of states) {
    const later = foundRule(state)
    if (later === rule) continue
    for (const { target } of facts.domain.disks) {
      const before = modes(facts, target, rule)
      const after = modes(state, target, later)
      for (const { name } of state.checkpoints) {
        const broken = before(name)
        if (broken?.mode !== 'full' || after(name)?.mode !== 'incremental') continue
        const [{ code, message: why }] = broken.reasons as readonly [Reason, ...Reason[]]
        const message =
          `the bitmap '${name}' of ${target} is broken now, and the flags of those that would be left look like chained ones, ` +
          `where it would pass for sound. Delete checkpoint '${name}' first. (${why})`
        return [problem('bitmap-trap', 'blocks', target, message, { bitmap: name, rule: code })]
      }
    }
  }
  return []
}

/**
 * A problem that blocks, where the bitmap that is to go is the last one to show that an older one has lost writes.
 *
 * @param merged its marks go into an older one (chained), which then has what showed it
 */
export function evidenceTraps(
  measurements: CheckpointMeasurements | undefined,
  checkpoint: string,
  merged: boolean,
): readonly OperationProblem[] {
  for (const [name, disks] of measurements ?? []) {
    if (name === checkpoint) continue
    for (const [disk, { violations }] of disks) {
      const own = violations.filter(each => each.checkpoint === checkpoint || each.older === checkpoint)
      const left = merged ? [] : violations.filter(each => !own.includes(each))
      const [shown] = own
      if (shown === undefined || left.length > 0) continue
      const older = shown.older ?? name
      const message =
        `bitmap '${older}' of ${disk} lacks ${shown.missingBytes} bytes that '${shown.checkpoint}' has: it has lost ` +
        `writes, and nothing would show that afterwards. Delete checkpoint '${older}' first`
      const evidence = { bitmap: older, rule: 'bitmap-subset-violated', checkpoint: shown.checkpoint }
      return [problem('bitmap-trap', 'blocks', disk, message, evidence)]
    }
  }
  return []
}

/**
 * Chained: a problem that blocks, for the first checkpoint since which a backup must not be incremental before, and would be
 * in any of the states to come.
 *
 * @param states facts between the operations and the move of the data, and after it
 */
export function chainedTraps(
  facts: BackupFacts,
  states: readonly BackupFacts[],
  disk: string,
  measurements?: CheckpointMeasurements,
): readonly OperationProblem[] {
  for (const rule of ['chained', 'mixed'] as const) {
    const before = modes(facts, disk, rule, measurements)
    for (const mode of states.map(state => modes(state, disk, rule))) {
      for (const { name } of facts.checkpoints) {
        const broken = before(name)
        if (broken?.mode !== 'full' || mode(name)?.mode !== 'incremental') continue
        const [{ code, message: why }] = broken.reasons as readonly [Reason, ...Reason[]]
        const message =
          `the bitmaps of ${disk} since checkpoint '${name}' are broken now, and would look sound afterwards. Delete the older ` +
          `checkpoints first, the oldest at first. (${why})`
        return [problem('bitmap-gap', 'blocks', disk, message, { bitmap: name, rule: code })]
      }
    }
  }
  return []
}

/** What a backup of the disk since a checkpoint would be; undefined for a bitmap that is no checkpoint's. */
function modes(facts: BackupFacts, target: string, rule: DialectRule, measurements?: CheckpointMeasurements) {
  const tree = buildCheckpointTree(facts.checkpoints)
  const disk = facts.domain.disks.find(each => each.target === target)!
  const history = diskHistories(facts, tree)(disk)
  return (name: string) => {
    const checkpoint = tree.get(name)
    if (checkpoint === undefined) return undefined
    const question = { history, checkpoint, rule }
    const measurement = measurements?.get(name)?.get(target)
    return planDisk({ ...question, measurement, sizeThen: undefined, notes: [] })
  }
}

/** Does a layer's own bitmap of that name record what is written into it? */
export function recordsItself(layer: LayerFacts, name: string): boolean {
  const own = loadedBitmap(layer, name)
  return own?.recording === true && !own.inconsistent
}
