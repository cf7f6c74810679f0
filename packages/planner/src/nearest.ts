/**
 * The candidate most like `name`, for "did you mean": at most a third of the name's letters may differ.
 * Case is ignored; of equals the first wins; undefined when nothing is near.
 *
 * @example nearest('cp3', ['cp1', 'base']) // 'cp1'
 */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1
  for (const candidate of candidates) {
    // The distance is at least the difference in length: skips most of a long list.
    if (Math.abs(candidate.length - name.length) >= bestDistance) continue
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}

/** `", did you mean 'x'?"` or nothing. */
export function didYouMean(name: string, candidates: readonly string[]): string {
  const near = nearest(name, candidates)
  return near === undefined || near === name ? '' : `; did you mean '${near}'?`
}

/** A list of names for a message: quoted, cut after `limit` with the number left out. */
export function listNames(names: readonly string[], limit = 12): string {
  if (names.length === 0) return 'none'
  const shown = names
    .slice(0, limit)
    .map(name => `'${name}'`)
    .join(', ')
  return names.length > limit ? `${shown} and ${names.length - limit} more` : shown
}
