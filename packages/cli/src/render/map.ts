import type { Output } from '../output.js'
import { formatShare, formatSize } from '../units.js'
import { AsciiPiece } from './ascii-piece.js'

export interface MapWriter {
  begin(): Promise<void>
  /** Alternating start and end offsets of dirty extents, ascending. */
  extents(chunk: Float64Array): Promise<void>
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
  dirtyOnly: boolean,
  output: Output,
): MapWriter {
  const piece = new AsciiPiece()
  const lines = format === 'text' ? textLines(piece, limit) : jsonLines(piece, format)
  let position = 0
  let dirtyBytes = 0
  let extents = 0
  const clean = (until: number) => {
    if (until > position && !dirtyOnly) lines.line(position, until - position, false)
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
    async end() {
      clean(limit)
      lines.end()
      if (format === 'text') {
        const share = formatShare(dirtyBytes, limit)
        piece.text(
          `${formatSize(dirtyBytes)} dirty of ${formatSize(limit)} (${share}) in ${extents} extent${extents === 1 ? '' : 's'}\n`,
        )
      }
      await output.writeBytes(piece.take())
    },
  }
}

interface Lines {
  begin(): void
  line(offset: number, length: number, dirty: boolean): void
  end(): void
}

/** nbdinfo's shape and order of keys. */
function jsonLines(piece: AsciiPiece, format: 'json' | 'ndjson'): Lines {
  const object = (offset: number, length: number, dirty: boolean) => {
    piece.text('{"offset":')
    piece.number(offset)
    piece.text(',"length":')
    piece.number(length)
    piece.text(dirty ? ',"type":1,"description":"dirty"}' : ',"type":0,"description":"clean"}')
  }
  if (format === 'ndjson') {
    return {
      begin() {},
      line(offset, length, dirty) {
        object(offset, length, dirty)
        piece.text('\n')
      },
      end() {},
    }
  }
  let separator = '\n'
  return {
    begin: () => piece.text('['),
    line(offset, length, dirty) {
      piece.text(separator)
      separator = ',\n'
      object(offset, length, dirty)
    },
    end: () => piece.text('\n]\n'),
  }
}

/** Columns as wide as the disk's size needs: known before the first line, so that lines can go out at once. */
function textLines(piece: AsciiPiece, limit: number): Lines {
  const width = Math.max(6, String(limit).length)
  return {
    begin: () => piece.text(`${'OFFSET'.padStart(width)}  ${'LENGTH'.padStart(width)}  STATE\n`),
    line(offset, length, dirty) {
      piece.number(offset, width)
      piece.text('  ')
      piece.number(length, width)
      piece.text(dirty ? '  dirty\n' : '  clean\n')
    },
    end: () => piece.text('\n'),
  }
}
