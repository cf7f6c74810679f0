import Table from 'cli-table3'

const none = ''
const bare = {
  top: none,
  'top-mid': none,
  'top-left': none,
  'top-right': none,
  bottom: none,
  'bottom-mid': none,
  'bottom-left': none,
  'bottom-right': none,
  left: none,
  'left-mid': none,
  mid: none,
  'mid-mid': none,
  right: none,
  'right-mid': none,
  middle: '  ',
}

/** Aligned columns without lines, wide characters and colours counted right. Ends with a newline. */
export function table(
  rows: readonly (readonly string[])[],
  options: {
    readonly head?: readonly string[]
    readonly right?: readonly number[]
    readonly indent?: number
  } = {},
): string {
  const columns = options.head?.length ?? rows[0]?.length ?? 0
  const grid = new Table({
    chars: bare,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colAligns: Array.from({ length: columns }, (_, i) => (options.right?.includes(i) ? 'right' : 'left')),
    ...(options.head === undefined ? {} : { head: [...options.head] }),
  })
  for (const row of rows) grid.push([...row])
  const indent = ' '.repeat(options.indent ?? 0)
  return grid
    .toString()
    .split('\n')
    .map(line => `${indent}${line}`.trimEnd())
    .join('\n')
    .concat('\n')
}
