/** A key that an object has twice: JSON.parse takes the last of them, and says nothing. */
export interface RepeatedKey {
  readonly key: string
  /** Of the text, from 1 on. */
  readonly line: number
}

/** @param json valid, and not deep */
export function repeatedKey(json: string): RepeatedKey | undefined {
  const objects: Set<string>[] = []
  for (let at = 0; at < json.length; at++) {
    if (json[at] === '{') objects.push(new Set())
    else if (json[at] === '}') objects.pop()
    else if (json[at] === '"') {
      const end = endOfString(json, at)
      if (isKey(json, end)) {
        const key: string = JSON.parse(json.slice(at, end))
        const keys = objects.at(-1)!
        if (keys.has(key)) return { key, line: json.slice(0, at).split('\n').length }
        keys.add(key)
      }
      at = end - 1
    }
  }
  return undefined
}

/** Behind the closing quotation mark of the one that is here. */
function endOfString(json: string, start: number): number {
  let at = start + 1
  while (json[at] !== '"') at += json[at] === '\\' ? 2 : 1
  return at + 1
}

function isKey(json: string, end: number): boolean {
  let at = end
  while (json[at] === ' ' || json[at] === '\n' || json[at] === '\r' || json[at] === '\t') at++
  return json[at] === ':'
}
