const escapes = new RegExp(`${String.fromCharCode(27)}\\[[\\d;]*m`, 'g')
const wide =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u

function characterWidth(char: string): number {
  return /^\p{M}$/u.test(char) ? 0 : wide.test(char) ? 2 : 1
}

/** Columns of a terminal that a line takes; colours take none. */
export function visibleWidth(text: string): number {
  if (/^[ -~]*$/.test(text)) return text.length
  let width = 0
  for (const char of text.replace(escapes, '')) width += characterWidth(char)
  return width
}

/** Cut to at most `width` columns, with an ellipsis in the middle: both ends of a file's name tell something. */
export function shortened(text: string, width: number): string {
  if (visibleWidth(text) <= width) return text
  const chars = [...text]
  const half = (width - 1) / 2
  const take = (from: readonly string[], columns: number): number => {
    let used = 0
    for (const [i, char] of from.entries()) {
      used += characterWidth(char)
      if (used > columns) return i
    }
    return from.length
  }
  const head = take(chars, Math.ceil(half))
  const tail = take([...chars].reverse(), Math.floor(half))
  return `${chars.slice(0, head).join('')}…${chars.slice(chars.length - tail).join('')}`
}
