import {
  type ChainLayer,
  extensionName,
  type Finding,
  type ImageInspection,
  type PersistentBitmap,
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

/** One image for people: facts, then bitmaps, then what is wrong. */
export function infoToText({ layer, counts, findings }: ImageInfo, colors: Colors, width: number): string {
  const { inspection } = layer
  const parts = [
    `${colors.bold(printable(layer.filename))}\n`,
    table(facts(layer, inspection), { indent: 2 }),
  ]
  if (inspection?.bitmapDirectory !== undefined) {
    parts.push('\n', bitmapTable(inspection, counts, colors))
  }
  if (findings.length > 0) parts.push('\n', findingList(findings, colors, width))
  return parts.join('')
}

function facts(layer: ChainLayer, inspection: ImageInspection | undefined): string[][] {
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
  add('encryption', inspection.encrypted ? (header.cryptMethod === 2 ? 'LUKS' : 'AES (legacy)') : undefined)
  add('snapshots', header.nbSnapshots === 0 ? undefined : String(header.nbSnapshots))
  add('flags', flags(inspection).join(', ') || undefined)
  const extensions = inspection.extensions.map(({ magic }) => extensionName(magic))
  add('extensions', extensions.join(', ') || undefined)
  return rows
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
