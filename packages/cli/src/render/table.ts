import { visibleWidth } from './width.js'

const GAP = '  '

/** Aligned columns without lines, wide characters and colours counted right. Ends with a newline. */
export function table(
  rows: readonly (readonly string[])[],
  options: {
    readonly head?: readonly string[]
    readonly right?: readonly number[]
    readonly indent?: number
  } = {},
): string {
  const { head, right = [], indent = 0 } = options
  const all = head === undefined ? rows : [head, ...rows]
  const widths: number[] = []
  for (const row of all) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, visibleWidth(cell))
  }
  const lines = all.map(row => {
    const cells = row.map((cell, i) => {
      const pad = ' '.repeat(widths[i]! - visibleWidth(cell))
      return right.includes(i) ? pad + cell : cell + pad
    })
    return `${' '.repeat(indent)}${cells.join(GAP)}`.trimEnd()
  })
  return lines.map(line => `${line}\n`).join('')
}
