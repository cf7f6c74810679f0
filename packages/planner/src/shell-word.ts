import { shellQuote } from './paths.js'

/** What a terminal may show otherwise than it is: control characters, and those that turn the writing direction. */
const UNSEEN = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/u

/** NUL, half a surrogate pair, and what stands for bytes that were no UTF-8. */
const UNSAYABLE = /[\0\ufffd\p{Cs}]/u

/**
 * A word for `sh` that reads as it is written: bare where nothing in it is special, else in quotes; with characters
 * that cannot be seen, as a `printf` of their octal bytes.
 *
 * @returns undefined where no command line can carry it: NUL, half a surrogate, bytes that were no UTF-8 (U+FFFD), or
 *   an unseen name that ends with a line feed
 */
export function shellWord(text: string): string | undefined {
  if (UNSAYABLE.test(text)) return undefined
  if (/^[A-Za-z0-9_@%+:,./-]+$/.test(text)) return text
  if (!UNSEEN.test(text)) return shellQuote(text)
  // $(…) takes line feeds from the end.
  if (text.endsWith('\n')) return undefined
  const octal = (char: string) =>
    [...new TextEncoder().encode(char)].map(byte => `\\${byte.toString(8).padStart(3, '0')}`).join('')
  const format = [...text].map(char => (UNSEEN.test(char) || /[-\\%'"$`]/.test(char) ? octal(char) : char))
  return `"$(printf '${format.join('')}')"`
}

/** A command of such words; undefined where one of them cannot be written. Words are quoted here, `raw` ones not. */
export function shellCommand(...words: readonly (string | { readonly raw: string })[]): string | undefined {
  const written = words.map(word => (typeof word === 'string' ? shellWord(word) : word.raw))
  return written.includes(undefined) ? undefined : written.join(' ')
}

/**
 * A virsh command. Names that begin with a dash come after `--`.
 *
 * @returns undefined where a name cannot be written
 */
export function virshCommand(
  command: string,
  names: readonly string[],
  options: readonly string[] = [],
): string | undefined {
  const dashed = names.some(name => name.startsWith('-'))
  return dashed
    ? shellCommand('virsh', command, ...options, '--', ...names)
    : shellCommand('virsh', command, ...names, ...options)
}
