import { visibleWidth } from './width.js'

/**
 * Breaks text at spaces into lines of at most `width` columns, each with an indent and a newline.
 *
 * @param paint a colour for each line
 */
export function wrap(
  text: string,
  width: number,
  indent: string,
  paint: (line: string) => string = line => line,
): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && visibleWidth(line) + 1 + visibleWidth(word) > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].map(each => `${indent}${paint(each)}\n`).join('')
}
