import type { Stretch } from '../dirty-data.js'
import type { Output } from '../output.js'
import { formatShare, formatSize } from '../units.js'
import { AsciiPiece, ascii } from './ascii-piece.js'

export interface MapWriter {
  begin(): Promise<void>
  /** Alternating start and end offsets of dirty extents, ascending. */
  extents(chunk: Float64Array): Promise<void>
  /** Instead: parts of dirty extents, with what they are now. */
  stretches(stretches: readonly Stretch[]): Promise<void>
  end(): Promise<void>
}

/**
 * Writes extents as they come, so that a map of any length needs no memory of its own: clean stretches are filled
 * in between the dirty ones.
 *
 * @param limit the disk's size in bytes
 */
export function mapWriter(
  format: 'json' | 'ndjson' | 'text',
  limit: number,
  options: { readonly dirty?: boolean; readonly withData?: boolean },
  output: Output,
): MapWriter {
  const piece = new AsciiPiece()
  const lines =
    format === 'text' ? textLines(piece, limit, options.withData === true) : jsonLines(piece, format)
  let position = 0
  let dirtyBytes = 0
  let zeroBytes = 0
  let extents = 0
  const clean = (until: number) => {
    if (until > position && !options.dirty) lines.line(position, until - position, false)
  }
  return {
    async begin() {
      lines.begin()
    },
    async extents(chunk) {
      for (let i = 0; i < chunk.length; i += 2) {
        const start = chunk[i]!
        const end = chunk[i + 1]!
        clean(start)
        lines.line(start, end - start, true)
        position = end
        dirtyBytes += end - start
        extents++
        if (piece.full) await output.writeBytes(piece.take())
      }
    },
    async stretches(stretches) {
      for (const stretch of stretches) {
        const { start, length, zero } = stretch
        clean(start)
        lines.line(start, length, true, stretch)
        position = start + length
        dirtyBytes += length
        if (zero) zeroBytes += length
        extents++
        if (piece.full) await output.writeBytes(piece.take())
      }
    },
    async end() {
      clean(limit)
      lines.end()
      if (format === 'text') {
        const share = formatShare(dirtyBytes, limit)
        const now = options.withData ? `, ${formatSize(zeroBytes)} of it zeros now,` : ''
        piece.text(
          `${formatSize(dirtyBytes)} dirty of ${formatSize(limit)} (${share})${now} in ${extents} extent${extents === 1 ? '' : 's'}\n`,
        )
      }
      await output.writeBytes(piece.take())
    },
  }
}

interface Lines {
  begin(): void
  line(offset: number, length: number, dirty: boolean, now?: Stretch): void
  end(): void
}

const OFFSET = ascii('{"offset":')
const LENGTH = ascii(',"length":')
const DIRTY = ascii(',"type":1,"description":"dirty"')
const CLEAN = ascii(',"type":0,"description":"clean"')
const NOW = Array.from({ length: 4 }, (_, bits) =>
  ascii(`,"zero":${(bits & 2) !== 0},"data":${(bits & 1) !== 0}`),
)

/** nbdinfo's shape and order of keys. */
function jsonLines(piece: AsciiPiece, format: 'json' | 'ndjson'): Lines {
  const object: Lines['line'] = (offset, length, dirty, now) => {
    piece.bytes(OFFSET)
    piece.number(offset)
    piece.bytes(LENGTH)
    piece.number(length)
    piece.bytes(dirty ? DIRTY : CLEAN)
    if (now !== undefined) piece.bytes(NOW[(now.zero ? 2 : 0) + (now.data ? 1 : 0)]!)
    piece.text('}')
  }
  if (format === 'ndjson') {
    return {
      begin() {},
      line(...extent) {
        object(...extent)
        piece.text('\n')
      },
      end() {},
    }
  }
  let separator = '\n'
  return {
    begin: () => piece.text('['),
    line(...extent) {
      piece.text(separator)
      separator = ',\n'
      object(...extent)
    },
    end: () => piece.text('\n]\n'),
  }
}

/** Columns as wide as the disk's size needs: known before the first line, so that lines can go out at once. */
function textLines(piece: AsciiPiece, limit: number, withData: boolean): Lines {
  const width = Math.max(6, String(limit).length)
  const head = `${'OFFSET'.padStart(width)}  ${'LENGTH'.padStart(width)}  STATE`
  return {
    begin: () => piece.text(withData ? `${head}  NOW\n` : `${head}\n`),
    line(offset, length, dirty, now) {
      piece.number(offset, width)
      piece.text('  ')
      piece.number(length, width)
      piece.text(dirty ? '  dirty' : '  clean')
      if (now !== undefined) piece.text(now.zero ? '  zero' : '  data')
      piece.text('\n')
    },
    end: () => piece.text('\n'),
  }
}
