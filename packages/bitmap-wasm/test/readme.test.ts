// The README's examples are programs: each block runs as it stands, against the built package.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const blocks = [
  ...readFileSync(`${root}/README.md`, 'utf8').matchAll(/^### (.+)\n[\s\S]*?```js\n([\s\S]*?)```/gm),
]

describe('README', () => {
  it('has examples', () => expect(blocks.length).toBeGreaterThanOrEqual(4))

  it.each(blocks.map(([, title, code]) => [title!, code!]))('%s', (_, code) => {
    // A comment at a line's end is what the line prints.
    const expected = [...code.matchAll(/console\.log\(.*\) \/\/ (.*)$/gm)].map(([, text]) => text!)
    const printed = execFileSync(process.execPath, ['--input-type=module'], {
      cwd: root,
      input: code,
      encoding: 'utf8',
    })
    expect(printed.trimEnd().split('\n')).toEqual(expected)
  })
})
