/** The disks of a checkpoint's domain, looked up by target and by files: a domain may have thousands of each. */
import type { DomainDisk } from '../facts.js'
import { type FilesNow, filesThen, likeness } from './disk-files.js'

interface DisksThen {
  readonly byTarget: ReadonlyMap<string, number>
  readonly byFile: ReadonlyMap<string, readonly number[]>
  readonly targets: readonly string[]
}

/** The disk of that time which is most surely this one; at equal likeness the one at the same target. */
export function matchDisk(
  disks: readonly DomainDisk[],
  disk: DomainDisk,
  now: FilesNow,
): DomainDisk | undefined {
  const { byTarget, byFile } = disksThen(disks)
  const candidates = new Set([byTarget.get(disk.target) ?? -1])
  for (const name of now.leading()) for (const index of byFile.get(name) ?? []) candidates.add(index)
  candidates.delete(-1)
  const ranked = [...candidates]
    .sort((a, b) => a - b)
    .map(index => {
      const then = disks[index]!
      const sameTarget = then.target === disk.target
      const like = likeness(then, now)
      // Across targets a shared template proves nothing.
      return { then, rank: like === 1 && !sameTarget ? 0 : like && like * 2 + Number(sameTarget) }
    })
  const best = ranked.sort((a, b) => b.rank - a.rank)[0]
  return best && best.rank > 0 ? best.then : undefined
}

/** Targets of the disks that had a source. */
export function targetsThen(disks: readonly DomainDisk[]): readonly string[] {
  return disksThen(disks).targets
}

function disksThen(disks: readonly DomainDisk[]): DisksThen {
  const known = indices.get(disks)
  if (known !== undefined) return known
  const byFile = new Map<string, number[]>()
  for (const [index, disk] of disks.entries()) {
    for (const file of new Set(filesThen(disk))) {
      const others = byFile.get(file)
      if (others === undefined) byFile.set(file, [index])
      else others.push(index)
    }
  }
  // Of two with one target the first counts, as when it is looked for.
  const byTarget = new Map(disks.map(({ target }, index) => [target, index] as const).reverse())
  const targets = disks.filter(({ source }) => source !== undefined).map(({ target }) => target)
  const made = { byTarget, byFile, targets }
  indices.set(disks, made)
  return made
}

const indices = new WeakMap<readonly DomainDisk[], DisksThen>()
