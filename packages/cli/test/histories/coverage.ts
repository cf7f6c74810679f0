/** What the histories of a run came across. */
export class Coverage {
  readonly steps = new Map<string, number>()
  /** `accept` and `reject` by libvirt, in a running domain and since one that was off; the plan's modes. */
  readonly verdicts = new Map<string, number>()
  readonly reasons = new Map<string, number>()
  /** Reasons for which a disk was to be copied whole where libvirt made an increment that misses writes. */
  readonly traps = new Map<string, number>()
  readonly known = new Map<string, number>()
  /** Reasons for which a disk was to be copied whole though its bitmaps had all: careful, not wrong. */
  readonly needless = new Map<string, number>()

  count(which: 'steps' | 'verdicts' | 'reasons' | 'traps' | 'known' | 'needless', what: string): void {
    this[which].set(what, (this[which].get(what) ?? 0) + 1)
  }

  toString(): string {
    const list = (map: ReadonlyMap<string, number>): string =>
      [...map]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([what, count]) => `${what} ${count}`)
        .join(', ')
    return ['steps', 'verdicts', 'reasons', 'traps', 'known', 'needless']
      .map(which => `${which}: ${list(this[which as 'steps'])}`)
      .join('\n')
  }
}
