/** Control characters but line feeds: what must never reach a terminal from a name. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
export const raw = /[\x00-\x09\x0b-\x1f\x7f-\x9f]/
