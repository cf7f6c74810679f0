/**
 * Broken bitmaps that would look sound afterwards: what told that they are broken is only out of sight. In the independent
 * dialect they are disabled; in the chained one, where that means nothing, it is refused.
 */
import { buildCheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, LayerFacts } from '../facts.js'
import type { DialectRule } from '../plan/dialect.js'
import { planDisk } from '../plan/disk.js'
import { diskHistories } from '../plan/disk-history.js'
import type { Reason } from '../plan/reasons.js'
import { judgeBitmap, loadedBitmap } from '../validity.js'
import { applyToChain, withChain } from './apply.js'
import { problem } from './disks.js'
import { placeOf } from './merge.js'
import { RULE } from './notes.js'
import type { BitmapOperation, OperationProblem } from './types.js'

export interface TrapQuestion {
  readonly facts: BackupFacts
  readonly disk: string
  /** What is to be done to the bitmaps. */
  readonly operations: readonly BitmapOperation[]
  /** Index of the layer that the bitmaps are united in. */
  readonly target: number
  /** The chain once the data have moved, from the chain with the operations done. */
  readonly moved: (chain: readonly LayerFacts[]) => readonly LayerFacts[]
  /** Names for which the data's own copying is recorded, so that they lack nothing once the data have moved. */
  readonly covered: (name: string) => boolean
}

export interface Disarmed {
  readonly operations: readonly BitmapOperation[]
  readonly notes: readonly OperationProblem[]
}

/**
 * Each bitmap that libvirt would refuse, or that a backup must not be made from, before, and that passes for sound after:
 * between the operations and the move of the data, or after both. It is disabled in the target, where libvirt refuses it.
 */
export function disarmTraps({ facts, disk, operations, target, moved, covered }: TrapQuestion): Disarmed {
  const chain = facts.chains.get(disk)!
  const between = applyToChain(chain, operations)
  const after = moved(between)
  const modeBefore = modes(facts, disk, 'independent')
  const modeBetween = modes(withChain(facts, disk, between), disk, 'independent')
  const modeAfter = modes(withChain(facts, disk, after), disk, 'independent')
  const disarming: BitmapOperation[] = []
  const notes: OperationProblem[] = []
  for (const { name, recording, inconsistent } of between[target]!.bitmaps) {
    if (!recording || inconsistent) continue
    const before = judgeBitmap(chain, name)
    const broken = modeBefore(name)
    const appears = (now: readonly LayerFacts[], mode: ReturnType<typeof modes>) =>
      (!before.valid && judgeBitmap(now, name).valid) ||
      (broken?.mode === 'full' && mode(name)?.mode === 'incremental')
    const trap = appears(between, modeBetween) || (appears(after, modeAfter) && !covered(name))
    if (!trap) continue
    disarming.push({ ...placeOf(disk, chain, target), bitmap: name, kind: 'disable' })
    const rule = before.valid ? broken!.reasons[0]!.code : before.violation.rule
    const why = before.valid ? broken!.reasons[0]!.message : RULE[before.violation.rule]
    const message =
      `bitmap '${name}' of ${disk} is broken now, and would look sound afterwards: libvirt would accept it and miss changes. ` +
      `It is disabled. (${why})`
    notes.push(problem('bitmap-trap', 'note', disk, message, { bitmap: name, rule }))
  }
  return { operations: disarming, notes }
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
): readonly OperationProblem[] {
  for (const rule of ['chained', 'mixed'] as const) {
    const before = modes(facts, disk, rule)
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
function modes(facts: BackupFacts, target: string, rule: DialectRule) {
  const tree = buildCheckpointTree(facts.checkpoints)
  const disk = facts.domain.disks.find(each => each.target === target)!
  const history = diskHistories(facts, tree)(disk)
  return (name: string) => {
    const checkpoint = tree.get(name)
    if (checkpoint === undefined) return undefined
    const question = { history, checkpoint, rule }
    return planDisk({ ...question, measurement: undefined, sizeThen: undefined, notes: [] })
  }
}

/** Does a layer's own bitmap of that name record what is written into it? */
export function recordsItself(layer: LayerFacts, name: string): boolean {
  const own = loadedBitmap(layer, name)
  return own?.recording === true && !own.inconsistent
}
