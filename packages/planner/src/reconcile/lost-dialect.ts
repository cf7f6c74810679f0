import type { BackupFacts } from '../facts.js'
import type { DialectFinding } from '../plan/dialect.js'
import type { Dialect } from '../plan/types.js'
import { orphanBitmaps } from './order-queries.js'

/**
 * The dialect with the bitmaps of lost checkpoints looked at too: where on no disk two of all of them record, and some do
 * not, an older one may need a newer one, whatever the known ones say. The caller's word stands.
 */
export function lostDialect(facts: BackupFacts, { dialect, evidence }: DialectFinding): Dialect {
  if (dialect === 'chained' || evidence.source === 'told') return dialect
  const orphans = orphanBitmaps(facts).filter(({ unfit }) => unfit === undefined)
  if (orphans.length === 0) return dialect
  const names = new Set([...facts.checkpoints, ...orphans].map(({ name }) => name))
  let disabled = false
  for (const chain of facts.chains.values()) {
    for (const { bitmaps, bitmapsStale } of chain) {
      const own = bitmapsStale ? [] : bitmaps.filter(({ name }) => names.has(name))
      // As for the known ones, the topmost layer with two of them tells.
      if (own.length < 2) continue
      const recording = own.filter(bitmap => bitmap.recording).length
      if (recording > 1) return dialect
      disabled ||= recording < own.length
      break
    }
  }
  return disabled ? 'chained' : dialect
}
