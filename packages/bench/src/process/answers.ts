import { createHash } from 'node:crypto'
import { closeSync, openSync, readFileSync, readSync, rmSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { type Command, jsonOf, outputTo, qemuImg, tidemark, timeCommand } from './command.js'

interface Info {
  'format-specific': {
    data: { bitmaps: { name: string; granularity: number; flags: string[]; 'dirty-bytes'?: number }[] }
  }
}

/** @throws Error where qemu-img and tidemark list other bitmaps */
export function sameBitmaps(file: string): void {
  const listed = (command: Command) =>
    (jsonOf(command) as Info)['format-specific'].data.bitmaps.map(({ name, granularity, flags }) => ({
      name,
      granularity,
      flags,
    }))
  const ours = listed(tidemark('info', '--output', 'json', file))
  const theirs = listed(qemuImg('info', '--output=json', file))
  if (!isDeepStrictEqual(ours, theirs)) throw new Error(`${file}: info differs from qemu-img's`)
}

/** @throws Error where the bitmap that the peer left says otherwise; without a peer nothing is compared */
export function sameDirtyBytes(file: string | undefined, name: string, expected: number): void {
  if (file === undefined) return
  const { bitmaps } = (jsonOf(tidemark('info', '--count', '--output', 'json', file)) as Info)[
    'format-specific'
  ].data
  const dirty = bitmaps.find(bitmap => bitmap.name === name)?.['dirty-bytes']
  if (dirty !== expected) throw new Error(`${file}: ${name} has ${dirty} dirty bytes, not ${expected}`)
}

/** Sums the lengths of the extents that a `map --format ndjson --dirty` prints, as the text goes by. */
export function countDirtyBytes(command: Command, scratchFile: string): number {
  outputTo(command, scratchFile)
  const fd = openSync(scratchFile, 'r')
  const piece = Buffer.alloc(1 << 20)
  let rest = ''
  let total = 0
  try {
    for (let read = readSync(fd, piece); read > 0; read = readSync(fd, piece)) {
      const lines = (rest + piece.toString('latin1', 0, read)).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) if (line !== '') total += (JSON.parse(line) as { length: number }).length
    }
  } finally {
    closeSync(fd)
    rmSync(scratchFile)
  }
  if (rest !== '') throw new Error('the last line is not whole')
  return total
}

/** @throws Error where a dump is not what qemu-img makes of the image */
export function sameData(image: string, path: (name: string) => string): void {
  const [ours, theirs] = [path('ours'), path('theirs')]
  try {
    timeCommand(tidemark('dump', '-o', ours, image))
    timeCommand(qemuImg('convert', '-O', 'raw', image, theirs))
    timeCommand({ program: 'cmp', args: [ours, theirs] })
  } finally {
    for (const file of [ours, theirs]) rmSync(file, { force: true })
  }
}

/** @throws Error where the map of an image is not qemu-img's, to the byte but for white space */
export function sameMap(image: string, path: (name: string) => string): void {
  const [ours, theirs] = [path('ours'), path('theirs')]
  try {
    outputTo(tidemark('map', '--output', 'json', image), ours)
    outputTo(qemuImg('map', '--output=json', image), theirs)
    const digest = (file: string) =>
      createHash('sha256').update(readFileSync(file, 'latin1').replaceAll(/\s/g, '')).digest('hex')
    if (digest(ours) !== digest(theirs)) throw new Error(`${image}: map differs from qemu-img's`)
  } finally {
    for (const file of [ours, theirs]) rmSync(file, { force: true })
  }
}

/** @throws Error where the bitmaps of two images differ, by name, granularity, flags or number of dirty bytes */
export function sameDirty(ours: string, theirs: string): void {
  const counted = (file: string) =>
    (jsonOf(tidemark('info', '--count', '--output', 'json', file)) as Info)['format-specific'].data.bitmaps
      .map(({ name, granularity, flags, ...rest }) => ({
        name,
        granularity,
        flags,
        dirty: rest['dirty-bytes'],
      }))
      .sort((a, b) => a.name.localeCompare(b.name))
  if (!isDeepStrictEqual(counted(ours), counted(theirs)))
    throw new Error(`${ours}: bitmaps differ from qemu-img's`)
}

interface Plans {
  plans: { disks: { mode: string; 'dirty-bytes'?: number }[] }[]
  errors: unknown[]
}

/** @throws Error unless a plan of several domains has so many disks, each incremental and measured */
export function everyDiskIncremental(plan: Command, disks: number): void {
  const { plans, errors } = jsonOf(plan) as Plans
  const all = plans.flatMap(each => each.disks)
  const good = all.filter(disk => disk.mode === 'incremental' && (disk['dirty-bytes'] ?? 0) > 0)
  if (errors.length > 0 || all.length !== disks || good.length !== disks) {
    throw new Error(
      `${good.length} of ${all.length} disks are incremental, not ${disks}; ${errors.length} errors`,
    )
  }
}
