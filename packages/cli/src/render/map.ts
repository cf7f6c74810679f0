import type { Output } from '../output.js'
import { formatShare, formatSize } from '../units.js'

/** Pieces of this many characters go to stdout at a time. */
const PIECE = 64 * 1024

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
  const lines = format === 'text' ? textLines(limit) : jsonLines(format)
  let position = 0
  let text = ''
  let dirtyBytes = 0
  let extents = 0
  const clean = (until: number) => {
    if (until > position && !dirtyOnly) text += lines.line(position, until - position, false)
  }
  return {
    async begin() {
      text = lines.first
    },
    async extents(chunk) {
      for (let i = 0; i < chunk.length; i += 2) {
        const start = chunk[i]!
        const end = chunk[i + 1]!
        clean(start)
        text += lines.line(start, end - start, true)
        position = end
        dirtyBytes += end - start
        extents++
        if (text.length > PIECE) {
          await output.write(text)
          text = ''
        }
      }
    },
    async end() {
      clean(limit)
      text += lines.last
      if (format === 'text') {
        const share = formatShare(dirtyBytes, limit)
        text += `${formatSize(dirtyBytes)} dirty of ${formatSize(limit)} (${share}) in ${extents} extent${extents === 1 ? '' : 's'}\n`
      }
      await output.write(text)
    },
  }
}

interface Lines {
  readonly first: string
  readonly last: string
  line(offset: number, length: number, dirty: boolean): string
}

/** nbdinfo's shape and order of keys. */
function jsonLines(format: 'json' | 'ndjson'): Lines {
  const object = (offset: number, length: number, dirty: boolean) =>
    `{"offset":${offset},"length":${length},"type":${dirty ? 1 : 0},"description":"${dirty ? 'dirty' : 'clean'}"}`
  if (format === 'ndjson') return { first: '', last: '', line: (...extent) => `${object(...extent)}\n` }
  let separator = '\n'
  return {
    first: '[',
    last: '\n]\n',
    line(...extent) {
      const text = `${separator}${object(...extent)}`
      separator = ',\n'
      return text
    },
  }
}

/** Columns as wide as the disk's size needs: known before the first line, so that lines can go out at once. */
function textLines(limit: number): Lines {
  const width = Math.max(6, String(limit).length)
  const row = (offset: string, length: string, what: string) =>
    `${offset.padStart(width)}  ${length.padStart(width)}  ${what}\n`
  return {
    first: row('OFFSET', 'LENGTH', 'STATE'),
    last: '\n',
    line: (offset, length, dirty) => row(String(offset), String(length), dirty ? 'dirty' : 'clean'),
  }
}
