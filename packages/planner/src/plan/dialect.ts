/**
 * Which dialect a domain's bitmaps speak, from their flags. Judged over the whole domain: one disk with a bitmap that
 * somebody disabled by hand must not look like a history of disabled ones.
 */
import { oldestFirst } from '../checkpoints/line.js'
import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, DomainDisk, LayerFacts } from '../facts.js'
import type { Dialect, DialectEvidence, DialectPattern, DiskDialect } from './types.js'

/** How a disk's bitmaps are put together: libvirt's rule, the union to the newest, or up to the first that records. */
export type DialectRule = 'independent' | 'chained' | 'mixed'

export interface DialectFinding {
  readonly rule: DialectRule
  readonly dialect: Dialect
  readonly evidence: DialectEvidence
}

/**
 * Finds the dialect, or takes the caller's word for it.
 *
 * @param disks those that could be backed up, asked for or not
 */
export function findDialect(
  facts: BackupFacts,
  tree: CheckpointTree,
  disks: readonly DomainDisk[],
  told: Dialect | undefined,
): DialectFinding {
  const seen = disks.flatMap(({ target }) => {
    const found = diskPattern(target, facts.chains.get(target) ?? [], tree)
    return found === undefined ? [] : [found]
  })
  const pattern = domainPattern(seen, tree)
  const rule = told ?? (pattern === 'chained' || pattern === 'mixed' ? pattern : 'independent')
  const evidence: DialectEvidence = {
    source: told === undefined ? 'found' : 'told',
    pattern,
    disks: seen.map(({ disk }) => disk),
    message: told === undefined ? MESSAGES[pattern] : toldMessage(told, pattern),
  }
  return { rule, dialect: rule === 'independent' ? 'independent' : 'chained', evidence }
}

const MESSAGES: Record<DialectPattern, string> = {
  none: 'no disk has the bitmaps of two checkpoints to tell by; libvirt since 6.6 lets each record',
  independent: "each checkpoint's bitmap records, as with libvirt since 6.6",
  chained:
    "only the newest checkpoint's bitmap records, and those before it are disabled: libvirt before 6.6, or a script; if " +
    'somebody disabled bitmaps by hand, say --dialect independent',
  mixed:
    'older bitmaps are disabled and several newer ones record: a host whose libvirt was upgraded to 6.6 or later; if ' +
    'somebody disabled bitmaps by hand, say --dialect independent',
  irregular:
    'the bitmaps that record and those that do not follow no dialect: a disabled one counts as broken',
}

function toldMessage(told: Dialect, pattern: DialectPattern): string {
  return pattern === told || pattern === 'none' ? 'as told' : `as told, though by the flags it is ${pattern}`
}

interface Seen {
  readonly disk: DiskDialect
  /** Names of the bitmaps; which of them record. */
  readonly recording: readonly string[]
  readonly disabled: readonly string[]
}

/**
 * The layer that tells is the topmost with the bitmaps of two checkpoints: an overlay takes over only those that still
 * record, and flags below it stay as they were.
 */
function diskPattern(target: string, chain: readonly LayerFacts[], tree: CheckpointTree): Seen | undefined {
  for (const [layer, { bitmaps, bitmapsStale, filename }] of chain.entries()) {
    const own = bitmapsStale
      ? []
      : bitmaps.filter(({ name, corrupt }) => corrupt === undefined && tree.get(name) !== undefined)
    if (own.length < 2) continue
    const records = new Map(own.map(({ name, recording }) => [name, recording]))
    const recording = own.filter(bitmap => bitmap.recording).map(({ name }) => name)
    const disabled = own.filter(bitmap => !bitmap.recording).map(({ name }) => name)
    const order = disabled.length === 0 ? undefined : oldestFirst(tree, [...records.keys()])
    const pattern = disabled.length === 0 ? 'independent' : patternOf(order, records, recording.length)
    const counts = { recording: recording.length, disabled: disabled.length, newest: order?.at(-1) }
    return { disk: { target, layer, filename, pattern, ...counts }, recording, disabled }
  }
  return undefined
}

function patternOf(
  order: readonly string[] | undefined,
  records: ReadonlyMap<string, boolean>,
  recording: number,
): DiskDialect['pattern'] {
  if (order === undefined || recording === 0) return 'irregular'
  const newest = order.slice(-recording)
  if (!newest.every(name => records.get(name))) return 'irregular'
  return recording === 1 ? 'chained' : 'mixed'
}

function domainPattern(seen: readonly Seen[], tree: CheckpointTree): DialectPattern {
  if (seen.length === 0) return 'none'
  const patterns = new Set(seen.map(({ disk }) => disk.pattern))
  // A disk on which several record speaks against chained, whatever the others look like.
  if (seen.every(({ recording }) => recording.length < 2))
    return patterns.has('chained') ? 'chained' : 'irregular'
  if (seen.every(({ disabled }) => disabled.length === 0)) return 'independent'
  if (isUpgrade(seen, tree)) return 'mixed'
  return patterns.has('independent') ? 'independent' : 'irregular'
}

/** One moment before which every checkpoint's bitmaps are disabled, and since which all record, on every disk. */
function isUpgrade(seen: readonly Seen[], tree: CheckpointTree): boolean {
  const disabled = new Set(seen.flatMap(each => each.disabled))
  const recording = new Set(seen.flatMap(each => each.recording))
  const order = oldestFirst(tree, [...new Set([...disabled, ...recording])])
  if (order === undefined || [...disabled].some(name => recording.has(name))) return false
  const first = order.findIndex(name => recording.has(name))
  return order.slice(first).every(name => !disabled.has(name))
}
