const unprintable = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu

/**
 * Names come from images and XML of anybody's making: control characters (which could rewrite the terminal), and
 * those that turn the writing direction, are shown as escapes.
 */
export function printable(text: string): string {
  return text.replace(unprintable, char => {
    const point = char.codePointAt(0)!
    return point < 0x100 ? `\\x${point.toString(16).padStart(2, '0')}` : `\\u${point.toString(16)}`
  })
}

/** JSON of the same meaning: of those characters JSON.stringify escapes just the first 32. Line feeds stay. */
export function printableJson(json: string): string {
  return json.replace(unprintable, char =>
    char === '\n' ? char : `\\u${char.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  )
}
