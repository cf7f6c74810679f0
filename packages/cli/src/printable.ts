/**
 * Names come from images and XML of anybody's making: control characters (which could rewrite the terminal), and
 * those that turn the writing direction, are shown as escapes.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, char => {
    const point = char.codePointAt(0)!
    return point < 0x100 ? `\\x${point.toString(16).padStart(2, '0')}` : `\\u${point.toString(16)}`
  })
}
