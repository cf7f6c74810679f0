import {
  extensionName,
  type Finding,
  type ImageInspection,
  type LuksDescription,
  type PersistentBitmap,
  type Snapshot,
} from '@tidemark/qcow2'
import type { Colors } from '../output.js'
import { printable } from '../printable.js'
import { formatShare, formatSize, formatSizeExactly } from '../units.js'
import { type BitmapCount, type ImageInfo, rawVirtualSize } from './info-json.js'
import { table } from './table.js'
import { visibleWidth } from './width.js'
import { wrap } from './wrap.js'

/** A directory of garbage gives some for each of its 65,535 entries. */
const MOST_FINDINGS = 40
/** An image can have 65,536 of them. */
const MOST_SNAPSHOTS = 100

/** One image for people: facts, then bitmaps, then what is wrong. */
export function infoToText(image: ImageInfo, colors: Colors, width: number): string {
  const { layer, counts, snapshots, findings } = image
  const { inspection } = layer
  const parts = [
    `${colors.bold(printable(layer.filename))}\n`,
    table(facts(image, inspection), { indent: 2 }),
  ]
  if (snapshots !== undefined) parts.push('\n', snapshotTable(snapshots))
  if (inspection?.bitmapDirectory !== undefined) {
    parts.push('\n', bitmapTable(inspection, counts, colors))
  }
  if (findings.length > 0) parts.push('\n', findingList(findings, colors, width))
  return parts.join('')
}

function facts({ layer, luks }: ImageInfo, inspection: ImageInspection | undefined): string[][] {
  const { storage, problem } = layer
  const rows: string[][] = []
  const add = (name: string, value: string | undefined) => {
    if (value !== undefined) rows.push([name, value])
  }
  const version =
    inspection &&
    `, version ${inspection.header.version} (compat ${inspection.header.version === 3 ? '1.1' : '0.10'})`
  add('format', `${printable(layer.format)}${version ?? ''}`)
  add('problem', problem && printable(problem.message))
  const rawSize = layer.format === 'raw' && storage ? rawVirtualSize(storage.size) : undefined
  const size = inspection?.virtualSize ?? rawSize
  add('virtual size', size === undefined ? undefined : formatSizeExactly(size))
  add('on disk', storage?.allocatedBytes === undefined ? undefined : formatSize(storage.allocatedBytes))
  if (inspection === undefined) return rows
  const { header } = inspection
  const format =
    inspection.backingFormat === undefined ? 'format not said' : printable(inspection.backingFormat)
  add('cluster size', formatSize(inspection.clusterSize))
  add('refcounts', `${2 ** header.refcountOrder} bits`)
  add('compression', header.compressionType === 1 ? 'zstd' : 'zlib')
  add('backing file', inspection.backingFile && `${printable(inspection.backingFile)} (${format})`)
  add(
    'data file',
    inspection.dataFile && `${printable(inspection.dataFile)}${inspection.dataFileRaw ? ' (raw)' : ''}`,
  )
  add('encryption', inspection.encrypted ? encryption(inspection, luks) : undefined)
  add('snapshots', header.nbSnapshots === 0 ? undefined : String(header.nbSnapshots))
  add('flags', flags(inspection).join(', ') || undefined)
  const extensions = inspection.extensions.map(({ magic }) => extensionName(magic))
  add('extensions', extensions.join(', ') || undefined)
  return rows
}

function encryption({ header }: ImageInspection, luks: LuksDescription | undefined): string {
  if (header.cryptMethod !== 2) return 'AES (legacy)'
  if (luks === undefined) return 'LUKS'
  const active = luks.slots.filter(slot => slot.active).length
  const mode = `${luks['cipher-mode']}-${luks['ivgen-alg']}`
  const cipher = `${luks['cipher-alg']} ${mode} ${luks['hash-alg']}`
  return `LUKS, ${printable(cipher)}, ${active} of ${luks.slots.length} key slots in use`
}

function snapshotTable(snapshots: readonly Snapshot[]): string {
  const shown = snapshots.slice(0, MOST_SNAPSHOTS)
  const rows = shown.map(({ id, name, dateSec, diskSize, vmStateSize }) => [
    printable(id),
    printable(name),
    `${new Date(dateSec * 1000).toISOString().slice(0, 19).replace('T', ' ')} UTC`,
    diskSize === undefined ? '' : formatSize(diskSize),
    vmStateSize === 0 ? '' : formatSize(vmStateSize),
  ])
  const head = ['ID', 'SNAPSHOT', 'TAKEN', 'DISK', 'MEMORY']
  const more = snapshots.length - shown.length
  const rest = more > 0 ? `  … and ${more} more (--output json has all)\n` : ''
  return table(rows, { head, right: [3, 4], indent: 2 }) + rest
}

function flags(inspection: ImageInspection): string[] {
  return [
    ...(inspection.dirty ? ['dirty (refcounts not written back)'] : []),
    ...(inspection.corrupt ? ['corrupt'] : []),
    ...(inspection.lazyRefcounts ? ['lazy refcounts'] : []),
    ...(inspection.extendedL2 ? ['extended L2 entries'] : []),
  ]
}

function bitmapTable(
  inspection: ImageInspection,
  counts: readonly BitmapCount[] | undefined,
  colors: Colors,
): string {
  const { bitmaps, stale } = inspection.bitmapDirectory!
  const rows = bitmaps.map((bitmap, i) => [
    printable(bitmap.name),
    bitmap.granularityBits <= 53 ? formatSize(bitmap.granularity) : `2^${bitmap.granularityBits}`,
    state(bitmap, stale, colors),
    ...(counts === undefined ? [] : [countText(counts[i], inspection.virtualSize)]),
  ])
  const head = ['BITMAP', 'GRANULARITY', 'STATE', ...(counts === undefined ? [] : ['DIRTY'])]
  return table(rows, { head, right: [1], indent: 2 })
}

/** Worst first: what a bitmap is worth. */
function state(bitmap: PersistentBitmap, stale: boolean, colors: Colors): string {
  if (bitmap.unreadable !== undefined) return colors.red('corrupt')
  if (stale) return colors.red('stale')
  if (bitmap.inUse) return colors.red('inconsistent (in-use)')
  return bitmap.auto ? colors.green('recording') : colors.yellow('disabled')
}

function countText(count: BitmapCount | undefined, virtualSize: number): string {
  if (count === undefined) return ''
  if ('error' in count) return 'cannot be read'
  return `${formatSize(count.dirtyBytes)} (${formatShare(count.dirtyBytes, virtualSize)})`
}

function findingList(findings: readonly Finding[], colors: Colors, width: number): string {
  const paint = { error: colors.red, warning: colors.yellow, info: colors.cyan }
  const shown = findings.slice(0, MOST_FINDINGS)
  const rows = shown.map(({ severity, offset }) => [paint[severity](severity), `0x${offset.toString(16)}`])
  const lines = table(rows, { head: ['FINDING', 'AT'], indent: 2 }).split('\n')
  const from = Math.max(...lines.map(visibleWidth)) + 2
  const text = shown.map(({ message }, i) => {
    const start = lines[i + 1]!
    const pad = ' '.repeat(from - visibleWidth(start))
    return start + pad + wrap(printable(message), width - from, ' '.repeat(from)).slice(from)
  })
  const more = findings.length - shown.length
  const rest = more > 0 ? `  … and ${more} more (--output json has all)\n` : ''
  return `${lines[0]}\n${text.join('')}${rest}`
}
