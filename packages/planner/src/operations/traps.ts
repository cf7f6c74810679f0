/**
 * Broken bitmaps that would look sound once layers have been united: what told that they are broken is only out of sight.
 * Independent dialect; in the chained one such a union is refused.
 */
import { buildCheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, LayerFacts } from '../facts.js'
import { planDisk } from '../plan/disk.js'
import { diskHistories } from '../plan/disk-history.js'
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
  const modeBefore = modes(facts, disk)
  const modeBetween = modes(withChain(facts, disk, between), disk)
  const modeAfter = modes(withChain(facts, disk, after), disk)
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

/** What a backup of the disk since a checkpoint would be; undefined for a bitmap that is no checkpoint's. */
function modes(facts: BackupFacts, target: string) {
  const tree = buildCheckpointTree(facts.checkpoints)
  const disk = facts.domain.disks.find(each => each.target === target)!
  const history = diskHistories(facts, tree)(disk)
  return (name: string) => {
    const checkpoint = tree.get(name)
    if (checkpoint === undefined) return undefined
    const question = { history, checkpoint, rule: 'independent' as const }
    return planDisk({ ...question, measurement: undefined, sizeThen: undefined, notes: [] })
  }
}

/** Does a layer's own bitmap of that name record what is written into it? */
export function recordsItself(layer: LayerFacts, name: string): boolean {
  const own = loadedBitmap(layer, name)
  return own?.recording === true && !own.inconsistent
}
