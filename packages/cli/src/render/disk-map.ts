import type { ChainLayer, DiskExtent } from '@tidemark/qcow2'
import type { Output } from '../output.js'
import { printable } from '../printable.js'
import { formatSize } from '../units.js'
import { AsciiPiece, ascii } from './ascii-piece.js'

export interface DiskMapWriter {
  begin(): Promise<void>
  /** In order, without gaps. */
  extents(extents: readonly DiskExtent[]): Promise<void>
  end(): Promise<void>
}

interface Lines {
  begin(): void
  line(extent: DiskExtent): void
  end(): void
}

/**
 * Writes a disk's extents as they come: a map of any length needs no memory of its own.
 *
 * @param size of the disk, in bytes
 */
export function diskMapWriter(
  format: 'json' | 'ndjson' | 'text',
  layers: readonly ChainLayer[],
  size: number,
  output: Output,
): DiskMapWriter {
  const piece = new AsciiPiece()
  const lines = format === 'text' ? textLines(piece, layers, size) : jsonLines(piece, format)
  return {
    async begin() {
      lines.begin()
    },
    async extents(extents) {
      for (const extent of extents) {
        lines.line(extent)
        if (piece.full) await output.writeBytes(piece.take())
      }
    },
    async end() {
      // qemu-img tells something of an empty disk too.
      if (size === 0 && format !== 'text') lines.line(NOTHING)
      lines.end()
      await output.writeBytes(piece.take())
    },
  }
}

const START = ascii('{ "start": ')
const LENGTH = ascii(', "length": ')
const DEPTH = ascii(', "depth": ')
const OFFSET = ascii(', "offset": ')
const END = ascii('}')
const NEXT = ascii('},\n')
const END_OF_LINE = ascii('}\n')
/** Of all three, by their bits. */
const FLAGS = Array.from({ length: 8 }, (_, bits) =>
  ascii(`, "present": ${(bits & 4) !== 0}, "zero": ${(bits & 2) !== 0}, "data": ${(bits & 1) !== 0}`),
)

const NOTHING: DiskExtent = {
  ...{ start: 0, length: 0, depth: 0, offset: undefined },
  ...{ present: false, zero: false, data: false },
}

/** To the byte what `qemu-img map --output=json` writes; ndjson: the same objects, one a line. */
function jsonLines(piece: AsciiPiece, format: 'json' | 'ndjson'): Lines {
  const object = ({ start, length, depth, present, zero, data, offset }: DiskExtent) => {
    piece.bytes(START)
    piece.number(start)
    piece.bytes(LENGTH)
    piece.number(length)
    piece.bytes(DEPTH)
    piece.number(depth)
    piece.bytes(FLAGS[(present ? 4 : 0) + (zero ? 2 : 0) + (data ? 1 : 0)]!)
    if (offset !== undefined) {
      piece.bytes(OFFSET)
      piece.number(offset)
    }
  }
  if (format === 'ndjson') {
    return {
      begin() {},
      line(extent) {
        object(extent)
        piece.bytes(END_OF_LINE)
      },
      end() {},
    }
  }
  let first = true
  return {
    begin: () => piece.text('['),
    line(extent) {
      if (!first) piece.bytes(NEXT)
      first = false
      object(extent)
    },
    end() {
      if (!first) piece.bytes(END)
      piece.text(']\n')
    },
  }
}

/** Columns as wide as they can become: known before the first line, so that lines can go out at once. */
function textLines(piece: AsciiPiece, layers: readonly ChainLayer[], size: number): Lines {
  const width = Math.max(6, String(size).length)
  const largest = layers.reduce((most, { storage }) => Math.max(most, storage?.size ?? 0), 0)
  const places = Math.max('MAPPED TO'.length, String(largest).length)
  const states = 'compressed'.length
  // Where data are: in the image itself, or in the data file that it names.
  const files = layers.map(({ filename, inspection }) =>
    new TextEncoder().encode(`  ${printable(inspection?.dataFile || filename)}`),
  )
  const encrypted = layers.map(({ inspection }) => inspection?.encrypted === true)
  const bytes = { stored: 0, zeros: 0, nowhere: 0 }
  let extents = 0
  return {
    begin: () =>
      piece.text(
        `${'OFFSET'.padStart(width)}  ${'LENGTH'.padStart(width)}  ${'STATE'.padEnd(states)}  ` +
          `${'MAPPED TO'.padStart(places)}  FILE\n`,
      ),
    line({ start, length, depth, present, zero, data, offset }) {
      const stored = data && !zero
      const way = encrypted[depth] ? 'encrypted' : 'compressed'
      const state = stored ? (offset === undefined ? way : 'data') : present ? 'zero' : 'hole'
      bytes[stored ? 'stored' : present ? 'zeros' : 'nowhere'] += length
      extents++
      piece.number(start, width)
      piece.text('  ')
      piece.number(length, width)
      piece.text('  ')
      piece.text(state)
      if (present) {
        piece.text(' '.repeat(states - state.length + 2))
        if (offset === undefined) piece.text('-'.padStart(places))
        else piece.number(offset, places)
        piece.bytes(files[depth]!)
      }
      piece.text('\n')
    },
    end: () => {
      const { stored, zeros, nowhere } = bytes
      piece.text(
        `\n${formatSize(stored)} stored, ${formatSize(zeros)} zeros, ${formatSize(nowhere)} nowhere, of ` +
          `${formatSize(size)} in ${extents} extent${extents === 1 ? '' : 's'}\n`,
      )
    },
  }
}
